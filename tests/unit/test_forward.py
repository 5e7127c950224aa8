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
def test_what_has_no_handler_is_dropped_where_the_workload_is_spared(is_spared: bool) -> None:
    processes = open_processes()
    with subprocess.Popen(
        [sys.executable, "-c", HANDLES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        forward(program.pid, signal.SIGUSR1, processes, is_spared)
        assert program.stdout.readline() == "handled\n"
        forward(program.pid, signal.SIGUSR2, processes, is_spared)
        forward(program.pid, signal.SIGTERM, processes, is_spared)
        forward(program.pid, signal.SIGINT, processes, is_spared)
        forward(program.pid, signal.SIGRTMAX, processes, is_spared)
        if is_spared:
            assert program.communicate()[0] == "blocked True\n"
    os.close(processes)
    assert (program.returncode == 0) is is_spared
