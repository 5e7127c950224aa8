"""The traces that containers have sent to a store: found, read, removed.

docs/format.md, "Trace, version 1".  Who can write to the store can put anything there: what
is no trace of the image is told of and left.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from store.errors import BootfsError, FormatError, IntegrityError, PackNotFound
from store.format.trace import LIMIT, Trace, parse_trace
from store.format.tracenames import TRACES
from store.interfaces import Backend
from store.write.profilebuild import check_trace

FILE_NAME = r"trace-(?:[0-9a-f]{12}-[0-9]{8}T[0-9]{6}Z-)?[0-9a-f]{16}"
"""Of a trace; before there were two parts more it was but the digits at random."""
_NAME = re.compile(TRACES + "([0-9a-f]{64})/" + FILE_NAME, re.ASCII)


def image_of_trace(name: str) -> bytes | None:
    """Return the raw digest of the image in an object's name; None where it is no trace's."""
    found = _NAME.fullmatch(name)
    return bytes.fromhex(found[1]) if found else None


def read_stored_traces(
    backend: Backend, image: bytes, report: Callable[[str], None]
) -> list[tuple[str, Trace]]:
    """Return name and trace of all that a store has of an image, sorted by name.

    ``report`` is told of each that is damaged or of another image; it is left out.

    Raises:
        AccessDenied, RemoteError: the store cannot be read.

    """
    found: list[tuple[str, Trace]] = []
    for name in backend.iter_names(f"{TRACES}{image.hex()}/"):
        if image_of_trace(name) != image:
            continue
        where = f"{backend.location}/{name}"
        try:
            size = backend.size(name)
            trace = parse_trace(backend.fetch(name, 0, min(size, LIMIT + 1)), where)
            check_trace(trace, image, where)
        except PackNotFound:
            continue  # somebody else has taken it
        except (FormatError, IntegrityError) as error:
            report(f"left: {error}")
        else:
            found.append((name, trace))
    return found


def remove_traces(backend: Backend, names: Iterable[str], report: Callable[[str], None]) -> None:
    """Remove traces that a profile was made of; where that cannot be, ``report`` is told.

    Added again they change little: a profile has each page once.
    """
    try:
        backend.remove(names)
    except BootfsError as error:
        report(f"the traces are taken and stay in the store: {error}")
