"""Where an interpreter of an image finds modules: as CPython's getpath and site find it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from converter.analysis.files import Files

SMALL = 64 << 10
"""A larger file of settings is not read."""
_NAME = re.compile(rb"python(3)(?:\.([0-9]{1,2}))?[a-z]*$")
_LIBRARY = re.compile(rb"python3\.([0-9]{1,2})$")


@dataclass(slots=True)
class PythonPaths:
    """Paths of an interpreter of version 3.``minor``; ``minor`` is 0 where none was found."""

    minor: int = 0
    paths: list[bytes] = field(default_factory=list)
    sites: list[bytes] = field(default_factory=list)
    """Directories of packages, which can add to the paths; the last of them."""


def is_python(name: bytes) -> bool:
    """Whether a program of this name is CPython."""
    return _NAME.match(name) is not None


def find_paths(files: Files, environment: Mapping[bytes, bytes], program: bytes) -> PythonPaths:
    """Return where the interpreter called as ``program``, an absolute path, finds modules."""
    found = PythonPaths()
    file = files.find(program)
    if file is None:
        return found
    called = program.rpartition(b"/")[0]
    home = _read_pyvenv(files, called)
    base = _find_library(files, home or file.directory, file.name)
    if base is None:
        return found
    prefix, library, found.minor = base
    given = environment.get(b"PYTHONPATH", b"").split(b":")[:64]
    found.paths = [path for path in given if path.startswith(b"/")]
    found.paths += [library, library + b"/lib-dynload"]
    name = library.rpartition(b"/")[2]
    own = called.rpartition(b"/")[0] if home else prefix
    sites = [own + b"/lib/" + name + b"/site-packages"]
    if prefix == b"/usr" and not home:
        sites += [
            b"/usr/local/lib/" + name + b"/dist-packages",
            b"/usr/lib/python3/dist-packages",
            b"/usr/lib/" + name + b"/dist-packages",
        ]
    found.sites = [site for site in sites if files.find_directory(site)]
    return found


def _read_pyvenv(files: Files, directory: bytes) -> bytes:
    """Return where the interpreter of a virtual environment lies; empty: it is none."""
    for place in (directory, directory.rpartition(b"/")[0]):
        file = files.find(place + b"/pyvenv.cfg")
        if file is None or file.size > SMALL:
            continue
        files.touch(file)
        for line in files.read(file, 0, file.size).splitlines():
            key, _, value = line.partition(b"=")
            if key.strip() == b"home":
                return value.strip()
    return b""


def _find_library(files: Files, directory: bytes, name: bytes) -> tuple[bytes, bytes, int] | None:
    """Return prefix, standard library and version: the first above ``directory`` with one."""
    match = _NAME.match(name)
    wanted = b"python3." + match[2] if match and match[2] else b""
    at = directory
    while True:
        for lib in (b"/lib/", b"/lib64/"):
            names = {wanted} if wanted else files.names(at + lib)
            found = [(int(minor[1]), one) for one in names if (minor := _LIBRARY.match(one))]
            for number, one in sorted(found, reverse=True):
                if files.find(at + lib + one + b"/os.py"):
                    return at, at + lib + one, number
        if not at:
            return None
        at = at.rpartition(b"/")[0]
