"""The ways from nothing to READY that bench/startup.py measures in turns.

A way brings images to the far end in its own form, and starts one of them on a cold node. The clock
runs during `start` alone, the same for all: from the first byte of the pull, or of the mount, to
the line READY. What stands on a node before anybody wants an image is there before: an engine,
a snapshotter, a shared layer where the way says so.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bench.bootimages import BootImages
from bench.far import Far, Near
from bench.images import Image
from bench.node import Node
from bench.ready import Run


class Unavailable(Exception):
    """A way cannot be measured here; the message says what is missing."""


@dataclass(frozen=True)
class Place:
    """What all ways share; it is its owner's to close."""

    far: Far
    node: Node
    """The engine that images are pulled by where the way has one."""
    boots: BootImages
    home: Path
    """A directory for what ways keep, each in one that is named after its key."""


class Way(ABC):
    """One way."""

    key: ClassVar[str]
    """What it is called on the command line."""
    label: ClassVar[str]
    """What it is called in tables."""
    client: ClassVar[str] = "docker"
    """The command that a start is begun with."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.home = place.home / self.key
        self.home.mkdir()

    @classmethod
    def check(cls) -> None:
        """Look whether this machine has what the way needs.

        Raises:
            Unavailable: it has not.
        """
        return

    @abstractmethod
    def add(self, image: Image) -> None:
        """Bring an image, which the machine's engine holds, to the far end."""

    @abstractmethod
    def kept(self, image: Image) -> Iterable[Path]:
        """Return the files of the far end that serve the image; its servers are never cold."""

    @contextmanager
    def cold(self, image: Image, near: Near) -> Iterator[None]:
        """Have a node that has nothing of the image; undone at the end of the block."""
        yield

    @abstractmethod
    def start(self, image: Image, near: Near) -> Run:
        """Pull or mount the image and run its command; `near.mark()` is called at READY."""
