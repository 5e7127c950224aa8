"""The first profile of an image, told from the image alone, for when no start was recorded."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from typing import Any

from converter.analysis import analyse
from converter.bootview import BootView
from converter.sourceconfig import encode_text
from converter.tree import Node
from store.format.chunkindex import ChunkIndex
from store.format.digest import check_digest
from store.format.erofs import Image
from store.format.profile import Profile
from store.format.trace import Trace
from store.write.profilebuild import ANALYSIS, build_profile

NAME = "default"

Contents = Callable[[int, int], bytes]
"""Returns bytes of ``image.erofs`` by offset and number."""


def analyse_image(
    image: Image, index: ChunkIndex, contents: Contents, settings: Mapping[str, Any], name: str
) -> Profile | None:
    """Return the profile of an image's own command, ``settings`` those of its config.

    It has no hot pack yet.  None where the image names no command, or nothing that it has.
    """
    words = [*(settings.get("Entrypoint") or []), *(settings.get("Cmd") or [])]
    command = [encode_text(word) for word in words]
    environment: dict[bytes, bytes] = {}
    for setting in settings.get("Env") or []:
        key, _, value = encode_text(setting).partition(b"=")
        environment[key] = value
    cwd = encode_text(settings.get("WorkingDir") or "/")
    reads = analyse(image, contents, command, environment, cwd)
    if not any(first * 4096 >= index.data_start for first, _ in reads):
        return None
    trace = Trace(b"", command, 0, [(0, first, pages) for first, pages in reads])
    profile = build_profile(index, name, command, [trace], ANALYSIS)
    profile.traces = 0
    return profile


def settings_of_boot_image(view: BootView) -> dict[str, Any]:
    """Return the settings of containers as the source image had them.

    Raises:
        FormatError: a label of the boot image is damaged.

    """
    settings = dict(view.image_config.get("config") or {})
    settings["Entrypoint"] = [
        word.decode("utf-8", "surrogateescape") for word in view.config.entrypoint
    ]
    return settings


class SourceContents:
    """The data region of a tree whose files are laid out, before it can be read from a store.

    ``extents`` is where each file begins in the region.
    """

    def __init__(self, extents: Mapping[Node, int], data_start: int) -> None:
        self._data_start = data_start
        self._starts = sorted(extents.values())
        self._nodes = {at: node for node, at in extents.items()}

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes of ``image.erofs`` from the data region, zeros between files."""
        at = offset - self._data_start
        out = bytearray(size)
        number = max(bisect_right(self._starts, at) - 1, 0)
        while number < len(self._starts) and self._starts[number] < at + size:
            start = self._starts[number]
            content = self._nodes[start].content
            first = max(at, start)
            part = content.pread(first - start, min(at + size, start + content.size) - first)
            out[first - at : first - at + len(part)] = part
            number += 1
        return bytes(out)

    def chunk_reader(self, index: ChunkIndex) -> Callable[[int], bytes]:
        """Return what gives the plain bytes of a chunk by its number.

        It raises IntegrityError where the source has changed meanwhile.
        """
        places: dict[int, int] = {}
        for place, chunk in enumerate(index.place_chunks):
            places.setdefault(chunk, place)

        def read(chunk: int) -> bytes:
            start = self._data_start + index.starts[places[chunk]]
            plain = self.read(start, index.plain_sizes[chunk])
            check_digest(plain, index.digest(chunk), f"chunk {chunk} of the source")
            return plain

        return read
