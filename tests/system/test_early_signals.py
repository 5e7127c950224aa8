"""A signal that arrives while the container boots is dropped, as a plain one's PID 1 drops it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.converted import Conversions, Converted
    from tests.support.engine import Container, Engine

pytestmark = pytest.mark.system

SIGNALS = ["INT", "TERM", "HUP", "USR1", "QUIT", "ALRM", "CHLD", "IO", "PIPE", "TSTP", "RTMIN"]


def wait_for_child(container: Container) -> None:
    """Return when the boot has a child beside the daemon, and that has got as far as it can."""
    init = container.pid()
    children = Path(f"/proc/{init}/task/{init}/children")
    deadline = time.monotonic() + 60
    while len(children.read_text().split()) < 2:
        assert time.monotonic() < deadline, container.logs()
        time.sleep(0.02)
    time.sleep(0.5)


@pytest.mark.parametrize("options", [(), ("--user", "4242"), ("-t",)], ids=["root", "user", "tty"])
def test_sent_while_the_boot_is_held_up(
    engine: Engine, conversions: Conversions, workshop: Converted, options: tuple[str, ...]
) -> None:
    script = "trap 'echo asked; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    with conversions.server.paused():
        # The image has a volume to be filled, and that takes content.
        command = ("bash", "-c", script)
        container = engine.start(workshop.boot, *command, options=workshop.options(*options))
        wait_for_child(container)
        for name in SIGNALS:
            container.signal(name)
    container.wait_for_line("ready")
    container.signal("TERM")
    assert container.wait(20) == 3
    assert container.logs().split() == ["ready", "asked"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_sent_all_the_time(engine: Engine, workshop: Converted, number: signal.Signals) -> None:
    def run_and_signal(name: str) -> tuple[int, bytes, int]:
        options = engine.options(workshop.options())
        command = ["docker", "run", "--rm", "--name", name, *options, workshop.boot]
        # Without handlers of its own; sh -c has one for SIGINT.
        script = f"sleep 1; print qq(end\\n) # {name}"
        run = subprocess.Popen(
            [*command, "perl", "-e", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        init = wait_for_interpreter(name)
        sent = 0
        while run.poll() is None:
            try:
                os.kill(init, number)
                sent += 1
            except ProcessLookupError:
                break
            time.sleep(0.0005)
        output, _ = run.communicate(timeout=60)
        return run.returncode, output, sent

    with ThreadPoolExecutor(3) as pool:
        # The second that each of them sleeps is the same for all.
        for code, output, sent in pool.map(run_and_signal, [engine.name() for _ in range(3)]):
            assert (code, output) == (0, b"end\n")
            assert sent > 100


def test_sent_all_the_time_without_a_pid_namespace(engine: Engine, workshop: Converted) -> None:
    # It ends no program, so it does not end a boot that fills volumes either.
    test_sent_all_the_time(engine, replace(workshop, mode="lease"), signal.SIGUSR1)


def wait_for_interpreter(argument: str) -> int:
    """Give the process in which the launcher has just started the interpreter with `argument`."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for process in filter(str.isdigit, os.listdir("/proc")):
            try:
                command = Path("/proc", process, "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if command.startswith(b"/.bootfs/runtime/ld.so") and argument.encode() in command:
                return int(process)
    raise AssertionError(f"nothing was started with {argument}")


def test_a_sent_sigchld_reaches_the_workload(engine: Engine, workshop: Converted) -> None:
    script = "$SIG{CHLD} = sub { print qq(got it\\n) }; $| = 1; print qq(ready\\n); sleep 1 while 1"
    container = workshop.start(engine, "perl", "-e", script)
    container.wait_for_line("ready")
    container.signal("CHLD")
    container.wait_for_line("got it", 10)
