"""An interpreter that this machine can run, for a bundle that is for another.

Byte code is the same on every architecture, so one release of the interpreter writes it for
all: a test compares (docs/decisions/0020-platforms.md).
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from converter.runtime import contents
from converter.runtime.assemble import Files, parse_packages, take_binaries
from converter.runtime.fetch import read_inputs
from converter.runtime.lock import parse_lock, read_lock_text


def read_interpreter(
    architecture: str, directory: Path, report: Callable[[str], None]
) -> Files | None:
    """Return loader, interpreter and libraries of this machine's bundle, by their path in it.

    None where the bundle for ``architecture`` is this machine's, or there is none that is.
    What is not in ``directory`` is fetched into it.

    Raises:
        NotFound, Unreachable, IntegrityError: as `read_inputs`.

    """
    machine = platform.machine()
    if machine == architecture or machine not in contents.ARCHITECTURES:
        return None
    packages = {package for package, _ in contents.BINARIES.values()}
    lock = parse_lock(read_lock_text(architecture=machine))
    lock = replace(lock, inputs=tuple(i for i in lock.inputs if i.name in packages))
    taken = parse_packages(lock, read_inputs(lock, directory, report))
    return take_binaries(taken, contents.BINARIES, machine)
