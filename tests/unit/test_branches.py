import subprocess
import sys
import zlib
from pathlib import Path
from random import Random

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from converter.tree import Node
from store.errors import IntegrityError
from store.format.branches import KINDS, turn_slowly
from store.format.chunkindex import parse_chunk_index
from store.format.digest import digest_of
from store.format.packfile import FILTERED
from store.read import branches
from store.read.body import plain_of
from store.read.branches import filtered, unfiltered
from store.write.backends.directory import DirectoryBackend
from store.write.catalogue import read_catalogue
from store.write.checking import Problem, StoreCheck
from store.write.packwriter import FILTER_LEVEL, compress
from tests.support.require import require
from tests.support.stores import StoredImage
from tests.support.trees import make_directory, make_file

LIBRARY = Path("store/read/branchcode.x86_64.so")
LIKELY = b"\xe8\xe9\x0f\x80\x84\x8f\x8b\x8d\x05\x0d\xc7\x83\xff\xfe\xfd\x00\x01\x02\x03\x04"
"""What decides something in the filter."""


def machine_code() -> bytes:
    """Return 128 KiB out of a shared library, where it gains most."""
    data = Path(str(zstandard.backend_c.__file__)).read_bytes()[: 2 << 20]
    pieces = [data[at : at + (128 << 10)] for at in range(0, len(data), 128 << 10)]
    return min(pieces, key=lambda p: len(zlib.compress(filtered(p)[0])) / len(zlib.compress(p)))


CODE = machine_code()
TEXT = b"".join(b"%d lines of a text that is no code\n" % number for number in range(3000))


@given(
    st.binary(max_size=300)
    | st.lists(st.sampled_from(LIKELY), max_size=300).map(bytes)
    | st.integers(0, 1 << 32).map(lambda seed: CODE[seed % 100_000 :][:5000])
)
def test_all_bytes_come_back_and_the_machine_code_does_what_the_python_does(plain: bytes) -> None:
    data, count = filtered(plain)
    assert unfiltered(data) == plain
    slowly = bytearray(plain)
    assert (turn_slowly(slowly, 1), bytes(slowly)) == (count, data)
    assert turn_slowly(slowly, -1) == count
    assert slowly == plain


@pytest.mark.parametrize("seed", range(4))
def test_long_bytes_come_back(seed: int) -> None:
    random = Random(seed)
    plain = bytes(random.choices(LIKELY, k=1 << 20))
    data, count = filtered(plain)
    assert count > 10_000 and data != plain
    assert unfiltered(data) == plain


def test_this_machine_has_the_machine_code() -> None:
    assert branches.turn is not turn_slowly


@pytest.mark.parametrize("lacking", ["sys.modules['_ctypes'] = None", "sys.path[0:0] = ['/none']"])
def test_without_the_machine_code_the_python_does_the_same(lacking: str) -> None:
    code = (
        f"import sys; {lacking}\n"
        "import store.read\n"
        "from importlib.util import find_spec, module_from_spec\n"
        "from store.format.branches import turn_slowly\n"
        "spec = find_spec('store.read.branches')\n"
        "branches = module_from_spec(spec)\n"
        "if 'none' in sys.path[0]: del branches.__file__\n"
        "spec.loader.exec_module(branches)\n"
        "assert branches.turn is turn_slowly\n"
        "plain = bytes(range(256)) * 9 + bytes([232, 1, 2, 3, 0, 0, 0])\n"
        "assert branches.filtered(plain)[0] != plain\n"
        "assert branches.unfiltered(branches.filtered(plain)[0]) == plain\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_two_calls_of_one_function_become_alike() -> None:
    def call(at: int, target: int) -> bytes:
        return b"\xe8" + (target - at - 5).to_bytes(4, "little", signed=True)

    plain = call(0, 1000) + b"\x90" * 50 + call(55, 1000) + b"\x90" * 9
    data, count = filtered(plain)
    assert count == 2
    assert data[1:5] == data[56:60] != plain[1:5]


@pytest.mark.parametrize(
    ("opcode", "is_turned"),
    [
        (b"\xe8", True),
        (b"\xe9", True),
        (b"\x0f\x84", True),
        (b"\x0f\x8f", True),
        (b"\x0f\x94", False),
        (b"\x8d\x05", True),
        (b"\x8b\x3d", True),
        (b"\x8b\x45", False),
        (b"\x90\x90", False),
    ],
    ids=lambda value: value.hex() if isinstance(value, bytes) else None,
)
def test_displacements_are_turned_and_nothing_else(opcode: bytes, is_turned: bool) -> None:
    plain = b"\x90" * 7 + opcode + b"\x10\x20\x30\x00" + b"\x90" * 7
    data, count = filtered(plain)
    field = 7 + len(opcode)
    assert count == is_turned
    assert data[:field] == plain[:field] and data[field + 4 :] == plain[field + 4 :]
    value = 0x302010 + field * is_turned
    assert data[field : field + 4] == value.to_bytes(4, "little")


@pytest.mark.parametrize(
    ("value", "is_turned"),
    [((1 << 25) - 1, True), (1 << 25, False), (-(1 << 25), True), (-(1 << 25) - 1, False)],
)
def test_long_displacements_are_left_and_the_others_wrap(value: int, is_turned: bool) -> None:
    plain = b"\xe8" + value.to_bytes(4, "little", signed=True) + b"\x90" * 4
    data, count = filtered(plain)
    assert (count, data != plain) == (is_turned, is_turned)
    assert unfiltered(data) == plain


def test_code_takes_less_and_text_is_not_filtered() -> None:
    plainly = len(compress(CODE, FILTER_LEVEL - 1))
    body = compress(CODE, FILTER_LEVEL)
    assert body.startswith(FILTERED) and len(body) < plainly * 0.95
    for level in (1, FILTER_LEVEL, 19):
        assert not compress(TEXT, level).startswith(FILTERED)
    assert not compress(CODE, FILTER_LEVEL - 1).startswith(FILTERED)


def test_a_filtered_body_is_read_and_a_damaged_one_is_refused() -> None:
    body = compress(CODE, FILTER_LEVEL)
    digest = digest_of(CODE)
    assert plain_of(memoryview(body), len(CODE), digest, "it") == CODE
    random = Random(1)
    damages = [
        body[:at] + bytes([body[at] ^ 1 << random.randrange(8)]) + body[at + 1 :]
        for at in [0, 1, 2, *random.sample(range(len(body)), 50)]
    ]
    for damaged in (*damages, body[1:], body[:-1], b"\1", b"\2" + body[1:], b"\1" + body):
        with pytest.raises(IntegrityError):
            plain_of(damaged, len(CODE), digest, "it")
    with pytest.raises(IntegrityError):
        plain_of(body, len(CODE) - 1, digest, "it")


def test_a_chunk_that_looks_like_a_filtered_body_is_none() -> None:
    plain = FILTERED + Random(2).randbytes(1000)
    assert compress(plain, FILTER_LEVEL) == plain
    assert plain_of(plain, len(plain), digest_of(plain), "it") == plain


def one_and_another() -> tuple[Node, Node]:
    """Return a tree with code, and one with the same code and a text."""
    code = make_file(CODE)
    return make_directory(code=code), make_directory(code=make_file(CODE), text=make_file(TEXT))


@pytest.mark.parametrize("first", [FILTER_LEVEL, 5])
def test_images_share_chunks_of_whatever_level(tmp_path: Path, first: int) -> None:
    """Who refers to filtered bodies says so, whoever wrote them."""
    one, another = one_and_another()
    other = FILTER_LEVEL + 5 - first
    images = [StoredImage(one, tmp_path, first), StoredImage(another, tmp_path, other)]
    assert images[0].stored.new_bytes > 2 * images[1].stored.new_bytes > 0
    versions = [1 + (first == FILTER_LEVEL)] * 2
    assert [image.index.version for image in images] == versions
    for image, version in zip(images, versions, strict=True):
        assert parse_chunk_index(image.encoded_index).version == version
        reader = image.open_reader()
        assert b"".join(reader.read(0, reader.size)) == image.whole()
        reader.close()
    catalogue = read_catalogue(DirectoryBackend(str(tmp_path)))
    assert len(catalogue.with_filtered) == versions[0] - 1 and len(catalogue.packs) == 2


def problems_of(backend: DirectoryBackend) -> list[Problem]:
    check = StoreCheck(backend)
    check.take_stock()
    return list(check.iter_problems(lambda _: None))


def test_a_damaged_pack_with_filtered_bodies_is_found(tmp_path: Path) -> None:
    image = StoredImage(one_and_another()[0], tmp_path, FILTER_LEVEL)
    backend = DirectoryBackend(str(tmp_path))
    assert problems_of(backend) == []
    (pack,) = tmp_path.glob("packs/*/*")
    data = bytearray(pack.read_bytes())
    data[image.index.offsets[0] + 1000] ^= 1
    pack.write_bytes(data)
    (problem,) = problems_of(backend)
    assert pack.name in problem.name
    with pytest.raises(IntegrityError):
        image.open_reader().read(image.index.data_start, 4096)


def test_the_committed_library_is_what_the_source_assembles_to(tmp_path: Path) -> None:
    require("gcc")
    built = tmp_path / "branches.so"
    subprocess.run([sys.executable, "scripts/build-branches", built], check=True)
    codes = [
        subprocess.run(
            ["objcopy", "-O", "binary", "-j", ".text", library, "/dev/stdout"],
            capture_output=True,
            check=True,
        ).stdout
        for library in (built, LIBRARY)
    ]
    assert codes[0] == codes[1] and codes[0].endswith(KINDS)
    assert LIBRARY.stat().st_size < 4096
