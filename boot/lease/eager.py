"""The tree with all contents, before the workload starts: fetched, and unpacked meanwhile."""

from __future__ import annotations

import os
import stat
from _signal import SIGHUP, SIGINT, SIGQUIT, SIGTERM, sigpending
from _thread import allocate_lock, get_ident, start_new_thread
from errno import EEXIST
from time import sleep

from boot.lease.earlier import find
from boot.lease.filler import AHEAD_SHARE, PIECE, write_contents
from boot.lease.skeleton import NEW_FILE, Builder, explained
from boot.rights import set_mode

ENDING = {SIGHUP, SIGINT, SIGQUIT, SIGTERM}
"""Signals that a user ends a container with; the next to come is the last one wanted."""
THREADS = 4
"""Who write; each waits for the network or the disk most of the time."""
APART_SHARE = 6
"""Of the reader's memory, one part in so many may lie between two of them: what is fetched
for who is behind would be dropped otherwise, and fetched again."""
WAIT_S = 0.005

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from boot.lease.copied import Copied
    from boot.lease.journal import Journal
    from boot.lease.skeleton import Directory
    from store.format.erofs import Image, Inode
    from store.read.image import ImageReader


class Interrupted(Exception):
    """Somebody wants the container to end before its workload has begun."""

    def __init__(self, number: int) -> None:
        """Keep the signal's number."""
        super().__init__(f"signal {number}")
        self.number = number


class Piece:
    """A file to be filled, by its absolute path."""

    __slots__ = ("inode", "is_new", "path")

    def __init__(self, path: bytes, inode: Inode, is_new: bool) -> None:
        self.path = path
        self.inode = inode
        self.is_new = is_new
        """It is to be made; else it is there."""


def make_tree(
    image: Image,
    reader: ImageReader,
    directories: list[Directory],
    journal: Journal | None,
    place: bytes = b"/",
    copied: Copied | None = None,
) -> None:
    """Make the tree at ``place`` whole, or make that of an earlier start whole.

    ``copied`` is for a `Builder`.

    Raises:
        BootfsError: the contents cannot be had, or the tree cannot be made.
        Interrupted: a signal that ends programs has come.

    """
    filling = Filling(reader, journal, place)
    if journal is not None and journal.is_built:
        find(image, directories, journal, lambda path, inode, _: filling.add(path, inode))
        filling.run()
        return
    index = reader.index
    if index.data_size:
        ahead = min(reader.chunks.memory_limit // AHEAD_SHARE, index.data_size)
        reader.chunks.want(reader.chunks_of(index.data_start, ahead))
    filling.builder = builder = Builder(image, place, filling.make_file, copied)
    builder.build(directories)
    filling.run()
    builder.finish(directories)


class Filling:
    """Files filled in the order of the image by several threads."""

    def __init__(self, reader: ImageReader, journal: Journal | None, place: bytes = b"/") -> None:
        """Fill nothing yet; ``place`` is the root of the tree."""
        self.builder: Builder | None = None
        """Sets attributes of new files; without one, files keep what they have."""
        self._reader = reader
        self._ahead = reader.chunks.memory_limit // AHEAD_SHARE
        self._journal = journal
        self._place = place
        self._files: list[Piece] = []
        self._lock = allocate_lock()
        self._next = 0
        self._under_way: dict[int, int] = {}
        """Where what each thread writes begins in the image, by thread."""
        self._asked = 0
        self._errors: list[BaseException] = []

    def make_file(self, directory: bytes, name: bytes, place: bytes, inode: Inode) -> None:
        """Have a new file made and filled: what a `Builder` calls."""
        if inode.nlink > 1:
            # Its other names are made before it is filled.
            os.close(os.open(place, NEW_FILE, 0o600))
        elif os.path.lexists(place):
            raise FileExistsError(EEXIST, os.strerror(EEXIST), name)
        path = os.path.join(self._place, directory, place)
        self._files.append(Piece(path, inode, inode.nlink == 1))

    def add(self, path: bytes, inode: Inode) -> None:
        """Have a file filled that is there, and not changed but for its attributes."""
        self._files.append(Piece(path, inode, False))

    def run(self) -> None:
        """Fill all; return when that is done.

        Raises:
            BootfsError: one cannot be filled.
            Interrupted: a signal that ends programs has come.

        """
        self._files.sort(key=lambda piece: piece.inode.data_offset)
        done = []
        for _ in range(min(THREADS, len(self._files)) - 1):
            ended = allocate_lock()
            ended.acquire()
            start_new_thread(self._work, (ended.release,))
            done.append(ended)
        self._work(lambda: None)
        for ended in done:
            ended.acquire()
        if self._errors:
            raise self._errors[0]

    def _work(self, ended: Callable[[], None]) -> None:
        try:
            while not self._errors and (batch := self._take()):
                # All are blocked, to be forwarded; there is nobody yet to get them.
                for number in sigpending() & ENDING:
                    raise Interrupted(number)
                for piece in batch:
                    self._fill(piece)
        except BaseException as error:
            self._errors.append(error)
        ended()

    def _take(self) -> list[Piece]:
        """Claim the next files, about `PIECE` of them, and begin to fetch those behind them."""
        own = get_ident()
        with self._lock:
            self._under_way.pop(own, None)
        while not self._errors and self._is_far_ahead():
            sleep(WAIT_S)
        with self._lock:
            start = self._next
            size = 0
            while self._next < len(self._files) and size < PIECE:
                size += self._files[self._next].inode.size
                self._next += 1
            batch = self._files[start : self._next]
            if batch:
                self._under_way[own] = batch[0].inode.data_offset
            wanted = self._behind(start)
        if wanted:
            self._reader.chunks.want(wanted)
        return batch

    def _is_far_ahead(self) -> bool:
        """Whether somebody should come up before the next files are begun."""
        with self._lock:
            if self._next >= len(self._files) or not self._under_way:
                return False
            apart = self._files[self._next].inode.data_offset - min(self._under_way.values())
        return apart > self._reader.chunks.memory_limit // APART_SHARE

    def _behind(self, at: int) -> list[int]:
        if at >= len(self._files):
            return []
        end = self._files[at].inode.data_offset + 2 * self._ahead
        wanted: list[int] = []
        while at < len(self._files):
            inode = self._files[at].inode
            first = max(inode.data_offset, self._asked)
            until = min(inode.data_offset + inode.size, end)
            if inode.data_offset >= end:
                break
            if until > first:
                wanted += self._reader.chunks_of(first, until - first)
            at += 1
        self._asked = max(self._asked, end)
        return wanted

    def _fill(self, piece: Piece) -> None:
        try:
            fd = self._open(piece)
            if fd < 0:
                return
            try:
                self._fill_open(fd, piece)
            finally:
                os.close(fd)
        except OSError as error:
            raise explained(piece.path, error) from None

    def _open(self, piece: Piece) -> int:
        """Return the open file; -1 where something has been put in its place meanwhile."""
        if not piece.is_new:
            return os.open(piece.path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            return os.open(piece.path, NEW_FILE, piece.inode.mode & 0o777)
        except FileExistsError:
            return -1

    def _fill_open(self, fd: int, piece: Piece) -> None:
        inode = piece.inode
        status = os.fstat(fd)
        os.ftruncate(fd, inode.size)
        write_contents(self._reader, fd, inode.data_offset, inode.size)
        if self.builder is not None:
            if not piece.is_new:
                os.chmod(fd, inode.mode & 0o777)
            self.builder.set_attributes(fd, inode)
            if not piece.is_new:
                # It was made for its names, closed to everybody until it is whole.
                set_mode(fd, stat.S_IMODE(inode.mode), inode.gid)
        else:
            set_mode(fd, stat.S_IMODE(status.st_mode), status.st_gid)
            os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))
        if self._journal is not None:
            self._journal.set_inode(inode.ordinal, status.st_ino)
            self._journal.set_filled(inode.ordinal, os.fstat(fd).st_ctime_ns)
