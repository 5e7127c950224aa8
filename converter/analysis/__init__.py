"""What the start of an image will read, told from the image alone: its first profile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from converter.analysis.files import Enough, Files
from converter.analysis.programs import Programs
from store.format.erofs import Image

__all__ = ["analyse"]


def analyse(
    image: Image,
    contents: Callable[[int, int], bytes],
    command: Sequence[bytes],
    environment: dict[bytes, bytes],
    cwd: bytes,
) -> list[tuple[int, int]]:
    """Return first page and number of pages of each read of ``image.erofs``, in likely order.

    ``contents`` returns bytes of ``image.erofs`` by offset and number.  The same image gives
    the same reads: work is bounded by counts, and what was found at a bound is the answer.
    A program that is not there reads nothing.
    """
    files = Files(image, contents)
    with suppress(Enough):
        Programs(files, environment, cwd or b"/").start(list(command))
    return files.reads
