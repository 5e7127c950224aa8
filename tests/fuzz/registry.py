"""What is fuzzed: one target a parser, for the fuzzer and for the replay of the corpus alike.

A target takes bytes, gives them to the parser, and asserts every promise that the parser's
docstring makes.  It returns True where the bytes were accepted and False where they were
refused with one of the errors that are allowed; any other exception is a finding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

Check = Callable[[bytes], bool]
Change = Callable[[bytes, Random], bytes]


def as_it_is(data: bytes, random: Random) -> bytes:
    """Change nothing."""
    return data


@dataclass(frozen=True, slots=True)
class Target:
    """One parser and what the fuzzer should know of its input."""

    name: str
    check: Check
    dress: Change
    """Recompute digests, checksums and sizes: without, no change would get past them."""
    edit: Change
    """Change one field, as somebody who knows the format would."""
    words: tuple[bytes, ...]
    """What means something in the input."""
    longest: int
    """Largest input that the fuzzer makes, in bytes."""
    memory: int
    """What an input may take at most, in bytes, whatever it says."""
    steps: int
    """Calls of functions that an input may take at most, apart from some for each byte."""


TARGETS: dict[str, Target] = {}

MEMORY = 16 << 20
STEPS = 20_000
STEPS_PER_BYTE = 100


def target(
    name: str,
    *,
    dress: Change = as_it_is,
    edit: Change = as_it_is,
    words: tuple[bytes, ...] = (),
    longest: int = 4096,
    memory: int = MEMORY,
    steps: int = STEPS,
) -> Callable[[Check], Check]:
    """Register a function as the target ``name``."""

    def register(check: Check) -> Check:
        TARGETS[name] = Target(name, check, dress, edit, words, longest, memory, steps)
        return check

    return register
