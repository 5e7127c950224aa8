"""Traces, read from files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from converter.spool import os_errors_at
from store.format.trace import LIMIT, Trace, parse_trace
from store.write.profilebuild import check_trace


def read_traces(paths: Sequence[str], image: bytes) -> list[Trace]:
    """Return the traces in files, all of the image whose chunk index has this raw digest.

    Raises:
        NotFound, AccessDenied: there is no such file, or it may not be read.
        FormatError: one is no trace.
        IntegrityError: one is of another image.

    """
    traces = []
    for path in paths:
        with os_errors_at(Path(path), "cannot be read"), open(path, "rb") as file:
            data = file.read(LIMIT + 1)
        traces.append(parse_trace_of(data, image, path))
    return traces


def parse_trace_of(data: bytes, image: bytes, where: str) -> Trace:
    """Return a trace of the image whose chunk index has the raw digest ``image``.

    Raises:
        FormatError: it is no trace.
        IntegrityError: it is of another image.

    """
    trace = parse_trace(data, where)
    check_trace(trace, image, where)
    return trace
