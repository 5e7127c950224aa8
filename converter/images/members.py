"""The files of an archive of images, found by name and read in place."""

from __future__ import annotations

from posixpath import dirname, join, normpath
from typing import Protocol

from converter.decompress import compression_of, iter_plain
from converter.reference import Reference
from converter.spool import FileBlob, Spool
from converter.tarreader import HARD_LINK, REGULAR, SYMLINK, Budget, iter_entries
from store.errors import FormatError

_LINK_LIMIT = 8
# Archives hold a few files for each layer and image: this is enough for 100,000.
_MEMORY_LIMIT = 100_000_000


class Files(Protocol):
    """A set of files with names, as a directory or an archive holds them."""

    name: str
    """How messages call the set."""

    def find(self, path: str) -> FileBlob | None:
        """Return the file of that name, or None."""


class Members:
    """The files of a plain tar.  Symbolic and hard links are followed within it."""

    def __init__(self, name: str, blob: FileBlob) -> None:
        self.name = name
        self._files: dict[str, FileBlob] = {}
        self._links: dict[str, str] = {}
        for entry in iter_entries(blob, Budget(_MEMORY_LIMIT)):
            path = normpath(entry.name.decode("utf-8", "surrogateescape")).lstrip("/")
            target = entry.link.decode("utf-8", "surrogateescape")
            # Of two members with one name the later one counts, as for tar itself.
            self._files.pop(path, None)
            self._links.pop(path, None)
            if entry.kind == SYMLINK:
                self._links[path] = normpath(join(dirname(path), target))
            elif entry.kind == HARD_LINK:
                self._links[path] = normpath(target).lstrip("/")
            elif entry.kind == REGULAR:
                segments = entry.content.segments
                if len(segments) > 1 or (segments and segments[0].size != entry.content.size):
                    raise FormatError(
                        blob.name,
                        entry.at,
                        f"member {path} is sparse; copy the archive again without holes",
                    )
                at = segments[0].blob_offset if segments else 0
                self._files[path] = blob.part(f"{name}: {path}", at, entry.content.size)

    def find(self, path: str) -> FileBlob | None:
        """Return the file of that name, or None.  Links that leave the archive lead nowhere."""
        path = normpath(path)
        for _ in range(_LINK_LIMIT):
            if path not in self._links:
                break
            path = self._links[path]
        return self._files.get(path)


def open_members(reference: Reference, path_blob: FileBlob, spool: Spool) -> Members:
    """Return the files of an archive, which may as a whole be compressed with gzip or zstd.

    Raises:
        FormatError: it is no archive, or damaged.
        SizeMismatch: it is cut short.
        StorageFull: the spool has no room to decompress it.

    """
    name = str(reference)
    head = path_blob.pread(0, min(4, path_blob.size))
    if not head:
        raise FormatError(name, 0, "the archive is empty; make or fetch it again")
    if compression_of(head) == "none":
        return Members(name, path_blob.part(name, 0, path_blob.size))
    with spool.writing(name) as file:
        for piece in iter_plain(path_blob.iter_pieces(), name):
            file.write(piece)
            spool.advance(len(piece))
    return Members(name, file.blob)
