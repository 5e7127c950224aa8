import ctypes
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.runtime.elffile import strip_unmapped
from store.errors import FormatError
from tests.support.require import require

PROGRAM = Path("boot/launcher/launcher.x86_64").read_bytes()  # nothing in it is left unmapped
TAIL = b"symbols" * 40
SOURCE = "int answer(void) { return 42; }\n"


@pytest.fixture
def library(tmp_path: Path) -> Path:
    require("gcc")
    source, target = tmp_path / "answer.c", tmp_path / "libanswer.so"
    source.write_text(SOURCE)
    subprocess.run(["gcc", "-g", "-shared", "-o", target, source], check=True)
    return target


def test_a_stripped_library_is_smaller_and_still_loads(library: Path) -> None:
    whole = library.read_bytes()
    stripped = strip_unmapped("libanswer.so", whole)
    library.write_bytes(stripped)
    assert len(stripped) < len(whole)
    assert b".debug_info" in whole
    assert b".debug_info" not in stripped
    assert ctypes.CDLL(str(library)).answer() == 42


def test_stripping_again_changes_nothing(library: Path) -> None:
    once = strip_unmapped("libanswer.so", library.read_bytes())
    assert strip_unmapped("libanswer.so", once) == once


def test_a_truncated_library_is_refused(library: Path) -> None:
    stripped = strip_unmapped("libanswer.so", library.read_bytes())
    with pytest.raises(FormatError, match="segments end at"):
        strip_unmapped("libanswer.so", stripped[:-1])


@given(st.binary(max_size=300))
def test_anything_else_is_refused(junk: bytes) -> None:
    with pytest.raises(FormatError):
        strip_unmapped("junk", junk)


def test_a_tail_that_is_not_mapped_is_cut() -> None:
    assert strip_unmapped("launcher", PROGRAM + TAIL) == PROGRAM


@given(at=st.integers(0, 175), change=st.integers(1, 255))
def test_a_damaged_header_is_refused_or_only_the_tail_is_cut(at: int, change: int) -> None:
    damaged = bytearray(PROGRAM + TAIL)
    damaged[at] ^= change
    try:
        stripped = strip_unmapped("launcher", bytes(damaged))
    except FormatError:
        return
    assert stripped[64:] == bytes(damaged)[64 : len(stripped)]


def test_program_headers_in_the_header_itself_are_refused() -> None:
    # What is stripped would end within it, and be no program.
    header = PROGRAM[:32] + (8).to_bytes(8, "little") + PROGRAM[40:64]
    with pytest.raises(FormatError, match="at byte 32: program headers of 56 bytes at 8"):
        strip_unmapped("program", header)
