import os
import resource
import signal
import subprocess
import sys
import tempfile
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from store.format.digest import digest_of
from store.read import cache as cache_module
from store.read.cache import Cache, CacheUnusable
from tests.support.require import require
from tests.support.stores import NAME

SIZES = array("I", [5, 4096, 70_000])
CHUNKS = [bytes([n]) * size for n, size in enumerate(SIZES, 1)]


@contextmanager
def opened(path: Path, lines: list[str] | None = None) -> Iterator[Cache]:
    log = [] if lines is None else lines
    cache = Cache(str(path), NAME, SIZES, log.append)
    yield cache
    cache.close()


def test_what_is_written_is_read_also_by_others_and_later(tmp_path: Path) -> None:
    with opened(tmp_path) as first, opened(tmp_path) as second:
        assert first.read(1) is None and not first.has(1)
        for number, plain in enumerate(CHUNKS):
            first.write(number, plain)
            assert second.has(number) and second.read(number) == plain
        assert second.present_count == 3
    with opened(tmp_path) as later:
        assert [later.read(n) for n in range(3)] == CHUNKS


def test_neighbours_are_read_at_once_when_all_are_there(tmp_path: Path) -> None:
    with opened(tmp_path) as cache:
        cache.write(0, CHUNKS[0])
        cache.write(1, CHUNKS[1])
        assert cache.read(0, 2) == CHUNKS[0] + CHUNKS[1]
        assert cache.read(0, 3) is None
        cache.write(2, CHUNKS[2])
        assert cache.read(0, 3) == b"".join(CHUNKS)


@pytest.fixture
def disk() -> Iterator[Path]:
    """A directory on a disk, which /tmp need not be."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as path:
        yield Path(path)


def test_what_only_the_disk_has_is_not_at_hand(disk: Path) -> None:
    with opened(disk) as cache:
        for number, plain in enumerate(CHUNKS):
            cache.write(number, plain)
        assert cache.is_at_hand(0, 3)
        data = os.open(disk / "v2" / NAME / "data", os.O_RDONLY)
        os.fsync(data)
        os.posix_fadvise(data, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(data)
        assert not cache.is_at_hand(0, 3)
        assert cache.read(0, 3) == b"".join(CHUNKS)
        assert cache.is_at_hand(0, 3)


def test_a_forgotten_chunk_is_not_there(tmp_path: Path) -> None:
    with opened(tmp_path) as cache:
        cache.write(1, CHUNKS[1])
        cache.forget(1)
        assert cache.read(1) is None and cache.present_count == 0


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    with opened(tmp_path):
        assert (tmp_path / "v2" / NAME).stat().st_mode & 0o777 == 0o700
        for name in ("data", "present"):
            assert (tmp_path / "v2" / NAME / name).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["data", "present"])
@pytest.mark.parametrize("size", [0, 1, 3, 100])
def test_truncated_files_cost_chunks_and_nothing_else(tmp_path: Path, name: str, size: int) -> None:
    with opened(tmp_path) as cache:
        for number, plain in enumerate(CHUNKS):
            cache.write(number, plain)
    os.truncate(tmp_path / "v2" / NAME / name, size)
    with opened(tmp_path) as cache:
        for number, plain in enumerate(CHUNKS):
            found = cache.read(number)
            assert found is None or len(found) == len(plain)
            cache.write(number, plain)
            assert cache.read(number) == plain


def test_data_cut_under_a_reader_is_a_chunk_that_is_not_there(tmp_path: Path) -> None:
    with opened(tmp_path) as cache:
        cache.write(1, CHUNKS[1])
        os.truncate(tmp_path / "v2" / NAME / "data", 100)
        assert cache.read(1) is None


def test_an_image_without_chunks_has_a_cache_of_nothing(tmp_path: Path) -> None:
    cache = Cache(str(tmp_path), NAME, array("I"), print)
    assert cache.present_count == 0
    cache.close()


def test_something_else_in_its_place_is_unusable(tmp_path: Path) -> None:
    (tmp_path / "v2").write_text("a file")
    with pytest.raises(CacheUnusable, match="without a cache"):
        Cache(str(tmp_path), NAME, SIZES, print)


@pytest.mark.parametrize("name", ["data", "present"])
def test_links_and_pipes_are_not_followed(tmp_path: Path, name: str) -> None:
    directory = tmp_path / "cache" / "v2" / NAME
    directory.mkdir(parents=True)
    (directory / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CacheUnusable):
        Cache(str(tmp_path / "cache"), NAME, SIZES, print)
    assert not (tmp_path / "elsewhere").exists()
    (directory / name).unlink()
    os.mkfifo(directory / name)
    with pytest.raises(CacheUnusable):
        Cache(str(tmp_path / "cache"), NAME, SIZES, print)


@pytest.mark.parametrize("place", ["v2", f"v2/{NAME}"])
def test_links_to_directories_are_not_followed(tmp_path: Path, place: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "cache" / place).parent.mkdir(parents=True)
    (tmp_path / "cache" / place).symlink_to(elsewhere)
    with pytest.raises(CacheUnusable):
        Cache(str(tmp_path / "cache"), NAME, SIZES, print)
    assert not os.listdir(elsewhere)


@pytest.mark.parametrize("place", ["v2", f"v2/{NAME}"])
def test_a_link_put_there_afterwards_is_not_followed(tmp_path: Path, place: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with opened(tmp_path / "cache") as cache:
        (tmp_path / "cache" / place).rename(tmp_path / "moved")
        (tmp_path / "cache" / place).symlink_to(elsewhere)
        cache.write(1, CHUNKS[1])
        cache.places.add(digest_of(CHUNKS[1]), 0)
        cache.claims.take(digest_of(CHUNKS[2]))
        assert cache.read(1) == CHUNKS[1]
        os.close(os.open(f"{cache.path}/reads", os.O_CREAT | os.O_WRONLY))
    assert not os.listdir(elsewhere)
    assert {"reads", "data"} <= {path.name for path in (tmp_path / "moved").rglob("*")}


def test_files_are_closed_when_it_is_unusable(tmp_path: Path) -> None:
    (tmp_path / "v2" / NAME / "present").mkdir(parents=True)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(CacheUnusable):
        Cache(str(tmp_path), NAME, SIZES, print)
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_a_limit_on_file_sizes_costs_the_cache_alone(tmp_path: Path) -> None:
    code = (
        "import sys, resource\n"
        "from array import array\n"
        "from store.read.cache import Cache, CacheUnusable\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: Cache(sys.argv[1], 'image', array('I', [70_000]), print)\n"
        "except CacheUnusable as error: print('unusable', error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("unusable")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    require("root")
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", path], check=True)
    yield path
    subprocess.run(["umount", path], check=True)


def test_a_full_disk_costs_the_keeping_and_is_tried_again_later(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(cache_module, "monotonic", lambda: now[0])
    lines: list[str] = []
    with opened(small_disk, lines) as cache:
        cache.write(0, CHUNKS[0])
        cache.write(2, CHUNKS[2])
        assert (cache.read(0), cache.read(2)) == (CHUNKS[0], None)
        assert lines == ["cache: No space left on device; reading on without keeping"]
        cache.write(1, CHUNKS[1])
        assert cache.read(1) is None  # a pause: the disk is not asked at each chunk
        os.truncate(small_disk / "v2" / NAME / "data", 0)
        now[0] += cache_module.PAUSE_S
        cache.write(1, CHUNKS[1])
        assert cache.read(1) == CHUNKS[1]


def test_a_map_of_holes_on_a_full_disk_keeps_nothing_and_is_no_bus_error(small_disk: Path) -> None:
    directory = small_disk / "v2" / NAME
    directory.mkdir(parents=True)
    with (directory / "present").open("wb") as file:
        file.truncate(1 << 20)
    for name in ("data", "used"):
        (directory / name).touch()
    filling = (small_disk / "filling").open("wb", buffering=0)
    with filling, pytest.raises(OSError, match="No space"):
        while True:
            filling.write(bytes(4096))
    lines: list[str] = []
    with opened(small_disk, lines) as cache:
        assert not cache.write(1, CHUNKS[1])
        assert not cache.has(1)
    assert lines == ["cache: No space left on device; reading on without keeping"]


@pytest.mark.parametrize("name", ["data", "present", "used", "sizes"])
def test_files_cut_short_under_a_reader_are_no_bus_error(tmp_path: Path, name: str) -> None:
    with opened(tmp_path) as cache:
        for number, plain in enumerate(CHUNKS):
            assert cache.write(number, plain)
        os.truncate(tmp_path / "v2" / NAME / name, 0)
        for number, plain in enumerate(CHUNKS):
            assert cache.read(number) in (None, plain)
            assert cache.write(number, plain)
            assert cache.read(number) == plain


def test_a_directory_that_may_not_be_written_is_unusable(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", tmp_path], check=True)
    else:
        tmp_path.chmod(0o500)
    try:
        with pytest.raises(CacheUnusable):
            Cache(str(tmp_path), NAME, SIZES, print)
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", tmp_path], check=True)


def test_this_interpreter_turns_a_size_limit_into_an_error() -> None:
    """The cache counts on EFBIG in place of SIGXFSZ."""
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN
    assert resource.RLIMIT_FSIZE
