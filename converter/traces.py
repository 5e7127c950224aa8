"""Traces, read from files, and chosen among."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from converter.spool import os_errors_at
from store.errors import FormatError, IntegrityError, NotFound
from store.format.trace import LIMIT, Trace, parse_trace
from store.format.tracenames import FILE_PREFIX
from store.write.profilebuild import check_trace

_LATEST_S = 253_402_300_799
"""The end of the year 9999."""


@dataclass(frozen=True, slots=True)
class Found:
    """A trace, and where it was found."""

    where: str
    trace: Trace
    stored: str = ""
    """Its name in the store; empty where it is not from there."""
    is_listed: bool = True
    """It was found by looking, and not named by the user, who knows then that it is taken."""


def read_traces(paths: Sequence[str], image: bytes, report: Callable[[str], None]) -> list[Found]:
    """Return the traces in files, all of the image whose chunk index has this raw digest.

    Of a directory its files whose names begin as those of traces do; what is none of the
    image is left out, and ``report`` told.

    Raises:
        NotFound, AccessDenied: there is no such file, or it may not be read.
        FormatError: one that is named is no trace.
        IntegrityError: one that is named is of another image.

    """
    found = []
    for path in paths:
        if not Path(path).is_dir():
            trace = parse_trace_of(_read(Path(path)), image, path)
            found.append(Found(path, trace, is_listed=False))
            continue
        with os_errors_at(Path(path), "cannot be listed"):
            inside = sorted(Path(path).iterdir())
        for file in inside:
            if not file.name.startswith(FILE_PREFIX) or not file.is_file():
                continue
            try:
                found.append(Found(str(file), parse_trace_of(_read(file), image, str(file))))
            except (FormatError, IntegrityError) as error:
                report(f"left: {error}")
    return found


def _read(path: Path) -> bytes:
    with os_errors_at(path, "cannot be read"), open(path, "rb") as file:
        return file.read(LIMIT + 1)


def parse_trace_of(data: bytes, image: bytes, where: str) -> Trace:
    """Return a trace of the image whose chunk index has the raw digest ``image``.

    Raises:
        FormatError: it is no trace.
        IntegrityError: it is of another image.

    """
    trace = parse_trace(data, where)
    check_trace(trace, image, where)
    return trace


def choose_traces(
    found: Sequence[Found], newest: int | None, report: Callable[[str], None]
) -> list[Found]:
    """Return what profiles are made of, in the order in which it was found.

    That is what has reads, and with ``newest`` of each command so many that were begun
    last.  ``report`` is told what was taken, and what was left and why.

    Raises:
        NotFound: that is nothing.

    """
    ranks: dict[int, int] = {}
    counts: dict[tuple[bytes, ...], int] = {}
    for at in sorted(range(len(found)), key=lambda at: -found[at].trace.begun_s):
        if found[at].trace.reads:
            command = tuple(found[at].trace.command)
            ranks[at] = counts[command] = counts.get(command, 0) + 1
    taken: list[Found] = []
    for at, one in enumerate(found):
        if at not in ranks:
            report(f"left: {one.where}: it has no read")
        elif newest is not None and ranks[at] > newest:
            report(f"left: {one.where}: older than the newest {newest} of its command")
        else:
            taken.append(one)
            if one.is_listed:
                # By the clock of whoever recorded it, who may say anything.
                began = datetime.fromtimestamp(min(one.trace.begun_s, _LATEST_S), UTC)
                report(f"taken: {one.where}: begun {began:%Y-%m-%d %H:%M:%S} UTC")
    if not taken:
        raise NotFound(
            "nothing was recorded: no read is in the traces; start the container with "
            "BOOTFS_RECORD=1, in mode erofs"
        )
    return taken
