"""Many containers of several images on one cache volume: each chunk is fetched once."""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest

from store.format.chunkindex import parse_chunk_index
from store.format.names import pack_name
from store.read.claims import CLAIM_S
from tests.support.engine import docker
from tests.support.faultlog import FaultCase
from tests.system.test_daemon_death import daemon_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.converted import Conversions, Converted
    from tests.support.engine import Engine
    from tests.support.faultlog import FaultLog
    from tests.support.servers import Request

pytestmark = pytest.mark.system

IMAGES, CONTAINERS = 5, 50
READ = "find /usr/bin /usr/lib/x86_64-linux-gnu /own -type f | sort | xargs sha256sum | sha256sum"


@pytest.fixture(scope="module")
def family(
    conversions: Conversions, base_image: str, tmp_path_factory: pytest.TempPathFactory
) -> list[Converted]:
    """Images that have the most part in common, and each a file of its own."""
    images = []
    for number in range(IMAGES):
        context = tmp_path_factory.mktemp("family")
        (context / "file").write_bytes(Random(number).randbytes(1_000_000))
        source = conversions.engine.build(f"FROM {base_image}\nCOPY file /own/file\n", context)
        images.append(conversions.convert(source))
    return images


@pytest.fixture
def volume(engine: Engine) -> Iterator[str]:
    """A cache volume."""
    yield engine.volume()


def cached(volume: str, *more: str) -> tuple[str, ...]:
    return ("-v", f"{volume}:/.bootfs/cache", *more)


def place_of(volume: str) -> Path:
    """Give the directory of a volume on this machine."""
    return Path(docker("volume", "inspect", "-f", "{{.Mountpoint}}", volume).stdout.strip())


def fetches(requests: list[Request], conversions: Conversions) -> dict[tuple[str, int], int]:
    """Give the number of requests that covered each chunk of the store, by pack and offset."""
    spans: dict[str, list[tuple[int, int]]] = {}
    for request in requests:
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", request.range)
        assert found, request
        spans.setdefault(request.path.lstrip("/"), []).append((int(found[1]), int(found[2]) + 1))
    places: dict[tuple[str, int], int] = {}
    for path in (conversions.directory / "indexes").iterdir():
        index = parse_chunk_index(path.read_bytes())
        for chunk in range(index.chunk_count):
            name = pack_name(index.pack_digests[index.packs[chunk]])
            offset = index.offsets[chunk]
            places[name, offset] = offset + index.stored_sizes[chunk]
    return {
        (name, offset): count
        for (name, offset), end in places.items()
        if (count := sum(a <= offset and end <= b for a, b in spans.get(name, ())))
    }


def run_all(engine: Engine, images: list[Converted], options: tuple[str, ...]) -> list[str]:
    """Start `CONTAINERS` of the images at once; give what each printed."""
    commands = [
        (*("run", "--rm", "--name", engine.name()), *image.options(*options), image.boot)
        for image in images * (CONTAINERS // len(images))
    ]

    def run(command: tuple[str, ...]) -> str:
        done = docker(*command, "sh", "-c", READ, timeout_s=300)
        return done.stdout + done.stderr

    with ThreadPoolExecutor(CONTAINERS) as pool:
        return list(pool.map(run, commands))


def test_fifty_containers_at_once_fetch_each_chunk_once(
    engine: Engine, conversions: Conversions, family: list[Converted], volume: str
) -> None:
    right = [image.run_source(engine, "sh", "-c", READ).stdout for image in family]
    conversions.server.forget()
    printed = run_all(engine, family, cached(volume))
    assert printed == right * (CONTAINERS // len(family))
    counts = fetches(conversions.server.requests(), conversions)
    assert len(counts) > 500
    assert sum(counts.values()) <= 1.02 * len(counts)


def test_what_one_image_brought_another_does_not_fetch(
    engine: Engine, conversions: Conversions, family: list[Converted], volume: str
) -> None:
    first, second, *_ = family
    assert first.run(engine, "sh", "-c", READ, options=cached(volume)).returncode == 0
    conversions.server.forget()
    done = second.run(engine, "sh", "-c", READ, options=cached(volume))
    assert (done.stdout, done.stderr) == (second.run_source(engine, "sh", "-c", READ).stdout, "")
    # Its own file, and what lies beside it in a chunk or in a guess.
    assert sum(r.size for r in conversions.server.requests()) < 2_500_000


def test_in_mode_lease_it_is_shared_just_so(
    engine: Engine, conversions: Conversions, family: list[Converted], volume: str
) -> None:
    """Where the process that fills has neither the image's root nor a /proc."""
    options = cached(volume, "-e", "BOOTFS_MODE=lease", "-e", "BOOTFS_CACHE_LIMIT=1G")
    for image in family[:2]:
        conversions.server.forget()
        done = image.run(engine, "sh", "-c", READ, options=options)
        assert (done.stdout, done.stderr) == (image.run_source(engine, "sh", "-c", READ).stdout, "")
    assert sum(r.size for r in conversions.server.requests()) < 2_500_000


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_who_stops_while_it_fetches_delays_others_by_a_claim_s_time(
    engine: Engine,
    conversions: Conversions,
    family: list[Converted],
    volume: str,
    fault_log: FaultLog,
    number: int,
) -> None:
    """The daemon, as when its container is paused; or all of the container, killed.

    (The engine itself may not pause a container that waits: docs/differences.md.)
    """
    image = family[0]
    read = "sha256sum /own/file"
    options = cached(volume)
    # The shell itself reads: the engine waits, or hangs, when a program cannot be executed.
    script = "mkfifo /f; echo up; read x </f; read x </own/file; sleep 600"
    first = image.start(engine, "sh", "-c", script, options=options)
    first.wait_for_line("up")
    daemon = daemon_of(first)
    assert daemon
    with conversions.server.paused():
        Path(f"/proc/{first.pid()}/root/f").write_text("\n")
        # It has asked, and holds claims on what it asked for.
        wait_for_claims(place_of(volume))
        os.kill(daemon if number == signal.SIGSTOP else first.pid(), number)
    begun = time.monotonic()
    done = image.run(engine, "sh", "-c", read, options=options)
    assert done.stdout == image.run_source(engine, "sh", "-c", read).stdout
    # The time of a start on a busy machine, and far below any limit of a read.
    assert time.monotonic() - begun < CLAIM_S + 20
    what = "stopped" if number == signal.SIGSTOP else "killed"
    fault = f"another container {what} while it fetches"
    fault_log.record(FaultCase("cache", fault, "erofs", "right bytes, 2 s later", 1, 1))
    docker("rm", "-f", first.name)


def wait_for_claims(cache: Path) -> None:
    """Return when somebody holds a claim in a cache."""
    deadline = time.monotonic() + 30
    while not any((cache / "v2" / "claims").read_bytes()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_caches_left_by_killed_containers_and_copies_of_a_moment_are_usable(
    engine: Engine,
    conversions: Conversions,
    family: list[Converted],
    volume: str,
    fault_log: FaultLog,
    tmp_path: Path,
) -> None:
    """Killed in the middle; and as a power cut leaves files: each as it was at some moment."""
    image = family[1]
    right = image.run_source(engine, "sh", "-c", READ).stdout
    cache = place_of(volume)
    copies = []
    random = Random(7)
    for number in range(4):
        running = image.start(engine, "sh", "-c", READ, options=cached(volume))
        deadline = time.monotonic() + random.random()
        while time.monotonic() < deadline:
            copy = tmp_path / f"copy{number}"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(cache, copy)
        copies.append(copy)
        # With SIGKILL, to all of its processes; it may have ended.
        docker("rm", "-f", running.name)
    options = [cached(volume), *(cached(str(copy)) for copy in copies)]
    for option in options:
        done = image.run(engine, "sh", "-c", READ, options=option)
        assert done.stdout == right
        # A chunk that was being written may be damaged, and is named; nothing else is said.
        assert all("is damaged; fetching it again" in line for line in done.stderr.splitlines())
    for fault, count in (
        ("left by containers that were killed", 1),
        ("files copied at random moments, as a power cut leaves them", len(copies)),
    ):
        fault_log.record(FaultCase("cache", fault, "erofs", "right bytes", 4, count))


def test_a_limit_holds_while_containers_read_and_none_reads_wrong(
    engine: Engine, family: list[Converted], volume: str, fault_log: FaultLog
) -> None:
    """A third of what they read: each reads through, and room is made all the time."""
    limit = 24 << 20
    options = cached(volume, "-e", "BOOTFS_CACHE_LIMIT=24M")
    images = family[:3]
    right = [image.run_source(engine, "sh", "-c", READ).stdout for image in images]
    cache = place_of(volume) / "v2"
    largest = 0
    with ThreadPoolExecutor(len(images)) as pool:
        runs = [
            pool.submit(image.run, engine, "sh", "-c", READ, options=options) for image in images
        ]
        while not all(run.done() for run in runs):
            used = sum(file.stat().st_blocks * 512 for file in cache.glob("*/data"))
            largest = max(largest, used)
            time.sleep(0.005)
    assert [(run.result().stdout, run.result().stderr) for run in runs] == [(r, "") for r in right]
    assert limit // 2 < largest <= limit
    fault = "a limit of a third of what containers read"
    fault_log.record(FaultCase("cache", fault, "erofs", "right bytes", 1, len(images)))


def test_another_layout_in_the_volume_is_left_alone(
    engine: Engine, family: list[Converted], volume: str
) -> None:
    cache = place_of(volume)
    for name in ("v1", "v3"):
        (cache / name).mkdir()
        (cache / name / "data").write_text("of another version")
    assert family[0].run(engine, "true", options=cached(volume)).returncode == 0
    assert {f.name for f in cache.iterdir()} == {"v1", "v2", "v3"}
    for name in ("v1", "v3"):
        assert [f.name for f in (cache / name).iterdir()] == ["data"]
        assert (cache / name / "data").read_text() == "of another version"
