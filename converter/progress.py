"""Telling the user how far a conversion is: a bar, JSON lines, or nothing."""

from __future__ import annotations

import json
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TextIO

INTERVAL_S = 0.2
BAR_WIDTH = 30


class Progress(Protocol):
    """Takes steps and amounts; how they are shown is the implementation's."""

    def step(self, name: str, total: int = 0) -> None:
        """Begin the next step, of ``total`` bytes or of unknown size (0)."""

    def advance(self, size: int) -> None:
        """Count ``size`` more bytes of the current step."""

    def end(self) -> None:
        """End the last step."""

    def make_room(self) -> None:
        """Let something else be printed, on a line of its own."""


class Silent:
    """Shows nothing."""

    def step(self, name: str, total: int = 0) -> None:
        """Begin a step."""

    def advance(self, size: int) -> None:
        """Count bytes."""

    def end(self) -> None:
        """End the last step."""

    def make_room(self) -> None:
        """Let something else be printed."""


class _Counting(ABC):
    """Counts, and shows at most every `INTERVAL_S`."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self.name = ""
        self.done = 0
        self.total = 0
        self._shown_at = 0.0

    def step(self, name: str, total: int = 0) -> None:
        """Begin a step."""
        if self.name:
            self.show(last=True)
        self.name, self.done, self.total = name, 0, total
        self._shown_at = 0.0
        self._show_sometimes()

    def advance(self, size: int) -> None:
        """Count bytes."""
        self.done += size
        self._show_sometimes()

    def end(self) -> None:
        """End the last step."""
        if self.name:
            self.show(last=True)
            self.name = ""

    def _show_sometimes(self) -> None:
        now = time.monotonic()
        if now - self._shown_at >= INTERVAL_S:
            self._shown_at = now
            self.show(last=False)

    @abstractmethod
    def make_room(self) -> None:
        """Let something else be printed, on a line of its own."""

    @abstractmethod
    def show(self, last: bool) -> None:
        """Show the current step."""


class JsonLines(_Counting):
    """One JSON object a line: ``step``, ``done``, ``total`` (bytes, 0 unknown)."""

    def show(self, last: bool) -> None:
        """Write the line; the last one of a step has ``"finished": true``."""
        line = {"step": self.name, "done": self.done, "total": self.total, "finished": last}
        print(json.dumps(line), file=self._out, flush=True)

    def make_room(self) -> None:
        """Do nothing: no line is left open."""


class Bar(_Counting):
    """A line that is written over and over on a terminal."""

    _is_drawn = False

    def show(self, last: bool) -> None:
        """Draw the line."""
        if self.total:
            share = min(self.done / self.total, 1.0)
            filled = round(share * BAR_WIDTH)
            bar = "█" * filled + "░" * (BAR_WIDTH - filled)
            text = f"{self.name:<9} {bar} {share:4.0%} {self.done / 1e6:8.0f} MB"
        else:
            text = f"{self.name:<9} {self.done / 1e6:8.0f} MB" if self.done else self.name
        self._is_drawn = not last
        print(f"\r\x1b[K{text}", end="\n" if last else "", file=self._out, flush=True)

    def make_room(self) -> None:
        """Take the line away; the next amount draws it again."""
        if self._is_drawn:
            self._is_drawn = False
            self._shown_at = 0.0
            print("\r\x1b[K", end="", file=self._out, flush=True)


def choose_progress(wish: str | None) -> Progress:
    """Return what ``--progress`` asks for; without a wish a bar, on a terminal only."""
    if wish == "json":
        return JsonLines(sys.stderr)
    if wish == "bar" or (wish is None and sys.stderr.isatty()):
        return Bar(sys.stderr)
    return Silent()


def iter_counted(pieces: Iterable[bytes], progress: Progress) -> Iterator[bytes]:
    """Yield ``pieces``, each counted as it goes by."""
    for piece in pieces:
        progress.advance(len(piece))
        yield piece


@contextmanager
def shown_progress(wish: str | None) -> Iterator[Progress]:
    """Give what shows progress; where the block fails, its line is taken away."""
    progress = choose_progress(wish)
    try:
        yield progress
    except BaseException:
        progress.make_room()
        raise
