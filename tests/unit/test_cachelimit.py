"""A cache with a limit stays below it, keeps what was used last, and serves all the same."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from array import array
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from store.read import cache as cache_module
from store.read import cachelimit
from store.read.cache import SEGMENT, Cache

SIZE = 200_000
COUNT = 60
SIZES = array("I", [SIZE] * COUNT)
LIMIT = 6 << 20


def chunk(image: int, number: int) -> bytes:
    return bytes([image, number]) * (SIZE // 2)


def cache(path: Path, image: int, limit: int = LIMIT) -> Cache:
    return Cache(str(path), f"{image:064x}", SIZES, print, limit)


def is_right(found: memoryview | None, image: int, number: int) -> bool:
    """Whether a reader who verifies takes what was read for the chunk, or for one given up."""
    return found is None or found == chunk(image, number) or b"\0" * 1024 in bytes(found)


def used(path: Path) -> int:
    return sum(f.stat().st_blocks * 512 for f in (path / "v2").glob("*/data"))


@pytest.fixture
def disk() -> Iterator[Path]:
    """A directory on a disk, which makes holes; /tmp need not be one."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as path:
        yield Path(path)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Both clocks, to be set."""
    clock = [10_000.0]
    for name in ("time", "monotonic"):
        monkeypatch.setattr(cache_module, name, lambda: clock[0])
    return clock


def test_it_stays_below_the_limit_and_never_gives_a_wrong_byte(disk: Path) -> None:
    one = cache(disk, 1)
    for number in range(COUNT):
        assert one.write(number, chunk(1, number))
        assert one.read(number) == chunk(1, number)
        assert used(disk) <= LIMIT
        for earlier in range(number):
            assert is_right(one.read(earlier), 1, earlier)
    kept = [n for n in range(COUNT) if one.read(n) == chunk(1, n)]
    # Not much more is given up than has to be.
    assert len(kept) * SIZE > LIMIT - LIMIT // cachelimit.SHARE - 3 * SEGMENT
    one.close()


def test_what_was_used_last_stays(disk: Path, now: list[float]) -> None:
    one = cache(disk, 1)
    for number in range(20):
        one.write(number, chunk(1, number))
        now[0] += 1
    now[0] += 100
    # The oldest is used again, so that what follows it is older now.
    assert one.read(0, 5) is not None
    now[0] += 1
    for number in range(20, 34):
        one.write(number, chunk(1, number))
        now[0] += 1
    kept = [n for n in range(34) if one.read(n) == chunk(1, n)]
    assert {*range(5), 33} <= set(kept) and 10 not in kept
    one.close()


def test_room_is_made_in_other_images_and_their_readers_learn_of_it(
    disk: Path, now: list[float]
) -> None:
    one, other = cache(disk, 1), cache(disk, 2)
    for number in range(25):
        one.write(number, chunk(1, number))
    now[0] += 100
    for number in range(25):
        assert other.write(number, chunk(2, number))
        assert used(disk) <= LIMIT
    assert all(other.read(number) == chunk(2, number) for number in range(24))
    # One that has the map in memory finds holes, not contents of others.
    for number in range(25):
        assert is_right(one.read(number), 1, number)
    assert cache(disk, 1).present_count < 10
    one.close()
    other.close()


def test_many_writers_at_once_stay_below_it(disk: Path) -> None:
    caches = [cache(disk, image) for image in range(1, 5)]
    largest = 0

    def write(number: int) -> None:
        nonlocal largest
        image = number % 4
        caches[image].write(number // 4 % COUNT, chunk(image + 1, number // 4 % COUNT))
        # Files are measured one after the other: nothing may go from one to another meanwhile.
        with cachelimit._threads:
            largest = max(largest, used(disk))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(COUNT * 4)))
    assert largest <= LIMIT
    for image, one in enumerate(caches, 1):
        for number in range(COUNT):
            assert is_right(one.read(number), image, number)
        one.close()


def test_a_chunk_is_not_kept_while_another_container_is_stopped_in_making_room(disk: Path) -> None:
    one = cache(disk, 1)
    assert one.write(0, chunk(1, 0))
    code = (
        "import os, sys\nfd = os.open(sys.argv[1], os.O_RDWR)\nos.lockf(fd, os.F_LOCK, 1)\n"
        "print(flush=True)\nsys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(disk / "v2" / "limit")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as stopped:
        assert stopped.stdin and stopped.stdout and stopped.stdout.readline()
        assert not one.write(1, chunk(1, 1)) and one.read(1) is None
        stopped.kill()
    assert one.write(1, chunk(1, 1))
    one.close()


def test_a_limit_below_one_chunk_keeps_nothing(disk: Path) -> None:
    one = cache(disk, 1, limit=SIZE)
    assert not one.write(0, chunk(1, 0)) and used(disk) == 0
    one.close()


@pytest.mark.parametrize("name", ["sizes", "used", "present", "data"])
@pytest.mark.parametrize("content", [b"", b"\xff" * 5000, os.urandom(5000)])
def test_room_is_made_whatever_others_wrote(disk: Path, name: str, content: bytes) -> None:
    one, other = cache(disk, 1), cache(disk, 2)
    for number in range(25):
        one.write(number, chunk(1, number))
    with open(f"{one.path}/{name}", "wb") as file:
        file.write(content)
    for number in range(COUNT):
        assert other.write(number, chunk(2, number))
        assert other.read(number) == chunk(2, number)
        assert used(disk) <= LIMIT
    one.close()
    other.close()


def test_an_image_that_goes_away_meanwhile_is_no_error(disk: Path) -> None:
    one = cache(disk, 1)
    (disk / "v2" / "f").mkdir()
    for number in range(COUNT):
        assert one.write(number, chunk(1, number))
    one.close()


def test_room_is_not_made_in_what_a_link_leads_to(disk: Path) -> None:
    elsewhere = disk / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "data").write_bytes(b"x" * LIMIT)
    (disk / "cache" / "v2").mkdir(parents=True)
    (disk / "cache" / "v2" / "image").symlink_to(elsewhere)
    one = cache(disk / "cache", 1)
    for number in range(COUNT):
        one.write(number, chunk(1, number))
    one.close()
    assert (elsewhere / "data").read_bytes() == b"x" * LIMIT
    assert os.listdir(elsewhere) == ["data"]


def test_a_pipe_in_the_place_of_data_holds_nobody_up(disk: Path) -> None:
    (disk / "v2" / "image").mkdir(parents=True)
    os.mkfifo(disk / "v2" / "image" / "data")
    one = cache(disk, 1)
    for number in range(COUNT):
        one.write(number, chunk(1, number))
    assert one.has(COUNT - 1)
    one.close()
    assert used(disk) <= LIMIT
