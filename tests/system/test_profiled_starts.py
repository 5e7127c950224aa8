"""From a recorded start to one that finds all of it in one object, by the commands of a user."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench.images import IMAGES, build_image
from boot.kernelreads import ADVICE, SHORT_READ_AHEAD
from converter.cli import main
from converter.images.recorded import read_container_traces
from converter.platforms import OWN_OR_ONLY
from converter.profileplace import open_profiled
from converter.reference import parse_reference
from tests.system.test_daemon_death import daemon_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.converted import Conversions, Converted
    from tests.support.engine import Container, Engine

pytestmark = pytest.mark.system

COMMAND = ("perl", "-e", "use POSIX; print qq(READY\n)")


def test_a_start_with_a_profile_asks_for_its_hot_pack_and_little_else(
    engine: Engine, conversions: Conversions, capsys: pytest.CaptureFixture[str]
) -> None:
    image = conversions.convert(build_image(IMAGES["deb"]))
    profile = ("profile", "add", image.boot, "--store", str(conversions.directory))
    cache = ("-v", f"{engine.volume()}:/.bootfs/cache")
    container = image.start(engine, *COMMAND, options=(*cache, "-e", "BOOTFS_RECORD=1"))
    assert container.wait() == 0
    conversions.server.forget()
    assert image.run(engine, *COMMAND).stdout == "READY\n"
    before = [request for request in conversions.server.requests() if request.status == 206]
    capsys.readouterr()
    assert main([*profile, "--from", container.name, "--json"]) == 0
    (fact,) = json.loads(capsys.readouterr().out)
    assert fact["name"] == "perl" and fact["command"][-3:] == list(COMMAND)
    assert fact["reads"] > 10 and fact["hot_pack"] > 0
    conversions.server.forget()
    done = image.run(engine, *COMMAND)
    assert (done.returncode, done.stdout, done.stderr) == (0, "READY\n", "")
    after = conversions.server.requests()
    hot = [request for request in after if request.path.startswith("/hot/")]
    assert [request.size for request in hot] == [fact["hot_pack"]]
    packs = [request for request in after if request.path.startswith("/packs/")]
    assert len(packs) * 2 < len(before)
    conversions.server.forget()
    off = image.run(engine, *COMMAND, options=("-e", "BOOTFS_PROFILE=off"))
    assert off.stdout == "READY\n"
    assert not [r for r in conversions.server.requests() if r.path.startswith("/hot/")]
    assert main(["profile", "remove", *profile[2:], "--all"]) == 0


@pytest.fixture
def profiled(engine: Engine, conversions: Conversions) -> Iterator[Converted]:
    """Give an image that has a profile of a sleep."""
    image = conversions.convert(build_image(IMAGES["deb"]))
    profile = (image.boot, "--store", str(conversions.directory))
    options = ("-e", "BOOTFS_RECORD=1", "-e", "BOOTFS_RECORD_TO=cache")
    container = image.start(engine, "sleep", "0", options=options)
    assert container.wait() == 0
    assert main(["profile", "add", *profile, "--from", container.name]) == 0
    yield image
    assert main(["profile", "remove", *profile, "--all"]) == 0


def read_aheads() -> dict[str, int]:
    """Return the read-ahead of each EROFS of this machine, in KiB."""
    found = {}
    for place in Path("/sys/class/bdi").glob("erofs-*"):
        try:
            found[place.name] = int((place / "read_ahead_kb").read_text())
        except (FileNotFoundError, OSError):
            continue  # it has just been unmounted
    return found


def start_alone(start: Callable[[], Container]) -> tuple[Container, str]:
    """Start a container while no other mounts EROFS; return it, and what its EROFS is called.

    Nothing says which EROFS is whose, and other tests run beside this one.
    """
    for _ in range(20):
        before = set(read_aheads())
        container = start()
        found = set(read_aheads()) - before
        if len(found) == 1:
            return container, found.pop()
        container.remove()
    pytest.fail("others mount EROFS all the time")


def wait_for(name: str, size: int) -> None:
    deadline = time.monotonic() + 30
    while read_aheads()[name] != size >> 10:
        assert time.monotonic() < deadline, read_aheads()
        time.sleep(0.05)


@pytest.mark.parametrize("dies", [False, True], ids=["lives", "killed"])
def test_the_kernel_reads_on_as_ever_after_a_start_with_a_profile(
    engine: Engine, profiled: Converted, dies: bool
) -> None:
    container, name = start_alone(lambda: profiled.start(engine, "sleep", "1000"))
    wait_for(name, SHORT_READ_AHEAD)
    if dies:
        os.kill(daemon_of(container), signal.SIGKILL)
    # When the start is over; or by the daemon that takes the place of the one that was killed.
    wait_for(name, ADVICE)
    assert container.run("perl", "-e", "print 7").stdout == "7"


def test_the_kernel_reads_on_as_ever_after_a_start_that_an_earlier_one_told_of(
    engine: Engine, conversions: Conversions
) -> None:
    image = conversions.convert(build_image(IMAGES["deb"]))
    cache = ("-v", f"{engine.volume()}:/.bootfs/cache")
    assert image.run(engine, *COMMAND, options=cache).stdout == "READY\n"
    _, name = start_alone(lambda: image.start(engine, "sleep", "1000", options=cache))
    wait_for(name, SHORT_READ_AHEAD)
    wait_for(name, ADVICE)


def test_a_recording_from_the_cache_is_as_precise_as_the_first(
    engine: Engine, conversions: Conversions
) -> None:
    image = conversions.convert(build_image(IMAGES["deb"]))
    cache = ("-v", f"{engine.volume()}:/.bootfs/cache")
    record = (*cache, "-e", "BOOTFS_RECORD=1", "-e", "BOOTFS_RECORD_TO=cache")
    for options in (record, cache, record):
        container = image.start(engine, *COMMAND, options=options)
        assert container.wait() == 0
    said: list[str] = []
    opened = open_profiled(parse_reference(image.boot), str(conversions.directory), OWN_OR_ONLY)
    pages = [
        sum(pages for _, _, pages in found.trace.reads)
        for found in read_container_traces(container.name, opened.image, said.append)
    ]
    assert len(pages) == 2 and not said
    assert max(pages) < min(pages) * 1.1


@pytest.mark.parametrize("mode", ["fuse", "eager"])
def test_a_mode_that_does_not_record_says_so_and_which_does(
    engine: Engine, conversions: Conversions, mode: str
) -> None:
    image = dataclasses.replace(conversions.convert(build_image(IMAGES["deb"])), mode=mode)
    done = image.run(engine, *COMMAND, options=("-e", "BOOTFS_RECORD=1"))
    assert (done.returncode, done.stdout) == (0, "READY\n")
    line = f"bootfs: nothing is recorded: mode {mode} does not; BOOTFS_MODE=erofs does\n"
    assert done.stderr == line


@pytest.mark.parametrize("limit", ["2", "3", "4"])
def test_a_container_of_too_few_processes_is_told_what_to_do(
    engine: Engine, profiled: Converted, limit: str
) -> None:
    done = profiled.run(engine, "true", options=("--pids-limit", limit))
    assert done.returncode == 125
    assert "no process or thread to be had: the container may have too few" in done.stderr
    assert "give it a larger --pids-limit, 16 or more" in done.stderr
    assert "can't start new thread" not in done.stderr
