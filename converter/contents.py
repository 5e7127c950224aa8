"""What is in a boot image, and how much of it: by file, by directory, by layer of origin."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass

from converter.bootview import BootView
from converter.bootwalk import iter_paths
from converter.origins import parse_origins
from store.format.chunkindex import HOLE, ChunkIndex


@dataclass(slots=True)
class Amount:
    """Some files of an image; sizes are bytes."""

    files: int = 0
    plain: int = 0
    """Their sizes, holes included, a file with several names once."""
    stored: int = 0
    """Their share of the image's chunks, as these lie in the store."""

    def add(self, file: HeldFile) -> None:
        """Count a file."""
        self.files += 1
        self.plain += file.plain
        self.stored += file.stored


@dataclass(slots=True)
class HeldFile:
    """A file that has bytes; ``path`` is the first of its names."""

    path: bytes
    plain: int
    start: int
    """Where its bytes begin in the data region."""
    stored: int = 0
    layer: int | None = None
    """Of the source image, the lowest 0; None where the image does not say."""


@dataclass(frozen=True, slots=True)
class SourceLayer:
    """A layer of the source image, and what of it the tree shows."""

    number: int
    diff_id: str
    created_by: str
    """As its history says; empty where that does not tell layers apart."""
    amount: Amount


def read_files(view: BootView) -> list[HeldFile]:
    """Return the files of an image in the order of the data region.

    The stored bytes of a chunk that several files share are divided among them by the
    bytes that each has in it: all files together have what all chunks have.

    Raises:
        FormatError, IntegrityError: the image is damaged.

    """
    found: dict[int, HeldFile] = {}
    start = view.index.data_start
    for path, inode in iter_paths(view.read_tree()):
        if stat.S_ISREG(inode.mode) and inode.size and inode.nid not in found:
            found[inode.nid] = HeldFile(path, inode.size, inode.data_offset - start)
    files = sorted(found.values(), key=lambda file: file.start)
    _share(files, view.index)
    if view.origins is not None:
        layers = parse_origins(view.origins, len(files))
        for file, layer in zip(files, layers, strict=True):
            file.layer = layer
    return files


def _share(files: list[HeldFile], index: ChunkIndex) -> None:
    """Divide the stored bytes of all chunks among the files whose bytes they hold."""
    uses = [0] * index.chunk_count
    for chunk in index.place_chunks:
        if chunk != HOLE:
            uses[chunk] += index.plain_sizes[chunk]
    given = [0] * index.chunk_count
    for file, chunk, size in iter_pieces(files, index):
        # What is given so far, rounded down: nothing is lost or given twice.
        stored, whole = index.stored_sizes[chunk], uses[chunk]
        before = stored * given[chunk] // whole
        given[chunk] += size
        file.stored += stored * given[chunk] // whole - before


def iter_pieces(files: list[HeldFile], index: ChunkIndex) -> Iterator[tuple[HeldFile, int, int]]:
    """Yield file, chunk and bytes of each piece that a file has of a chunk, in order.

    What fills a file's last block up is the file's.
    """
    place = 0
    for number, file in enumerate(files):
        end = files[number + 1].start if number + 1 < len(files) else index.data_size
        at = file.start
        while at < end:
            while index.starts[place + 1] <= at:
                place += 1
            until = min(end, index.starts[place + 1])
            if index.place_chunks[place] != HOLE:
                yield file, index.place_chunks[place], until - at
            at = until


def by_directory(files: list[HeldFile], depth: int) -> dict[bytes, Amount]:
    """Return what is in each directory down to ``depth`` names below the root, in path order.

    A directory has all that is below it.
    """
    amounts: dict[bytes, Amount] = {b"/": Amount()}
    for file in files:
        names = file.path.split(b"/")[1:-1]
        amounts[b"/"].add(file)
        for end in range(1, min(len(names), depth) + 1):
            amounts.setdefault(b"/" + b"/".join(names[:end]), Amount()).add(file)
    return dict(sorted(amounts.items(), key=lambda item: item[0].split(b"/")))


def by_layer(files: list[HeldFile], view: BootView) -> list[SourceLayer]:
    """Return the layers of the source image, lowest first; none where the image does not say.

    Raises:
        FormatError: the image's labels are damaged.

    """
    diff_ids = view.noted("source.layers")
    if view.origins is None or not isinstance(diff_ids, list):
        return []
    amounts = [Amount() for _ in diff_ids]
    for file in files:
        if file.layer is not None and file.layer < len(amounts):
            amounts[file.layer].add(file)
    steps = layer_steps(view.noted("source.history"), len(diff_ids))
    return [
        SourceLayer(number, str(diff_id), steps[number], amounts[number])
        for number, diff_id in enumerate(diff_ids)
    ]


def layer_steps(history: object, layers: int) -> list[str]:
    """Return the step of a history that made each layer; empty texts if it is not so many."""
    steps = [
        str(step.get("created_by") or step.get("comment") or "")
        for step in (history if isinstance(history, list) else [])
        if isinstance(step, dict) and not step.get("empty_layer")
    ]
    return steps if len(steps) == layers else [""] * layers
