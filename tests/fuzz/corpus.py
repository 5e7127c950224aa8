"""The corpus: small inputs, each of which reaches something that the ones before it do not.

``tests/fuzz/corpus/TARGET/`` holds them by the digest of their bytes; what was once a finding
has a name instead, and stays whatever else reaches it.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from tests.fuzz.registry import Target

CORPUS = Path(__file__).parent / "corpus"
TOP = Path(__file__).parents[2]
OURS = tuple(f"{TOP}/{part}/" for part in ("store", "boot", "converter"))

ROOM = 200_000
"""Of one target's inputs, but for findings, in bytes."""

Steps = set[tuple[str, int, int]]


def iter_corpus(target: Target) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of each input of a target."""
    for path in sorted((CORPUS / target.name).iterdir()):
        yield path.name, path.read_bytes()


def is_finding(name: str) -> bool:
    """Whether an input of the corpus is kept for what it once found."""
    return len(name) != 16 or not set(name) <= set("0123456789abcdef")


def steps_of(target: Target, data: bytes) -> Steps:
    """Return the pairs of lines of our code that follow one another when ``data`` is parsed."""
    found: Steps = set()
    last: dict[int, int] = {}

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        path = frame.f_code.co_filename
        if not path.startswith(OURS):
            return None
        if event == "line":
            key = id(frame)
            found.add((path, last.get(key, 0), frame.f_lineno))
            last[key] = frame.f_lineno
        elif event == "return":
            last.pop(id(frame), None)
        return trace

    sys.settrace(trace)
    try:
        target.check(data)
    finally:
        sys.settrace(None)
    return found


def chosen(target: Target, inputs: Iterable[bytes], reached: Steps) -> list[bytes]:
    """Return those of ``inputs``, small ones first, that reach what those before them do not.

    To ``reached`` is added what they reach.
    """
    kept = []
    for data in sorted(set(inputs), key=lambda data: (len(data), data)):
        steps = steps_of(target, data)
        if not steps <= reached:
            reached |= steps
            kept.append(data)
    return kept


def add_to_corpus(target: Target, inputs: Iterable[bytes]) -> int:
    """Put what is new in ``inputs`` into the corpus; return how many those are.

    What it makes needless goes.
    """
    place = CORPUS / target.name
    place.mkdir(parents=True, exist_ok=True)
    named = [data for name, data in iter_corpus(target) if is_finding(name)]
    old = {name: data for name, data in iter_corpus(target) if not is_finding(name)}
    reached: Steps = set()
    for data in named:
        reached |= steps_of(target, data)
    kept: dict[str, bytes] = {}
    room = ROOM
    for data in chosen(target, [*inputs, *old.values()], reached):
        room -= len(data)
        if room >= 0:
            kept[hashlib.sha256(data).hexdigest()[:16]] = data
    for name in old.keys() - kept.keys():
        (place / name).unlink()
    for name, data in kept.items():
        (place / name).write_bytes(data)
    return len(kept.keys() - old.keys())
