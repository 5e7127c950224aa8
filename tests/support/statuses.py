"""Statuses as containers write them: counted by the boot's own code, in this process."""

from __future__ import annotations

from mmap import mmap
from typing import TYPE_CHECKING

from boot.status import Status
from converter.asking import Cached, Seen
from converter.containers import Container
from converter.statusfile import parse_status
from store.format.status import MODES
from store.read.counts import Counts

if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK_INDEX = bytes(range(32))


def encoded(
    act: Callable[[Counts], None] = lambda _: None,
    *,
    mode: str = "erofs",
    chunk_index: bytes = CHUNK_INDEX,
    has_ended: bool = False,
) -> bytes:
    """Give the status of a container whose daemon has counted what ``act`` had it count."""
    status = Status()
    act(Counts(status.memory))
    status._mode = MODES.index(mode)
    status._chunk_index = chunk_index
    return b"".join(status._pieces(has_ended))


def memory() -> mmap:
    """Give memory to count in."""
    return Status().memory


def seen(data: bytes, *, name: str = "web", image: str = "example/app:1") -> Seen:
    """Give what `ask` would, of a container that has written ``data``."""
    container = Container(
        id="c" * 64,
        name=name,
        image=image,
        image_id="sha256:" + "d" * 64,
        chunk_index=CHUNK_INDEX,
        is_running=True,
        started_s=0.0,
        layers=frozenset(),
    )
    return Seen(container, parse_status(data), is_fresh=True, cached=Cached(1, 2048, 8192))
