"""The init of a boot image, PID 1 of its container: entry point and last resort.

The daemon has most to import, so it is forked first, by a process that has
imported next to nothing; the numbered steps (boot/sequence.py) are imported and
run beside it.
"""

from __future__ import annotations

import os
import sys

from boot.environment import read_environment
from boot.modes import erofs
from boot.status import Status
from store.errors import BootError


def main(arguments: list[bytes]) -> int:
    """Boot the workload with ``arguments`` after its entrypoint; return the exit code."""
    status = Status()
    environment = read_environment()
    attempt = problem = None
    mode = environment.get(b"BOOTFS_MODE") or b"auto"
    if mode in (b"auto", b"erofs"):
        try:
            attempt = erofs.Attempt(environment, status)
        except BootError as error:
            if mode == b"erofs":
                raise
            problem = error

    from boot.sequence import boot

    return boot(arguments, environment, status, attempt, problem)


def run() -> None:
    """Boot, and end this process as the workload ended."""
    try:
        code = main([os.fsencode(argument) for argument in sys.argv[1:]])
    except Exception as error:
        from boot.failure import report

        code = report(error)
    os._exit(code)


if __name__ == "__main__":
    run()
