"""A boot image, opened to be read: what it says of itself, and its file system."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

from converter.bootimage import LABEL
from converter.images.view import ImageView, JsonObject
from converter.layers import merge_layers
from converter.plainlayer import read_layer
from converter.spool import Spool
from converter.structure import check_structure
from converter.tree import Node
from store.errors import FormatError, UsageError
from store.format.bootconfig import BootConfig, parse_boot_config
from store.format.chunkindex import ChunkIndex, parse_chunk_index
from store.format.digest import check_digest
from store.format.erofs import Image
from store.interfaces import Source
from store.read.fetch import ChunkReader
from store.read.image import Bootstrap, ImageReader

FILE_LIMIT = 1 << 30


def _stay_silent(_: str) -> None:
    """Say nothing of what is raised as well."""


@dataclass(slots=True)
class BootView:
    """A boot image's parts, verified against one another."""

    name: str
    image_config: JsonObject
    config: BootConfig
    index: ChunkIndex
    frames: bytes
    """The bootstrap file, as it lies in the boot image."""
    origins: bytes | None
    """The origins file; None in an image of a release that wrote none."""
    own_layer_size: int
    """Of the plain tar, as that of the runtime: the engine gives layers no other way."""
    runtime_layer_size: int | None
    """None where it was not asked for: to tell it, all of the runtime is read."""

    @property
    def labels(self) -> dict[str, str]:
        """What bootfs noted of the source, without the common prefix."""
        settings = self.image_config.get("config")
        labels = settings.get("Labels") if isinstance(settings, dict) else None
        return {
            key[len(LABEL) :]: str(value)
            for key, value in sorted((labels if isinstance(labels, dict) else {}).items())
            if key.startswith(LABEL)
        }

    def noted(self, name: str) -> object:
        """Return the value of the label ``name``, which holds JSON; None where there is none.

        Raises:
            FormatError: it holds something else.

        """
        try:
            return json.loads(self.labels.get(name, "null"))
        except (ValueError, RecursionError) as error:
            raise FormatError(f"label {LABEL}{name}", 0, f"not JSON: {error}") from None

    def open_reader(
        self, source: Source, report: Callable[[str], None] = _stay_silent
    ) -> ImageReader:
        """Return the image's bytes, read from ``source`` as a boot would read them.

        ``report`` gets what a boot would log; all of it that matters is raised too.
        """
        chunks = ChunkReader(self.index, source, None, report)
        return ImageReader(self._open_bootstrap(), chunks)

    def _open_bootstrap(self) -> Bootstrap:
        fd = os.memfd_create("bootstrap", os.MFD_CLOEXEC)
        os.write(fd, self.frames)
        return Bootstrap(fd, self.index)

    def read_tree(self) -> Image:
        """Return the image's tree as `open_tree` does, for who reads no contents.

        Raises:
            IntegrityError, FormatError: the bootstrap is damaged.

        """
        with closing(self._open_bootstrap()) as bootstrap:
            return self._parse(bootstrap.read_all())

    def open_tree(self, reader: ImageReader) -> Image:
        """Return the image's tree, parsed from its bootstrap, its structure checked.

        Raises:
            IntegrityError, FormatError: the bootstrap is damaged.

        """
        return self._parse(reader.bootstrap.read_all())

    def _parse(self, plain: bytes) -> Image:
        try:
            image = Image(plain)
            check_structure(image, self.index)
        except FormatError as error:
            problem = f"{error.problem}; convert the image again"
            raise type(error)(f"{self.name}: {error.what}", error.offset, problem) from None
        return image


def read_boot_image(image: ImageView, spool: Spool, *, measures: bool = False) -> BootView:
    """Return the parts of a boot image; with ``measures``, the runtime is read too.

    Raises:
        UsageError: it is an image, but no boot image.
        FormatError, IntegrityError: it is one, damaged.

    """
    tree = merge_layers(image.layers[-1:], spool)
    home = tree.children.get(b".bootfs")
    files = None if home is None else home.children.get(b"image")
    if files is None or len(image.layers) < 2:
        raise no_boot_image(image.name)
    config = parse_boot_config(_file(files, b"config"))
    encoded = _file(files, b"chunk-index")
    check_digest(encoded, config.chunk_index, f"chunk index of {image.name}")
    runtime_size = None
    if measures:
        runtime_size = sum(read_layer(layer, spool).size for layer in image.layers[:-1])
    return BootView(
        name=image.name,
        image_config=image.config,
        config=config,
        index=parse_chunk_index(encoded),
        frames=_file(files, b"bootstrap"),
        origins=_file(files, b"origins") if b"origins" in files.children else None,
        own_layer_size=read_layer(image.layers[-1], spool).size,
        runtime_layer_size=runtime_size,
    )


def no_boot_image(name: str) -> UsageError:
    """Return what is to be raised of an image that is none that boots."""
    return UsageError(f"{name} is not a boot image; convert it first")


def _file(directory: Node, name: bytes) -> bytes:
    node = directory.children.get(name)
    if node is None or not node.is_regular:
        raise FormatError("boot image", 0, f"/.bootfs/image/{name.decode()} is missing")
    if node.content.size > FILE_LIMIT:
        raise FormatError("boot image", 0, f"{name.decode()} has {node.content.size} bytes")
    return node.content.pread(0, node.content.size)
