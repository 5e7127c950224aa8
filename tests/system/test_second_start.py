"""What a start fetched is all that the next one wants, however soon the first one was over."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench.images import IMAGES, build_image
from tests.support.engine import Container, docker

if TYPE_CHECKING:
    from tests.support.converted import Conversions
    from tests.support.engine import Engine

pytestmark = pytest.mark.system

PATIENT = ("-e", "BOOTFS_READ_LIMIT=3600")
"""Who waits for a store that is silent waits for ever, as far as a test can tell."""


def cached(engine: Engine) -> tuple[str, ...]:
    """Give the options that mount a fresh cache."""
    return ("-v", f"{engine.volume()}:/.bootfs/cache")


def daemons_below(container: Container) -> list[int]:
    """Give the process ids of a container's daemons on this machine."""
    init = container.pid()
    children = Path(f"/proc/{init}/task/{init}/children").read_text().split()
    return [int(c) for c in children if Path(f"/proc/{c}/comm").read_text() == "bootfs-daemon\n"]


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("deb", ()),
        ("deb", ("/bin/true",)),
        ("deb", ("sh", "-c", "dpkg -l | perl -ne '' && exit 0")),
        ("gcc", ()),
        ("node", ()),
    ],
)
def test_after_a_start_that_was_over_at_once_the_next_fetches_nothing(
    engine: Engine, conversions: Conversions, name: str, command: tuple[str, ...]
) -> None:
    image = conversions.convert(build_image(IMAGES[name]))
    for _ in range(5):
        options = cached(engine)
        conversions.server.forget()
        first = image.run(engine, *command, options=options)
        assert (first.returncode, first.stderr) == (0, "")
        assert conversions.server.requests()
        for _ in range(2):
            conversions.server.forget()
            again = image.run(engine, *command, options=options)
            assert (again.returncode, again.stdout, again.stderr) == (0, first.stdout, "")
            assert conversions.server.requests() == []


def test_after_starts_side_by_side_the_next_fetches_nothing(
    engine: Engine, conversions: Conversions
) -> None:
    image = conversions.convert(build_image(IMAGES["gcc"]))
    options = cached(engine)
    # The engine's own names are given one at a time.
    commands = [("run", "--rm", "--name", engine.name()) for _ in range(3)]

    def run(command: tuple[str, ...]) -> str:
        done = docker(*command, *image.options(*options), image.boot)
        return done.stdout + done.stderr

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(run, commands)) == ["READY\n"] * 3
    conversions.server.forget()
    assert image.run(engine, options=options).stdout == "READY\n"
    assert conversions.server.requests() == []


def test_a_failed_workload_s_code_comes_through(engine: Engine, conversions: Conversions) -> None:
    image = conversions.convert(build_image(IMAGES["deb"]))
    options = cached(engine)
    for command, code in (("exit 7", 7), ("kill -9 $$", 137)):
        script = f"perl -e 1; sh -c '{command}'; exit $?"
        assert image.run(engine, "bash", "-c", script, options=options).returncode == code
    conversions.server.forget()
    assert image.run(engine, "bash", "-c", script, options=options).returncode == code
    assert conversions.server.requests() == []


def test_the_end_does_not_wait_for_a_store_that_is_silent(
    engine: Engine, conversions: Conversions
) -> None:
    image = conversions.convert(build_image(IMAGES["gcc"]))
    script = "mkfifo /f; gcc --version >/dev/null; echo up; read x </f; exit 5"
    options = (*cached(engine), *PATIENT)
    container = image.start(engine, "bash", "-c", script, options=options)
    container.wait_for_line("up")
    # All that bash still needs is in memory.
    with conversions.server.paused():
        Path(f"/proc/{container.pid()}/root/f").write_text("\n")
        assert container.wait() == 5


def test_a_container_that_is_stopped_does_not_wait_for_the_store(
    engine: Engine, conversions: Conversions
) -> None:
    image = conversions.convert(build_image(IMAGES["gcc"]))
    script = "trap 'exit 6' TERM; gcc --version >/dev/null; echo up; while :; do sleep 0.05; done"
    options = (*cached(engine), *PATIENT)
    container = image.start(engine, "bash", "-c", script, options=options)
    container.wait_for_line("up")
    with conversions.server.paused():
        assert container.stop(100) == 6


def test_the_end_does_not_wait_for_a_daemon_that_is_dead(
    engine: Engine, conversions: Conversions
) -> None:
    image = conversions.convert(build_image(IMAGES["gcc"]))
    script = "mkfifo /f; gcc --version >/dev/null; echo up; read x </f; exit 4"
    container = image.start(engine, "bash", "-c", script, options=cached(engine))
    container.wait_for_line("up")
    # Another one takes over, and knows of no reads.
    (daemon,) = daemons_below(container)
    os.kill(daemon, signal.SIGKILL)
    container.run("sh", "-c", "echo >/f")
    assert container.wait() == 4
    # This one is there and says nothing.
    container = image.start(engine, "bash", "-c", script, options=cached(engine))
    container.wait_for_line("up")
    (daemon,) = daemons_below(container)
    fifo = Path(f"/proc/{container.pid()}/root/f")
    os.kill(daemon, signal.SIGSTOP)
    fifo.write_text("\n")
    assert container.wait() == 4


def test_a_container_that_is_completed_needs_no_store(
    engine: Engine, conversions: Conversions
) -> None:
    image = conversions.convert(build_image(IMAGES["deb"]))
    conversions.server.forget()
    options = (*cached(engine), "-e", "BOOTFS_COMPLETE=on")
    container = image.start(engine, "sleep", "600", options=options)
    before, quiet_s = -1, time.monotonic()
    while time.monotonic() - quiet_s < 6 or not before:
        time.sleep(0.5)
        now = len(conversions.server.requests())
        if now != before:
            before, quiet_s = now, time.monotonic()
    conversions.server.forget()
    every = container.run("sh", "-c", "find / -xdev -type f -exec cat {} + | wc -c")
    assert int(every.stdout) > 80_000_000
    assert conversions.server.requests() == []
