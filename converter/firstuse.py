"""Which files of an image came over the network for a container, and who read them first."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, replace

from converter.bootview import BootView
from converter.contents import HeldFile, iter_pieces, read_files
from converter.statusfile import Read, StatusFile
from store.format.chunkindex import BLOCK, ChunkIndex


@dataclass(slots=True)
class FetchedFile:
    """A file of which bytes came over the network."""

    path: bytes
    plain: int
    fetched: int = 0
    """Plain bytes of it that came, by reading ahead too, what fills its last block up as well."""
    first: Read | None = None
    """The first read of it that is listed; None where nobody has read it, or that is unknown.

    One that did not wait has the name that its process had before, when a read of it waited.
    """
    waited_s: float = 0.0
    """For so long processes waited for it, all together."""
    reads: int = 0
    is_ahead: bool = True
    """Nobody waited for it, and each read of it began where another one ended.

    The kernel may have read on by itself, past the end of the file that lies before it.
    """


def read_fetched(view: BootView, status: StatusFile) -> list[FetchedFile]:
    """Return the files that came, in the order in which they were first read; the others follow.

    As far as the status lists requests and reads.

    Raises:
        FormatError, IntegrityError: the image is damaged.

    """
    held = read_files(view)
    chunks = _fetched_chunks(status, view.index)
    files = [FetchedFile(file.path, file.plain) for file in held]
    numbers = {file.start: number for number, file in enumerate(held)}
    for piece, chunk, size in iter_pieces(held, view.index):
        if chunk in chunks:
            files[numbers[piece.start]].fetched += size
    _add_reads(files, held, status.reads, view.index)
    came = [file for file in files if file.fetched]
    return sorted(came, key=lambda file: (file.first is None, file.first and file.first.begun_s))


def _fetched_chunks(status: StatusFile, index: ChunkIndex) -> set[int]:
    """Return the chunks that the listed requests brought."""
    in_pack: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for chunk, (pack, offset) in enumerate(zip(index.packs, index.offsets, strict=True)):
        in_pack[pack].append((offset, chunk))
    for places in in_pack.values():
        places.sort()
    found = set()
    for request in status.requests:
        places = in_pack.get(request.pack, [])
        first = bisect_right(places, (request.offset, -1))
        end = request.offset + request.size
        for offset, chunk in places[first:]:
            if offset + index.stored_sizes[chunk] > end or request.has_failed:
                break
            found.add(chunk)
    return found


def _add_reads(
    files: list[FetchedFile], held: list[HeldFile], reads: list[Read], index: ChunkIndex
) -> None:
    starts = [file.start for file in held]
    names: dict[int, bytes] = {}
    ends = {read.offset + read.size for read in reads}
    for read in sorted(reads, key=lambda read: read.begun_s):
        # Whose a read was is looked up only while it waits.
        name = names[read.process] = read.name or names.get(read.process, b"")
        begin = read.offset - index.data_start
        if begin < 0:
            continue  # of the bootstrap
        number = bisect_right(starts, begin) - 1
        end = begin + read.size
        while 0 <= number < len(held) and held[number].start < end:
            file = held[number]
            # A file's end is that of its last block: EROFS reads whole ones.
            if file.start + -(-file.plain // BLOCK) * BLOCK > begin:
                _add_read(files[number], read, name)
                files[number].is_ahead &= not read.waited_s and read.offset in ends
            number += 1


def _add_read(file: FetchedFile, read: Read, name: bytes) -> None:
    file.reads += 1
    file.waited_s += read.waited_s
    if file.first is None:
        file.first = replace(read, name=name)
