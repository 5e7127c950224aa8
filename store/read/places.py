"""Where chunks lie in the data files of a cache: a chunk that one image has, others need not fetch.

Implements docs/format.md, "Cache, layout 2".  A hash table in one file, of four entries a
bucket and without locks: an entry that is lost, torn or wrong costs a fetch, since what
is found is verified.
"""

from __future__ import annotations

import os
from _thread import allocate_lock

from store.format.digest import digest_of
from store.read.cache import DIRECTORY, FLAGS, READING, list_directory

BUCKETS = 1 << 15
"""131,072 entries, some 8 GB of data; one that finds its bucket full takes another's place."""
ENTRY = 16
WAYS = 4
DIGEST, IMAGE = 6, 4
"""Bytes of a chunk's digest, from its fifth on, and of its image's name, in an entry."""
FILES_KEPT = 16
"""Data files of other images that stay open."""


class Places:
    """The table of one cache.  May be used by many threads and processes at once."""

    def __init__(self, root: int, name: str) -> None:
        """Open, and make where missing, the table in the open directory ``root``.

        It is for image ``name``; ``root`` stays the caller's, and open.

        Raises:
            OSError: it cannot be opened.

        """
        self._root = root
        self._own = bytes.fromhex(name[: 2 * IMAGE])
        self._lock = allocate_lock()
        self._files: dict[bytes, int] = {}
        self._fd = os.open("places", FLAGS, 0o600, dir_fd=root)

    def close(self) -> None:
        """Close the files; no call may be under way or follow."""
        os.close(self._fd)
        for fd in self._files.values():
            os.close(fd)

    def find(self, digest: bytes, size: int) -> bytes | None:
        """Return the chunk ``digest``, verified, from another image's data; None: none has it."""
        bucket = os.pread(self._fd, ENTRY * WAYS, _bucket(digest))
        for at in range(0, len(bucket), ENTRY):
            entry = bucket[at : at + ENTRY]
            image = entry[DIGEST : DIGEST + IMAGE]
            if not entry.startswith(digest[4 : 4 + DIGEST]) or image == self._own:
                continue
            with self._lock:
                try:
                    fd = self._open(image)
                    plain = os.pread(fd, size, int.from_bytes(entry[DIGEST + IMAGE :], "little"))
                except (OSError, OverflowError):
                    # Gone, or never there.
                    continue
            if digest_of(plain) == digest:
                return plain
        return None

    def add(self, digest: bytes, offset: int) -> None:
        """Note that this image's data file holds the chunk ``digest`` at ``offset``.

        Beside what is noted of other images: each may be given up before the others.
        """
        place = _bucket(digest)
        bucket = os.pread(self._fd, ENTRY * WAYS, place).ljust(ENTRY * WAYS, b"\0")
        mark = digest[4 : 4 + DIGEST] + self._own
        entries = [bucket[at : at + ENTRY] for at in range(0, len(bucket), ENTRY)]
        fitting = [n for n, entry in enumerate(entries) if entry.startswith(mark)]
        fitting += [n for n, entry in enumerate(entries) if not entry.strip(b"\0")]
        way = fitting[0] if fitting else digest[4 + DIGEST] % WAYS
        entry = mark + offset.to_bytes(ENTRY - DIGEST - IMAGE, "little")
        os.pwrite(self._fd, entry, place + way * ENTRY)

    def _open(self, image: bytes) -> int:
        """Return the open data file of an image, by the beginning of its name.

        Raises:
            OSError: there is none.

        """
        fd = self._files.get(image)
        if fd is None:
            start = image.hex()
            names = [name for name in list_directory(self._root) if name.startswith(start)]
            directory = os.open((names or ["-"])[0], DIRECTORY, dir_fd=self._root)
            try:
                fd = os.open("data", READING, dir_fd=directory)
            finally:
                os.close(directory)
            while len(self._files) >= FILES_KEPT:
                os.close(self._files.pop(next(iter(self._files))))
            self._files[image] = fd
        return fd


def _bucket(digest: bytes) -> int:
    return int.from_bytes(digest[:4], "little") % BUCKETS * ENTRY * WAYS
