"""Names of traces, in caches and in stores: docs/format.md, "Trace, version 1".

Beside store/format/trace.py, which starts import that have a profile.
"""

from __future__ import annotations

from time import gmtime, strftime

TRACES = "traces/"
"""Below it a store has the traces that containers have sent, by image."""
FILE_PREFIX = "trace-"


def trace_file_name(image: bytes, begun_s: int, drawn: bytes) -> str:
    """Return the name of a new trace: its image, when it was begun, and 8 bytes at random.

    Names of one image sort by time.  ``image`` is the raw digest of its chunk index.
    """
    moment = strftime("%Y%m%dT%H%M%SZ", gmtime(begun_s))
    return f"{FILE_PREFIX}{image.hex()[:12]}-{moment}-{drawn.hex()}"


def trace_name(image: bytes, file_name: str) -> str:
    """Return the name in a store of the trace that has ``file_name`` in a cache."""
    return f"{TRACES}{image.hex()}/{file_name}"
