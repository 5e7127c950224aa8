"""A chunk that another image of the cache has is found there, as long as one of them has it."""

from __future__ import annotations

import os
import shutil
from array import array
from pathlib import Path

import pytest

from store.format.digest import digest_of
from store.read.cache import Cache
from store.read.places import BUCKETS, ENTRY, FILES_KEPT, WAYS

SIZES = array("I", [5000, 70_000])
CHUNKS = [os.urandom(size) for size in SIZES]
DIGESTS = [digest_of(chunk) for chunk in CHUNKS]


def cache(path: Path, number: int) -> Cache:
    return Cache(str(path), f"{number:064x}"[::-1], SIZES, print)


def test_what_one_image_has_another_finds_and_it_itself_does_not(tmp_path: Path) -> None:
    one, other = cache(tmp_path, 1), cache(tmp_path, 2)
    assert other.places.find(DIGESTS[1], SIZES[1]) is None
    one.write(1, CHUNKS[1])
    one.places.add(DIGESTS[1], one.offset(1))
    assert other.places.find(DIGESTS[1], SIZES[1]) == CHUNKS[1]
    assert one.places.find(DIGESTS[1], SIZES[1]) is None
    assert other.places.find(DIGESTS[0], SIZES[0]) is None
    one.close()
    other.close()


def test_a_full_bucket_gives_up_an_entry(tmp_path: Path) -> None:
    reader = cache(tmp_path, 99)
    images = [cache(tmp_path, number + 1) for number in range(WAYS * 3)]
    for one in images:
        one.write(0, CHUNKS[0])
        one.places.add(DIGESTS[0], 0)
        assert reader.places.find(DIGESTS[0], SIZES[0]) == CHUNKS[0]
    assert (tmp_path / "v2" / "places").stat().st_size <= BUCKETS * WAYS * ENTRY
    for one in (*images, reader):
        one.close()


def test_an_image_that_is_gone_has_nothing_and_hides_no_other(tmp_path: Path) -> None:
    one, another, reader = (cache(tmp_path, number) for number in (1, 2, 3))
    for image in (one, another):
        image.write(0, CHUNKS[0])
        image.places.add(DIGESTS[0], 0)
    gone = os.readlink(one.path)
    one.close()
    shutil.rmtree(gone)
    assert reader.places.find(DIGESTS[0], SIZES[0]) == CHUNKS[0]
    # Wrong bytes are as good as none.
    another.write(0, bytes(SIZES[0]))
    assert reader.places.find(DIGESTS[0], SIZES[0]) is None
    another.close()
    reader.close()


def test_files_of_many_images_do_not_stay_open(tmp_path: Path) -> None:
    reader = cache(tmp_path, 999)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(FILES_KEPT * 3):
        one = cache(tmp_path, number + 1)
        one.write(0, CHUNKS[0])
        one.places.add(DIGESTS[0], 0)
        gone = os.readlink(one.path)
        one.close()
        assert reader.places.find(DIGESTS[0], SIZES[0]) == CHUNKS[0]
        shutil.rmtree(gone)
    assert len(os.listdir("/proc/self/fd")) <= before + FILES_KEPT + 1
    reader.close()


@pytest.mark.parametrize("content", [b"", b"\xff" * 1000, os.urandom(BUCKETS * WAYS * ENTRY)])
def test_a_table_of_anything_at_all_is_one(tmp_path: Path, content: bytes) -> None:
    one, other = cache(tmp_path, 1), cache(tmp_path, 2)
    (tmp_path / "v2" / "places").write_bytes(content)
    for digest, size in zip(DIGESTS, SIZES, strict=True):
        assert other.places.find(digest, size) is None
    one.write(1, CHUNKS[1])
    one.places.add(DIGESTS[1], one.offset(1))
    assert other.places.find(DIGESTS[1], SIZES[1]) == CHUNKS[1]
    one.close()
    other.close()
