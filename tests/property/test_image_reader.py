"""Any read of image.erofs is the slice of the whole, through every kind of source and cache."""

import os
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from converter.tree import Node
from store.errors import BootfsError, IntegrityError
from store.read.local import DirectorySource
from tests.support.stores import NAME, StoredImage, WatchedSource
from tests.support.trees import iter_tree, random_tree

SEEDS = range(6)


def tree_without_giants(random: Random) -> Node:
    """Return a random tree of which the whole image can be kept in memory."""
    while True:
        tree = random_tree(random)
        if sum(n.content.size for _, n in iter_tree(tree) if n.is_regular) < 100 << 20:
            return tree


@pytest.fixture(params=SEEDS)
def image(request: pytest.FixtureRequest, tmp_path: Path) -> StoredImage:
    return StoredImage(tree_without_giants(Random(request.param)), tmp_path / "store")


def check_reads(
    image: StoredImage, read: Callable[[int, int], list[bytes | memoryview]], random: Random
) -> None:
    whole = image.whole()
    index = image.index
    edges = [0, len(image.plain_bootstrap), index.data_start, len(whole), 256 << 10]
    edges += [index.data_start + at for at in index.starts]
    for _ in range(300):
        offset = max(0, random.choice((random.choice(edges), random.randrange(len(whole) + 5000))))
        offset = max(0, offset + random.choice((-4097, -1, 0, 0, 1, 4096)))
        size = random.choice((0, 1, 17, 4096, 131_072, 1_000_000, 3_000_000))
        assert b"".join(read(offset, size)) == whole[offset : offset + size]
    assert b"".join(read(0, len(whole) + 1)) == whole


def test_from_a_directory(image: StoredImage) -> None:
    reader = image.open_reader(memory_limit=1 << 19)
    check_reads(image, reader.read, Random(1))
    reader.close()


def test_with_guesses_and_without_memory(image: StoredImage) -> None:
    source = WatchedSource(DirectorySource(str(image.path)), read_ahead=128 << 10)
    reader = image.open_reader(source, memory_limit=0)
    check_reads(image, reader.read, Random(2))
    reader.close()


def test_through_a_cache_and_then_from_it_alone(image: StoredImage, tmp_path: Path) -> None:
    cache = image.open_cache(tmp_path / "cache")
    reader = image.open_reader(cache=cache)
    check_reads(image, reader.read, Random(3))
    reader.close()
    assert cache.present_count == image.index.chunk_count
    cache.close()

    source = WatchedSource(DirectorySource(str(image.path)))
    cache = image.open_cache(tmp_path / "cache")
    reader = image.open_reader(source, cache, memory_limit=0)
    check_reads(image, reader.read, Random(4))
    assert not source.fetched
    reader.close()
    cache.close()


@pytest.mark.parametrize("damage", ["data", "map of ones", "map of noise", "short data", "no map"])
def test_through_a_poisoned_cache(image: StoredImage, tmp_path: Path, damage: str) -> None:
    random = Random(5)
    cache = image.open_cache(tmp_path / "cache")
    reader = image.open_reader(cache=cache)
    reader.read(0, reader.size)
    reader.close()
    cache.close()
    directory = tmp_path / "cache" / "v2" / NAME
    count = image.index.chunk_count
    size = sum(image.index.plain_sizes)
    if damage == "data":
        with (directory / "data").open("r+b") as file:
            for _ in range(count):
                file.seek(random.randrange(max(size, 1)))
                file.write(random.randbytes(10))
            file.truncate(size)
    elif damage == "map of ones":
        (directory / "present").write_bytes(b"\1" * count)
        os.truncate(directory / "data", 0)
    elif damage == "map of noise":
        (directory / "present").write_bytes(random.randbytes(count))
    elif damage == "short data":
        os.truncate(directory / "data", size // 2)
    else:
        (directory / "present").unlink()
    lines: list[str] = []
    cache = image.open_cache(tmp_path / "cache")
    reader = image.open_reader(cache=cache, log=lines.append)
    check_reads(image, reader.read, random)
    if damage == "data" and count:
        assert "damaged; fetching it again" in lines[0]
    reader.close()
    # What was bad has been repaired.
    source = WatchedSource(DirectorySource(str(image.path)))
    reader = image.open_reader(source, cache)
    assert b"".join(reader.read(0, reader.size)) == image.whole()
    assert not source.fetched
    reader.close()
    cache.close()


def test_damage_anywhere_in_packs_is_never_a_wrong_byte(image: StoredImage) -> None:
    whole = image.whole()
    random = Random(6)
    for pack in (image.path / "packs").rglob("*/*"):
        data = bytearray(pack.read_bytes())
        for _ in range(20):
            data[random.randrange(len(data))] ^= 1 << random.randrange(8)
        pack.write_bytes(data)
    reader = image.open_reader()
    refused = 0
    for at in range(0, len(whole), 65_536):
        try:
            assert b"".join(reader.read(at, 65_536)) == whole[at : at + 65_536]
        except IntegrityError:
            refused += 1
    assert refused or not image.index.chunk_count
    reader.close()


def test_damage_anywhere_in_the_bootstrap_is_never_a_wrong_byte(image: StoredImage) -> None:
    random = Random(7)
    for _ in range(30):
        frames = bytearray(image.plain_bootstrap)
        if random.random() < 0.3:
            del frames[random.randrange(len(frames)) :]
        else:
            frames[random.randrange(len(frames))] ^= 1 << random.randrange(8)
        good, image.plain_bootstrap = image.plain_bootstrap, bytes(frames)
        reader = image.open_reader()
        image.plain_bootstrap = good
        with pytest.raises(BootfsError):
            reader.bootstrap.read_all()
        reader.close()
