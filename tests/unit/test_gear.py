import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter import chunker
from converter.chunker import CHUNK_AVERAGE, CHUNK_MAX, CHUNK_MIN
from converter.gear import fastcdc_gear
from tests.support.require import require

LIBRARY = Path("converter/gear/scan.x86_64.so")
NOISE = [
    *(53939, 68691, 87924, 50444, 46420, 63615, 106484, 22932, 44209, 41823, 136348, 49540),
    *(100352, 82944, 44335),
]
ZEROS = [262144, 262144, 75712]
SIZES = (CHUNK_MIN, CHUNK_AVERAGE, CHUNK_MAX)


def cuts(data: bytes, sizes: tuple[int, int, int] = SIZES) -> list[tuple[int, int]]:
    return [(cut.offset, cut.length) for cut in fastcdc_gear(data, *sizes)]


def package_cuts(data: bytes, sizes: tuple[int, int, int] = SIZES) -> list[tuple[int, int]]:
    fastcdc = pytest.importorskip("fastcdc.fastcdc_cy", reason="no extension for this Python")
    return [(cut.offset, cut.length) for cut in fastcdc.fastcdc_cy(data, *sizes)]


def samples() -> Iterator[bytes]:
    yield b""
    yield bytes(3_000_000)
    yield b"".join(b"line %d of a text\n" % n for n in range(150_000))
    for size in (1, CHUNK_MIN, CHUNK_MIN + 1, CHUNK_MAX, CHUNK_MAX + 1, 20_000_000):
        yield Random(size).randbytes(size)


@pytest.mark.parametrize("data", list(samples()), ids=len)
def test_it_cuts_where_the_package_does(data: bytes) -> None:
    assert cuts(data) == package_cuts(data)


@given(
    st.integers(0, 1 << 32),
    st.integers(0, 60_000),
    st.sampled_from([(64, 256, 1024), (64, 1024, 4096), (1024, 1024, 8192), (256, 256, 1024)]),
)
def test_it_cuts_where_the_package_does_whatever_the_sizes(
    seed: int, size: int, sizes: tuple[int, int, int]
) -> None:
    data = Random(seed).randbytes(size)
    assert cuts(data, sizes) == package_cuts(data, sizes)


def test_it_cuts_where_it_always_did() -> None:
    """Vectors of fastcdc 1.7.0, for Pythons that do not have it."""
    assert [length for _, length in cuts(Random(1).randbytes(1_000_000))] == NOISE
    assert [length for _, length in cuts(bytes(600_000))] == ZEROS


def test_without_the_extension_the_converter_cuts_with_it() -> None:
    code = (
        "import sys; sys.modules['fastcdc.fastcdc_cy'] = None\n"
        "import converter.cli\n"
        "from converter import chunker, gear\n"
        "assert chunker.fastcdc is gear.fastcdc_gear"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_with_the_extension_the_converter_cuts_with_that() -> None:
    pytest.importorskip("fastcdc.fastcdc_cy", reason="no extension for this Python")
    assert chunker.fastcdc.__module__ == "fastcdc.fastcdc_cy"


def code_of(library: Path) -> bytes:
    return subprocess.run(
        ["objcopy", "-O", "binary", "-j", ".text", library, "/dev/stdout"],
        capture_output=True,
        check=True,
    ).stdout


def test_the_committed_library_is_what_the_source_assembles_to(tmp_path: Path) -> None:
    require("gcc")
    built = tmp_path / "scan.so"
    subprocess.run([sys.executable, "scripts/build-scan", built], check=True)
    code = code_of(built)
    assert code == code_of(LIBRARY) and len(code) > 1024
    assert LIBRARY.stat().st_size < 4096
