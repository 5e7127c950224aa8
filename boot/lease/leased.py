"""The tree with a lease on each file: made new, or found as an earlier start left it."""

from __future__ import annotations

import os
from errno import EAGAIN, EEXIST, EINVAL, ENOLCK, ENOSYS
from time import monotonic, sleep

from boot.lease import eager
from boot.lease.earlier import find, iter_files
from boot.lease.filler import File
from boot.lease.gates import is_gate
from boot.lease.leases import take_lease
from boot.lease.skeleton import NEW_FILE, Builder, explained
from boot.memorylimit import memory_limit
from boot.rights import CAP_SETUID, missing, options
from boot.syscalls import limit_open_files, open_files_limit
from store.errors import BootError
from store.format.erofslayout import FILE_TYPES, S_IFREG

FILES_SPARE = 256
"""Descriptors beside those of files that wait: connections, and what the interpreter opens."""
FILE_MEMORY = 4 << 10
"""Kernel memory that a file which waits takes: 3.2 KB measured."""
MEMORY_SHARE = 4
"""Of the container's memory limit, one part in so many may go to files that wait."""
ROOM_LIMIT = 1000
"""With fewer leases than that, a tree is better filled at once."""
RUN = 64
"""Files that lie together, weighed together: they share chunks."""
OPEN_LIMIT_S = 10.0
"""How long a file that is new, and that somebody else has open all the same, is waited for."""
_REGULAR = FILE_TYPES[S_IFREG]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from boot.lease.copied import Copied
    from boot.lease.journal import Journal
    from boot.lease.skeleton import Directory
    from store.format.erofs import Image, Inode
    from store.read.image import ImageReader


class NoLeases(Exception):
    """A container cannot have a lease on each file, and needs another mode; says why."""


def make_tree(
    image: Image,
    reader: ImageReader,
    directories: list[Directory],
    journal: Journal,
    gates: tuple[bytes, ...],
    copied: Copied,
) -> list[File]:
    """Make the tree, or find it again; return its files that are not filled, with leases.

    ``gates`` are names of programs that are let in when all is filled; ``copied`` says what stays
    that is in the root already.

    Where there is not room for a lease on each, the smallest, as they lie together in the
    image, are filled here.

    Raises:
        NoLeases: they cannot be had here; nothing is open.
        BootfsError: the tree cannot be made.

    """
    files: list[File] = []
    try:
        if journal.is_built:
            _find_again(image, reader, directories, journal, files, gates)
        else:
            _make(image, reader, directories, journal, files, gates, copied)
    except NoLeases:
        for file in files:
            os.close(file.fd)
        raise
    return files


def _room(count: int) -> int:
    """Return how many of ``count`` files may have a lease; raises the limit of open files to that.

    Raises:
        NoLeases: next to none.

    """
    limit = memory_limit()
    room = min(count, limit // MEMORY_SHARE // FILE_MEMORY)
    soft, hard = open_files_limit()
    if room + FILES_SPARE > soft:
        room = min(room, hard - FILES_SPARE)
        limit_open_files(max(room + FILES_SPARE, soft), hard)
    if room < min(count, ROOM_LIMIT):
        why = f"only {hard} files may be open (--ulimit nofile)"
        if hard >= count + FILES_SPARE:
            why = f"{limit >> 20} MB (--memory) are few"
        raise NoLeases(f"{why} for an image of {count} files")
    return room


def choose_at_once(inodes: list[Inode], count: int) -> set[int]:
    """Return the nids of ``count`` files or some more that are cheapest to fetch, of ``inodes``."""
    if count <= 0:
        return set()
    inodes = sorted(inodes, key=lambda inode: inode.data_offset)
    runs = [inodes[at : at + RUN] for at in range(0, len(inodes), RUN)]
    runs.sort(key=lambda run: sum(inode.size for inode in run) / len(run))
    chosen: set[int] = set()
    for run in runs:
        if len(chosen) >= count:
            break
        chosen.update(inode.nid for inode in run)
    return chosen


def _make(
    image: Image,
    reader: ImageReader,
    directories: list[Directory],
    journal: Journal,
    files: list[File],
    gates: tuple[bytes, ...],
    copied: Copied,
) -> None:
    count = sum(kind == _REGULAR for d in directories for _, _, kind in d.entries)
    room = _room(count)
    at_once = set()
    if room < count:
        at_once = choose_at_once([i for _, i in iter_files(image, directories)], count - room)
    rest = eager.Filling(reader, journal)

    def make_file(directory: bytes, name: bytes, place: bytes, inode: Inode) -> None:
        if inode.nid in at_once:
            rest.make_file(directory, name, place, inode)
            return
        fd = os.open(place, NEW_FILE, inode.mode & 0o777)
        # Before it is given away: a lease is for the owner.
        try:
            _take_first_lease(fd, name, are_given=bool(files))
        except NoLeases:
            os.unlink(place)
            if not files:
                raise
            rest.make_file(directory, name, place, inode)
            return
        os.ftruncate(fd, inode.size)
        builder.set_attributes(fd, inode)
        file = _file_of(fd, inode, name, gates)
        journal.set_inode(file.row, os.fstat(fd).st_ino)
        files.append(file)

    builder = Builder(image, b"/", make_file, copied)
    rest.builder = builder
    builder.build(directories)
    rest.run()
    builder.finish(directories)


def _find_again(
    image: Image,
    reader: ImageReader,
    directories: list[Directory],
    journal: Journal,
    files: list[File],
    gates: tuple[bytes, ...],
) -> None:
    found: list[tuple[bytes, Inode, int]] = []
    find(image, directories, journal, lambda p, i, s: found.append((p, i, s.st_uid)))
    room = _room(len(found))
    at_once = choose_at_once([inode for _, inode, _ in found], len(found) - room)
    rest = eager.Filling(reader, journal)
    for path, inode, owner in found:
        if inode.nid in at_once:
            rest.add(path, inode)
            continue
        try:
            fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as error:
            raise explained(path, error, "fill") from None
        _take_lease(fd, owner)
        file = _file_of(fd, inode, path.rpartition(b"/")[2], gates)
        journal.set_inode(file.row, os.fstat(fd).st_ino)
        files.append(file)
    rest.run()


def _file_of(fd: int, inode: Inode, name: bytes, gates: tuple[bytes, ...]) -> File:
    file = File(fd, inode.ordinal, inode.data_offset, inode.size, inode.xattrs_size > 0)
    file.is_gate = is_gate(name, inode.mode, gates)
    return file


def _take_first_lease(fd: int, name: bytes, *, are_given: bool) -> None:
    """Take the lease on a file that was made just now; ``are_given`` says that there were others.

    Raises:
        FileExistsError: somebody has written it meanwhile; ``fd`` is closed.
        NoLeases: there is none for it; ``fd`` is closed.

    """
    refused = _refusal(fd)
    if refused is None:
        return
    made_ns = os.fstat(fd).st_ctime_ns
    deadline_s = monotonic() + OPEN_LIMIT_S
    # Whoever has it open as well: an engine that copies something to its name, or a reader.
    while refused and refused.errno == EAGAIN and are_given and monotonic() < deadline_s:
        sleep(0.001)
        refused = _refusal(fd)
    status = os.fstat(fd)
    if status.st_size or status.st_ctime_ns != made_ns:
        os.close(fd)
        raise FileExistsError(EEXIST, os.strerror(EEXIST), name)
    if refused is not None:
        _raise_without_lease(fd, 0, refused)


def _refusal(fd: int) -> OSError | None:
    try:
        take_lease(fd)
    except OSError as error:
        return error
    return None


def _take_lease(fd: int, owner: int) -> None:
    try:
        take_lease(fd, owner)
    except OSError as error:
        _raise_without_lease(fd, owner, error)


def _raise_without_lease(fd: int, owner: int, error: OSError) -> NoReturn:
    """Close ``fd``, and say why there is no lease on it for ``owner``."""
    os.close(fd)
    if error.errno in (EINVAL, ENOLCK, ENOSYS, EAGAIN):
        raise NoLeases(f"the container's file system gives no leases ({error.strerror})") from None
    # It is taken in its owner's name.
    lacking = missing({CAP_SETUID}) if owner else []
    advice = f"; add {options(lacking)}" if lacking else ""
    raise BootError(f"cannot take a lease: {error.strerror}{advice}") from None
