"""Where the workload is not PID 1, it gets the signals that a PID 1 would get."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from boot.supervise import forward, open_processes

HANDLES = """
import signal, sys
signal.signal(signal.SIGUSR1, lambda *_: print("handled", flush=True))
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
signal.signal(signal.SIGINT, signal.SIG_DFL)
print("ready", flush=True)
for line in sys.stdin:
    print(line, end="", flush=True)
print("blocked", signal.SIGUSR2 in signal.sigpending())
"""


@pytest.mark.parametrize("is_spared", [False, True])
def test_what_has_no_handler_is_dropped_where_the_kernel_would_not(is_spared: bool) -> None:
    has_begun = (lambda: True) if is_spared else None
    processes = open_processes()
    with subprocess.Popen(
        [sys.executable, "-c", HANDLES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        forward(program.pid, signal.SIGUSR1, processes, has_begun)
        assert program.stdout.readline() == "handled\n"
        forward(program.pid, signal.SIGUSR2, processes, has_begun)
        forward(program.pid, signal.SIGTERM, processes, has_begun)
        forward(program.pid, signal.SIGINT, processes, has_begun)
        forward(program.pid, signal.SIGRTMAX, processes, has_begun)
        if is_spared:
            assert program.communicate()[0] == "blocked True\n"
    os.close(processes)
    assert (program.returncode == 0) is is_spared


def test_what_comes_before_the_program_is_dropped() -> None:
    processes = open_processes()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as program:
        forward(program.pid, signal.SIGTERM, processes, lambda: False)
        program.communicate()
    os.close(processes)
    assert program.returncode == 0
