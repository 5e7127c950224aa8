import hashlib
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from store.errors import FormatError, StorageFull
from store.format.digest import digest_of
from store.format.packfile import CHUNK_LIMIT, parse_header
from store.read.body import plain_of
from store.write import packwriter
from store.write.backends.directory import DirectoryBackend
from store.write.catalogue import read_catalogue, read_table
from store.write.packwriter import PackWriter, compress

CHUNKS = [Random(n).randbytes(1000) + bytes(n * 1000) for n in range(40)]


@pytest.fixture
def backend(tmp_path: Path) -> DirectoryBackend:
    backend = DirectoryBackend(str(tmp_path / "store"))
    backend.create()
    return backend


@pytest.fixture(autouse=True)
def small_packs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packwriter, "PACK_TARGET", 10_000)


def write(backend: DirectoryBackend, workers: int = 2) -> PackWriter:
    with PackWriter(backend, 3, workers) as writer:
        for number, plain in enumerate(CHUNKS):
            writer.add(number, digest_of(plain), plain)
        writer.finish()
    return writer


def test_every_chunk_is_where_the_writer_says(backend: DirectoryBackend) -> None:
    writer = write(backend)
    assert len(writer.packs) > 3
    for number, plain in enumerate(CHUNKS):
        place, entry = writer.places[number]
        digest, size = writer.packs[place]
        name = f"packs/{digest.hex()[:2]}/{digest.hex()}"
        data = (Path(backend.location) / name).read_bytes()
        parse_header(data[:16])
        assert hashlib.sha256(data).digest() == digest
        assert len(data) == size <= 10_000 + 64 + 40 * 40
        body = data[entry.offset : entry.offset + entry.stored_size]
        assert plain_of(body, entry.plain_size, entry.digest, "it") == plain


def test_packs_do_not_depend_on_who_was_faster(tmp_path: Path) -> None:
    found = []
    for workers in (1, 2, 7):
        backend = DirectoryBackend(str(tmp_path / str(workers)))
        backend.create()
        found.append(write(backend, workers).packs)
    assert found[0] == found[1] == found[2]


def test_what_does_not_shrink_is_kept_plain() -> None:
    noise = Random(1).randbytes(1000)
    assert compress(noise, 19) == noise
    assert len(compress(bytes(1000), 1)) < 100
    assert len(compress(bytes(CHUNK_LIMIT), 1)) < CHUNK_LIMIT


def test_the_catalogue_knows_every_chunk(backend: DirectoryBackend) -> None:
    writer = write(backend)
    catalogue = read_catalogue(backend)
    assert sorted(writer.packs) == catalogue.packs
    for number, plain in enumerate(CHUNKS):
        place, entry = catalogue.places[digest_of(plain)]
        written_place, written = writer.places[number]
        assert (catalogue.packs[place], entry) == (writer.packs[written_place], written)


def test_nothing_to_write_writes_nothing(backend: DirectoryBackend) -> None:
    with PackWriter(backend, 3, 2) as writer:
        writer.finish()
    assert writer.packs == [] and list(backend.iter_names("packs/")) == []


class FullBackend(DirectoryBackend):
    """A store on which only so many objects have room."""

    room = 2

    def write(self, name: str, pieces: Iterator[bytes]) -> None:
        if not self.room:
            raise StorageFull("full")
        self.room -= 1
        super().write(name, pieces)


def test_a_full_store_ends_the_writing_and_leaves_whole_packs(tmp_path: Path) -> None:
    backend = FullBackend(str(tmp_path))
    backend.create()
    with pytest.raises(StorageFull):
        write(backend)
    assert len(list(backend.iter_names("packs/"))) == 2
    assert len(read_catalogue(backend).packs) == 2


@pytest.mark.parametrize("base", ["readme", "z" * 64, "A" * 64, "00" * 32, " " * 64])
def test_files_that_are_no_packs_are_named(backend: DirectoryBackend, base: str) -> None:
    directory = Path(backend.location) / "packs" / "ff"
    directory.mkdir(parents=True)
    (directory / base).write_bytes(b"")
    with pytest.raises(FormatError, match=f"packs/ff/{base}"):
        read_catalogue(backend)


@pytest.mark.parametrize("damage", ["empty", "short", "flip", "cut"])
def test_a_damaged_pack_is_named(backend: DirectoryBackend, damage: str) -> None:
    write(backend)
    pack = next(Path(backend.location).glob("packs/*/*"))
    data = bytearray(pack.read_bytes())
    if damage == "empty":
        data.clear()
    elif damage == "short":
        del data[50:]
    elif damage == "flip":
        data[-70] ^= 1
    else:
        del data[-1:]
    pack.write_bytes(data)
    with pytest.raises(FormatError, match=pack.name):
        read_catalogue(backend)
    with pytest.raises(FormatError):
        read_table(backend, bytes.fromhex(pack.name))
