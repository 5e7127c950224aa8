"""Which layer of the source image each file's bytes came from.

Implements docs/format.md, "Origins, version 1".  Files have no names here: they are told
apart by their order in the data region, where those of one directory lie together, and
those are mostly of one layer.  Never read at boot.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import chain, groupby

from converter.images.documents import parse_json
from converter.tree import Node
from store.errors import FormatError, UnsupportedVersion

VERSION = 1
_WHAT = "origins"
_ADVICE = "convert the image again"


def encode_origins(files: Iterable[Node]) -> bytes:
    """Return the origins of files that are given in the order of the data region."""
    runs = [(layer, sum(1 for _ in run)) for layer, run in groupby(node.layer for node in files)]
    document = {"version": VERSION, "runs": list(chain.from_iterable(runs))}
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def parse_origins(data: bytes, files: int) -> list[int]:
    """Return the number of the layer of each of so many ``files``, the lowest layer's 0.

    Raises:
        UnsupportedVersion: a version this release does not read.
        FormatError: not the origins of so many files.

    """
    document = parse_json(data, _WHAT)
    if not isinstance(document, dict):
        raise FormatError(_WHAT, 0, f"not a JSON object; {_ADVICE}")
    if document.get("version") != VERSION:
        raise UnsupportedVersion(_WHAT, 0, f"version {document.get('version')!r:.40}; {_ADVICE}")
    numbers = document.get("runs")
    if not isinstance(numbers, list) or not all(type(n) is int and n >= 0 for n in numbers):
        raise FormatError(_WHAT, 0, f"the runs are no list of numbers; {_ADVICE}")
    layers, counts = numbers[::2], numbers[1::2]
    if len(layers) != len(counts) or sum(counts) != files:
        raise FormatError(_WHAT, 0, f"not of {files} files; {_ADVICE}")
    return [layer for layer, count in zip(layers, counts, strict=True) for _ in range(count)]
