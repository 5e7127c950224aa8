"""The FUSE wire protocol, as far as one read-only file needs it.

From linux/fuse.h, protocol 7.38 and later.  A file system of one directory and
one file needs eight requests; a general library costs 60 ms of imports and a
scheduler per request (docs/decisions/0004-raw-fuse.md).
"""

from __future__ import annotations

import os
import struct
from _thread import allocate_lock, get_ident, start_new_thread
from errno import EAGAIN, EINTR, EINVAL, EIO, ENODEV, ENOENT, ENOSYS
from struct import Struct

from store.errors import BootfsError

LOOKUP, FORGET, GETATTR, READ, STATFS, RELEASE = 1, 2, 3, 15, 17, 18
INIT, OPENDIR, READDIR, RELEASEDIR, INTERRUPT, DESTROY, BATCH_FORGET = 26, 27, 28, 29, 36, 38, 42
NOTIFY_RESEND = 7

FOPEN_KEEP_CACHE = 1 << 1
FLAG_ASYNC_READ = 1 << 0
FLAG_NO_OPEN = 1 << 17
FLAG_PARALLEL_DIROPS = 1 << 18
FLAG_MAX_PAGES = 1 << 22
FLAG_INIT_EXT = 1 << 30
MAX_PAGES = 256
"""Pages of the longest READ: 1 MiB, the kernel's default limit (fs.fuse.max_pages_limit)."""
REQUEST_SIZE = 8192
"""FUSE_MIN_READ_BUFFER: a device read with less is refused."""
KERNEL_READ_AHEAD = 4096
"""How far the kernel may read on by itself: the least there is.

It takes the pages of all files for one, so its guesses here are poor, and each may cost
a fetch.  EROFS reads ahead in each file.
"""
BACKGROUND = 0xFFFF
"""Reads of read-ahead under way at once: without a limit, the most there is.

Whoever asks for one more waits until one is answered, and the thread that answers asks
for some itself (`OneFile.between_requests`).
"""
WORKER_LIMIT = 32
PIECE_LIMIT = 1000
"""Pieces of one answer; writev(2) takes 1,024 (IOV_MAX)."""
FOREVER = 1 << 40

IN_HEADER = Struct("<IIQQIIIHH")  # len opcode unique nodeid uid gid pid total_extlen padding
OUT_HEADER = Struct("<IiQ")  # len error unique
READ_IN = Struct("<QQIIQII")  # fh offset size read_flags lock_owner flags padding
INIT_IN = Struct("<IIII")  # major minor max_readahead flags
INIT_OUT = Struct("<IIIIHHIIHHII24x")  # see fuse_init_out
ATTR = Struct(
    "<QQQQQQIIIIIIIIII"
)  # ino size blocks times nanoseconds mode nlink uid gid rdev blksize flags
ENTRY_OUT = Struct("<QQQQII")  # nodeid generation entry_valid attr_valid and their nanoseconds
ATTR_OUT = Struct("<QII")  # attr_valid attr_valid_nsec dummy
OPEN_OUT = Struct("<QIi")  # fh open_flags backing_id
STATFS_OUT = Struct("<QQQQQIIII24x")  # fuse_kstatfs

ROOT = 1
FILE = 2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Reader = Callable[[int, int], "list[bytes | memoryview]"]


class Workers:
    """Threads that answer requests: one, but for those that wait for a fetch or a disk.

    One is enough for all that is at hand, and several only wait for one another (for the
    interpreter's lock).  So who begins to wait leaves its turn to another, a new one where
    there is none, and afterwards finishes its answer and queues for the next turn.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        """Begin with the caller's own thread; ``work`` is what another one does."""
        self._work = work
        self._lock = allocate_lock()
        self.count = 1
        """Threads there are."""
        self._queued = 0
        self._turn = allocate_lock()
        self._whose = 0
        """The thread that holds ``_turn``; 0 for none."""

    def take_turn(self) -> None:
        """Return when this thread is the one to take requests, which it may be already."""
        me = get_ident()
        if self._whose == me:
            return
        with self._lock:
            self._queued += 1
        self._turn.acquire()
        with self._lock:
            self._queued -= 1
        self._whose = me

    def leave_turn(self) -> None:
        """Let another thread take requests, if this one is who does."""
        if self._whose == get_ident():
            self._whose = 0
            self._turn.release()

    def begin_wait(self) -> None:
        """Have another thread answer while this one waits."""
        if self._whose != get_ident():
            return
        with self._lock:
            more = not self._queued and self.count < WORKER_LIMIT
            self.count += more
        self.leave_turn()
        if more:
            try:
                start_new_thread(self._work, ())
            except RuntimeError:
                # No process to be had (pids.max): others wait as long as this one.
                with self._lock:
                    self.count -= 1


class OneFile:
    """Serves ``name``, one read-only file of ``size`` bytes, on an open /dev/fuse.

    ``read`` gives bytes for (offset, size) and raises when it cannot: the kernel
    then gets EIO.
    """

    def __init__(
        self,
        fd: int,
        name: bytes,
        size: int,
        read: Reader,
        log: Callable[[str], None],
    ) -> None:
        self._fd = fd
        self._name = name
        self._size = size
        self._read = read
        self.answered: Callable[[int, int], None] = lambda offset, size: None
        """Called after each read that was answered, with its offset and size."""
        self.asked: dict[int, bytes] = {}
        """The READ that a thread answers, by its number, until somebody takes it out."""
        self._log = log
        self.workers = Workers(self._work_aside)
        self._pause = allocate_lock()
        self._acts = False
        self._act: Callable[[bool], bool] = lambda is_idle: False
        self._then: Callable[[], None] = lambda: None

    def serve(self) -> None:
        """Answer requests until the file is unmounted, in this thread and more while it waits."""
        os.set_blocking(self._fd, True)
        self._work()

    def between_requests(self, act: Callable[[bool], bool], then: Callable[[], None]) -> None:
        """Have ``act`` called between requests until it returns False, then ``then`` once.

        It is told whether no request waits.
        """
        self._act, self._then = act, then
        os.set_blocking(self._fd, False)
        self._acts = True
        # Who sleeps in a read already learns of it by a request.
        self._use_pause(True)

    def resend(self) -> None:
        """Ask the kernel for the requests that another process took and did not answer.

        Kernel 6.9 or later; an older one refuses, and they wait until it is unmounted.
        """
        os.write(self._fd, OUT_HEADER.pack(OUT_HEADER.size, NOTIFY_RESEND, 0))

    def _work(self) -> None:
        fd = self._fd
        while True:
            self.workers.take_turn()
            if self._acts:
                self._use_pause(False)
            try:
                request = os.read(fd, REQUEST_SIZE)
            except OSError as error:
                if error.errno == EAGAIN:
                    self._use_pause(True)
                    continue
                if error.errno in (ENOENT, EINTR):  # interrupted before it was taken
                    continue
                if error.errno == ENODEV:  # unmounted
                    self.workers.leave_turn()
                    return
                raise
            self._answer(request)

    def _use_pause(self, is_idle: bool) -> None:
        """Do a piece of what is to be done between requests, or find that it is done."""
        with self._pause:
            if self._acts and not self._act(is_idle):
                self._acts = False
                os.set_blocking(self._fd, True)
                self._then()

    def _work_aside(self) -> None:
        """Work in a thread of its own; a fault ends the whole process.

        Its request stays unanswered, and only another daemon, which asks for it again,
        can answer it.
        """
        try:
            self._work()
        except BaseException as error:
            self._log(f"the daemon failed: {error!r}")
            os._exit(1)

    def _answer(self, request: bytes) -> None:
        try:
            self._answer_whole(request)
        except struct.error:
            # Shorter than what it asks for: the kernel sends no such, and none may end the daemon.
            if len(request) >= IN_HEADER.size:
                self._refuse(IN_HEADER.unpack_from(request)[2], EINVAL)

    def _answer_whole(self, request: bytes) -> None:
        _, opcode, unique, node, *_ = IN_HEADER.unpack_from(request)
        if opcode == READ:
            self._answer_read(request, unique)
        elif opcode in (FORGET, BATCH_FORGET, INTERRUPT):
            return
        elif opcode == INIT:
            self._reply(unique, self._init(request))
        elif opcode == LOOKUP:
            name = request[IN_HEADER.size : -1]
            if node == ROOT and name == self._name:
                entry = ENTRY_OUT.pack(FILE, 0, FOREVER, FOREVER, 0, 0)
                self._reply(unique, entry + self._attributes(FILE))
            else:
                self._refuse(unique, ENOENT)
        elif opcode == GETATTR:
            self._reply(unique, ATTR_OUT.pack(FOREVER, 0, 0) + self._attributes(node))
        elif opcode == OPENDIR:
            self._reply(unique, OPEN_OUT.pack(0, FOPEN_KEEP_CACHE, 0))
        elif opcode == STATFS:
            self._reply(unique, STATFS_OUT.pack(0, 0, 0, 0, 0, 4096, 255, 4096, 0))
        elif opcode in (READDIR, RELEASE, RELEASEDIR, DESTROY):
            self._reply(unique, b"")
        else:
            # For OPEN and FLUSH too: then the kernel asks for neither again, keeps the
            # file's pages, and the daemon may have its own file open, and end with it open.
            self._refuse(unique, ENOSYS)

    def _answer_read(self, request: bytes, unique: int) -> None:
        _, offset, size, *_ = READ_IN.unpack_from(request, IN_HEADER.size)
        self.asked[get_ident()] = request
        try:
            pieces = self._read(offset, size)
        except Exception as error:
            # Whatever failed, an unanswered request would hang its reader for ever.
            self._log(str(error) if isinstance(error, BootfsError) else f"read failed: {error!r}")
            self._refuse(unique, EIO)
            return
        if len(pieces) > PIECE_LIMIT:
            pieces = [b"".join(pieces)]
        length = OUT_HEADER.size + sum(map(len, pieces))
        self._send([OUT_HEADER.pack(length, 0, unique), *pieces])
        self.answered(offset, size)

    def _init(self, request: bytes) -> bytes:
        major, minor, read_ahead, flags = INIT_IN.unpack_from(request, IN_HEADER.size)
        wanted = (
            FLAG_ASYNC_READ | FLAG_NO_OPEN | FLAG_PARALLEL_DIROPS | FLAG_MAX_PAGES | FLAG_INIT_EXT
        )
        return INIT_OUT.pack(
            7, min(minor, 38) if major == 7 else 38,
            min(read_ahead, KERNEL_READ_AHEAD), flags & wanted,
            BACKGROUND, BACKGROUND, 4096, 1, MAX_PAGES, 0, 0, 0,
        )  # fmt: skip

    def _attributes(self, node: int) -> bytes:
        mode, size = (0o100400, self._size) if node == FILE else (0o040500, 0)
        return ATTR.pack(node, size, size >> 9, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)

    def _reply(self, unique: int, body: bytes) -> None:
        self._send([OUT_HEADER.pack(OUT_HEADER.size + len(body), 0, unique), body])

    def _refuse(self, unique: int, number: int) -> None:
        self._send([OUT_HEADER.pack(OUT_HEADER.size, -number, unique)])

    def _send(self, pieces: list[bytes | memoryview]) -> None:
        try:
            os.writev(self._fd, pieces)
        except OSError as error:
            # The request was interrupted, or taken over by another process.
            if error.errno not in (ENOENT, EINVAL):
                raise
