"""The first profile of an image, told from the image alone, for when no start was recorded."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

from converter.analysis import analyse
from converter.bootview import BootView
from converter.sourceconfig import encode_text
from converter.tree import Node
from store.errors import BootfsError
from store.format.chunkindex import BLOCK, ChunkIndex
from store.format.erofs import Image
from store.format.names import bootstrap_name
from store.format.profile import Profile
from store.format.trace import Trace
from store.interfaces import Backend
from store.read.fetch import ChunkReader
from store.read.image import Bootstrap, ImageReader
from store.write.profilebuild import ANALYSIS, build_profile
from store.write.profilestore import add_profile, read_profiles

NAME = "default"


@dataclass(frozen=True, slots=True)
class ProfileReport:
    """The first profile, told from the image."""

    name: str
    reads: int
    chunks: int
    problem: str = ""
    """Why the store has none of it; the image is whole without."""


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
    if not any(first * BLOCK >= index.data_start for first, _ in reads):
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


def make_first_profile(
    backend: Backend,
    digest: bytes,
    index: ChunkIndex,
    bootstrap: bytes,
    settings: Mapping[str, Any],
    source: SourceContents | None,
) -> ProfileReport | None:
    """Add the first profile of a converted image to its store, where that has none of it.

    Contents are read from ``source``, or without one from ``backend``.  An image is whole
    without its profile: what goes wrong is in the report.  None where there is one already,
    or the command tells nothing.
    """
    profile = None
    try:
        if read_profiles(backend, digest):
            return None
        with ExitStack() as stack:
            if source is None:
                reader = stack.enter_context(closing(_open_reader(backend, index, bootstrap)))
                contents: Contents = _joined(reader)
            else:
                contents = source.read
            profile = analyse_image(Image(bootstrap), index, contents, settings, NAME)
            if profile is None:
                return None
            # Its chunks once more, in a hot pack, would be as many bytes as an update has.
            add_profile(backend, digest, index, profile, without_hot_pack=True)
    except BootfsError as error:
        if profile is None:
            return ProfileReport(NAME, 0, 0, str(error))
        return ProfileReport(NAME, len(profile.reads), len(profile.chunks), str(error))
    return ProfileReport(NAME, len(profile.reads), len(profile.chunks))


def make_profile_of_stored(
    backend: Backend, digest: bytes, index: ChunkIndex, settings: Mapping[str, Any]
) -> ProfileReport | None:
    """Do as `make_first_profile`, of a converted image of which the store alone has anything."""
    try:
        if read_profiles(backend, digest):
            return None
        name = bootstrap_name(digest)
        stored = backend.fetch(name, 0, backend.size(name))
        with closing(_open_bootstrap(stored, index)) as bootstrap:
            plain = bootstrap.read_all()
    except BootfsError as error:
        return ProfileReport(NAME, 0, 0, str(error))
    return make_first_profile(backend, digest, index, plain, settings, None)


def _open_reader(backend: Backend, index: ChunkIndex, bootstrap: bytes) -> ImageReader:
    chunks = ChunkReader(index, backend, None, lambda _: None)
    return ImageReader(_open_bootstrap(bootstrap, index), chunks)


def _open_bootstrap(data: bytes, index: ChunkIndex) -> Bootstrap:
    fd = os.memfd_create("bootstrap", os.MFD_CLOEXEC)
    os.write(fd, data)
    return Bootstrap(fd, index)


def _joined(reader: ImageReader) -> Contents:
    return lambda at, size: b"".join(reader.read(at, size))


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
