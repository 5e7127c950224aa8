"""The lock file: every input of the runtime layer, named by its digest.

Text, one input a line, sorted; fields are separated by one space:

    deb NAME VERSION FILE SIZE SHA256
    snapshot TIME
    wheel NAME VERSION FILE SIZE SHA256

FILE of a package is its path below the root of a Debian mirror, archive first
(``debian/pool/...`` or ``debian-security/pool/...``); of a wheel its file name.
TIME (``20260131T000000Z``) is when the packages were the current ones.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files

from store.errors import FormatError

NAME = "runtime.lock"
_ARCHITECTURE = "x86_64"
"""Whose lock files have no architecture in their names."""
_LINE = re.compile(
    r"(deb|wheel) ([\w.+-]+) ([\w.+:~-]+) ([\w.+:~/-]+) ([0-9]{1,12}) ([0-9a-f]{64})",
    re.ASCII,
)
_SNAPSHOT = re.compile(r"snapshot ([0-9]{8}T[0-9]{6}Z)")


@dataclass(frozen=True, slots=True, order=True)
class Input:
    """One file the layer is made from."""

    kind: str
    """``deb`` or ``wheel``."""
    name: str
    version: str
    file: str
    size: int
    sha256: str

    @property
    def basename(self) -> str:
        """The file's name without directories."""
        return self.file.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Lock:
    """All inputs, sorted, and the time for which their set was resolved."""

    inputs: tuple[Input, ...]
    snapshot: str


def parse_lock(text: str) -> Lock:
    """Return the inputs of a lock file.

    Raises:
        FormatError: a line is not what the format allows, is out of order or doubled.

    """
    inputs: list[Input] = []
    snapshot = ""
    at = 0
    last = ""
    for line in text.splitlines():
        if line <= last:
            raise FormatError(NAME, at, f"line {line!r} is out of order")
        last = line
        if match := _LINE.fullmatch(line):
            kind, name, version, file, size, sha256 = match.groups()
            inputs.append(Input(kind, name, version, file, int(size), sha256))
        elif (found := _SNAPSHOT.fullmatch(line)) and not snapshot:
            snapshot = found[1]
        else:
            raise FormatError(NAME, at, f"{line!r} is neither an input nor the only snapshot")
        at += len(line) + 1
    if not snapshot:
        raise FormatError(NAME, at, "no snapshot line")
    return Lock(tuple(inputs), snapshot)


def encode_lock(lock: Lock) -> str:
    """Return the text that `parse_lock` reads ``lock`` from."""
    lines = [f"{i.kind} {i.name} {i.version} {i.file} {i.size} {i.sha256}\n" for i in lock.inputs]
    return "".join(sorted([*lines, f"snapshot {lock.snapshot}\n"]))


def lock_file(architecture: str = _ARCHITECTURE, name: str = NAME) -> str:
    """Return the name of an architecture's lock file, of the runtime layer or of another."""
    stem, dot, suffix = name.partition(".")
    return name if architecture == _ARCHITECTURE else f"{stem}.{architecture}{dot}{suffix}"


def read_lock_text(name: str = NAME, architecture: str = _ARCHITECTURE) -> str:
    """Return the lock file that belongs to this release, of the runtime layer or of another."""
    return (files(__package__) / lock_file(architecture, name)).read_text()
