"""Fill files: those that somebody waits for first, their neighbours next, at last all.

Threads of PID 1.  A file is filled through the descriptor that holds its lease, so
under whatever name it is by then; closing it lets in who waits.
"""

from __future__ import annotations

import os
import stat
from _queue import SimpleQueue
from _thread import allocate_lock, start_new_thread
from errno import ENODATA
from time import monotonic, sleep

from boot.lease.gates import Search
from boot.lease.leases import is_wanted
from boot.log import log
from boot.rights import set_mode
from store.errors import BootError, BootfsError
from store.read.image import ZEROS

READ_SIZE = (1 << 32) - 1
"""The longest that a status has room for."""
PIECE = 1 << 20
"""Bytes read and written at once."""
AHEAD_SHARE = 6
"""Of the reader's memory, one part in so many is asked for while a piece is written."""
WORKERS = 16
"""Files filled at once for somebody who waits; each waits for the network most of the time."""
NEIGHBOURS = 64
"""Files to either side of one that are filled when their bytes came with it."""
QUIET_S = 1.0
"""So long after the last file that somebody waited for, the others are begun."""
POLL_S = 0.25
STOP_MARGIN_S = 10.0
"""Before the kernel takes a lease away, everybody is stopped who could read what is not there."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from boot.lease.freezer import Freezer
    from boot.lease.journal import Journal
    from boot.lease.profiled import Profiled
    from boot.recording import Recording
    from store.read.image import ImageReader


class File:
    """A file of the tree that is not filled yet."""

    __slots__ = (
        *("begun", "fd", "has_xattrs", "is_gate", "is_written", "offset", "row", "size"),
        "wanted_s",
    )

    def __init__(self, fd: int, row: int, offset: int, size: int, has_xattrs: bool) -> None:
        self.fd = fd
        """Open for writing, with the lease."""
        self.row = row
        self.offset = offset
        """Where the contents are in image.erofs."""
        self.size = size
        self.has_xattrs = has_xattrs
        self.is_gate = False
        """Starts a program that is let in only when all files are filled."""
        self.begun = False
        """A thread fills it."""
        self.is_written = False
        """It has its contents; one that has them and is not let in turned out to be a gate."""
        self.wanted_s = 0.0
        """When somebody began to wait for it, by `monotonic`; 0.0 when nobody does."""


class Filler:
    """All files of a container that are not filled."""

    def __init__(
        self,
        image: ImageReader,
        journal: Journal,
        files: list[File],
        freezer: Freezer,
        break_time_s: float,
        failed: Callable[[BaseException], None],
        profiled: Profiled | None = None,
        recording: Recording | None = None,
        *,
        finds_gates: bool = False,
    ) -> None:
        """Fill nothing yet.

        ``files`` become this object's.  ``failed`` is called when a file that somebody
        waits for cannot be filled; it ends the container.  What ``profiled`` names is filled
        first.  With a ``recording`` only what is asked for is filled, as long as it lasts.  With
        ``finds_gates``, a program is a gate too where its contents say so.
        """
        self._profiled = profiled
        self._recording = recording
        """Until it has ended."""
        self._finds_gates = finds_gates
        files.sort(key=lambda file: file.offset)
        self._image = image
        self._counts = image.chunks.counts
        self._counters = self._counts.counters
        self._journal = journal
        self._files = files
        self._places = {file.fd: at for at, file in enumerate(files)}
        self._freezer = freezer
        self._break_time_s = break_time_s
        self._failed = failed
        self._lock = allocate_lock()
        self._queue: SimpleQueue[File] = SimpleQueue()
        self._workers = 0
        self._spare = 0
        self._wanted: set[File] = set()
        """Files that somebody waits for."""
        self._left = sum(not file.is_gate for file in files)
        """Files that are not filled, but for gates."""
        self._last_wanted_s = monotonic()
        self._hurry = False
        """All are to be filled, since a gate waits for it."""
        self._stopped_s = 0.0
        self._filled: SimpleQueue[int] = SimpleQueue()
        """Descriptors to be closed."""

    def start(self) -> None:
        """Begin: from now on, all files get filled."""
        start_new_thread(self._close, ())
        start_new_thread(self._complete, ())
        start_new_thread(self._watch, ())
        # One worker there must be; the workload may leave no room for a thread.
        self._workers = self._spare = 1
        start_new_thread(self._work, ())

    def want(self, fd: int) -> None:
        """Fill the file behind ``fd`` now, since somebody waits for it."""
        with self._lock:
            at = self._places.get(fd)
            if at is None:
                return
            file = self._files[at]
            if file.wanted_s:
                return
            file.wanted_s = self._last_wanted_s = monotonic()
            self._wanted.add(file)
            self._counters.waits += 1
            self._counters.waiting += 1
            is_held = file.is_gate and self._left > 0
            self._hurry = self._hurry or is_held
            is_mine = not is_held and not file.begun
            file.begun = file.begun or is_mine
        if is_mine:
            self._enqueue(file)
        if self._recording is not None:
            self._record(self._recording, file, is_last=is_held)

    def _record(self, recording: Recording, file: File, *, is_last: bool) -> None:
        """Note that somebody opens ``file``; nothing after that is noted if it ``is_last``."""
        recording.saw(file.offset, file.size)
        if is_last:
            self._end_recording()

    def _end_recording(self) -> None:
        log("recording ends here: a program starts that waits for all files (BOOTFS_GATES)")
        self._recording = None

    def want_all_lost(self) -> None:
        """Look for files that somebody waits for, after signals were lost for want of room."""
        with self._lock:
            open_files = [file for file in self._files if file.fd in self._places]
        for file in open_files:
            try:
                wanted = is_wanted(file.fd)
            except OSError:
                continue  # closed meanwhile: filled
            if wanted:
                self.want(file.fd)

    def _enqueue(self, file: File) -> None:
        with self._lock:
            self._spare -= 1
            more = self._spare < 0 and self._workers < WORKERS
            if more:
                self._workers += 1
                self._spare += 1
        self._queue.put(file)
        if more:
            try:
                start_new_thread(self._work, ())
            except RuntimeError:
                # The container may have no more threads (--pids-limit): the others do it.
                with self._lock:
                    self._workers -= 1
                    self._spare -= 1

    def _work(self) -> None:
        while True:
            file = self._queue.get()
            if self._try(file):
                self._fill_neighbours(file)
            with self._lock:
                self._spare += 1

    def _try(self, file: File) -> bool:
        """Fill a claimed file; return False when nobody waits for it and it cannot be had now."""
        try:
            self._fill(file)
        except BaseException as error:
            with self._lock:
                if not file.wanted_s and isinstance(error, BootfsError):
                    file.begun = False
                    log(f"filling the rest: {error}")
                    return False
            self._failed(error)
            raise
        return True

    def _fill_neighbours(self, file: File) -> None:
        """Fill files beside one whose bytes are at hand, having come in the same chunks."""
        if self._recording is not None:
            return
        for step in (1, -1):
            at = self._place_of(file)
            for _ in range(NEIGHBOURS):
                at += step
                if not 0 <= at < len(self._files):
                    break
                other = self._files[at]
                if not self._has_here(other):
                    break
                if self._take(other) and not self._try(other):
                    return

    def _place_of(self, file: File) -> int:
        """Return where a file is, or was, among all files."""
        low, high = 0, len(self._files)
        while low < high:
            middle = (low + high) // 2
            if self._files[middle].offset < file.offset:
                low = middle + 1
            else:
                high = middle
        return low

    def _has_here(self, file: File) -> bool:
        chunks = self._image.chunks
        return all(chunks.has_here(c) for c in self._image.chunks_of(file.offset, file.size))

    def _take(self, file: File) -> bool:
        """Claim a file for this thread; return False where another one has it."""
        with self._lock:
            if file.begun or file.is_gate:
                return False
            file.begun = True
            return True

    def _fill(self, file: File) -> None:
        """Write a claimed file's contents, and let in who waits.

        Raises:
            BootfsError: they cannot be had, or not be written; nobody is let in.

        """
        status = os.fstat(file.fd)
        if status.st_nlink and not file.is_written:
            capability = b""
            if file.has_xattrs:
                capability = _capability(file.fd)
            try:
                times = (status.st_atime_ns, status.st_mtime_ns)
                is_gate = self._write(file, times, status.st_mode)
                # Writing takes these away.
                if status.st_mode & 0o6000:
                    set_mode(file.fd, stat.S_IMODE(status.st_mode), status.st_gid)
                if capability:
                    os.setxattr(file.fd, _CAPABILITY, capability)
            except OSError as error:
                name = os.fsdecode(_name_of(file.fd))
                raise BootError(f"cannot fill {name}: {error.strerror}") from None
            file.is_written = True
            if is_gate and self._keep_shut(file):
                return
        # Else its last name is gone: nobody can open it any more.
        self._release(file, status.st_nlink > 0)

    def _write(self, file: File, times: tuple[int, int], mode: int) -> bool:
        """Write a file's contents; once more, where that fails by a fault of ours.

        Returns whether they say that it is a gate.

        Raises:
            BootfsError, OSError: as `write_contents`.

        """
        is_searched = self._finds_gates and bool(mode & 0o111)
        try:
            return self._write_once(file, times, is_searched)
        except (BootfsError, OSError):
            raise
        except Exception as error:
            log(f"filling {os.fsdecode(_name_of(file.fd))} failed: {error!r}; once more")
            return self._write_once(file, times, is_searched)

    def _write_once(self, file: File, times: tuple[int, int], is_searched: bool) -> bool:
        search = Search() if is_searched else None
        saw = None if search is None else search.saw
        write_contents(self._image, file.fd, file.offset, file.size, times, saw)
        return search is not None and search.has_found

    def _keep_shut(self, file: File) -> bool:
        """Let nobody into a file that turned out to be a gate; False where all others are filled.

        Once nothing else is left it is claimed again, as gates are.
        """
        with self._lock:
            if file.is_gate or self._left <= 1:
                return False
            file.is_gate = True
            file.begun = False
            self._left -= 1
            is_wanted = bool(file.wanted_s)
            self._hurry = self._hurry or is_wanted
        if is_wanted and self._recording is not None:
            self._end_recording()
        return True

    def _release(self, file: File, is_filled: bool) -> None:
        with self._lock:
            wanted_s = file.wanted_s
            late = bool(wanted_s) and monotonic() - wanted_s >= self._break_time_s
            if late and not (self._stopped_s and self._stopped_s - wanted_s < self._break_time_s):
                raise BootError(
                    "the container stood still while a file was on its way, and the kernel has let "
                    f"in who waited for it ({os.fsdecode(_name_of(file.fd))}); start it again"
                )
            del self._places[file.fd]
            self._wanted.discard(file)
            self._counters.waiting = len(self._wanted)
            self._counters.answered += 1
            self._counters.filled += file.size
            self._left -= not file.is_gate
            gates = []
            if not self._left and not file.is_gate:
                # Nothing else is left: who waits at a gate may go in, and all are filled.
                gates = [self._files[at] for at in self._places.values()]
                gates = [gate for gate in gates if not gate.begun]
                for gate in gates:
                    gate.begun = True
        if is_filled:
            self._journal.set_filled(file.row, os.fstat(file.fd).st_ctime_ns)
        self._filled.put(file.fd)
        if wanted_s:
            # The kernel does not say who opens it.
            self._counts.note_wait(wanted_s, (file.offset, min(file.size, READ_SIZE), 0, b""))
        for gate in gates:
            self._enqueue(gate)

    def _close(self) -> None:
        """Let in who waits for files that are filled: a thread.

        The kernel wakes who waits a moment before the file stops being open for writing,
        and an execve that gets there first fails with ETXTBSY.  It does so far more rarely when
        the thread that closes stays on one processor (docs/decisions/0011-lease.md).
        """
        try:
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        except OSError as error:
            log(f"programs may find themselves busy as they are filled: {error.strerror}")
        try:
            while True:
                os.close(self._filled.get())
        except BaseException as error:
            self._failed(error)
            raise

    def _complete(self) -> None:
        """Fill all files: a thread.

        What a profile names, then all in the order of the image, while nobody waits for one.
        """
        if self._profiled is not None:
            for file in self._profiled.iter_files(self._files):
                if self._take(file) and not self._try(file):
                    break
            # As if it had been waited for: it is what a start uses.
            self._last_wanted_s = max(self._last_wanted_s, monotonic())
        at = 0
        asked = 0
        while at < len(self._files):
            self._wait_for_quiet()
            file = self._files[at]
            if not self._take(file):
                at += 1
                continue
            asked = self._ask_ahead(at, asked)
            if self._try(file):
                at += 1
            else:
                sleep(QUIET_S)

    def _ask_ahead(self, at: int, asked: int) -> int:
        """Begin to fetch what is filled next; return up to where it has been asked for."""
        start = self._files[at].offset
        end = start + self._image.chunks.memory_limit // AHEAD_SHARE
        if asked > end - PIECE:
            return asked
        begin = max(start, asked)
        wanted: list[int] = []
        while at < len(self._files) and self._files[at].offset < end:
            file = self._files[at]
            until = min(file.offset + file.size, end)
            if not file.begun and until > begin:
                first = max(file.offset, begin)
                wanted += self._image.chunks_of(first, until - first)
            at += 1
        self._image.chunks.want(wanted)
        return end

    def _wait_for_quiet(self) -> None:
        while not self._hurry:
            with self._lock:
                quiet = not self._wanted and monotonic() - self._last_wanted_s >= QUIET_S
            if self._recording is not None and self._recording.is_over():
                self._recording = None
            if quiet and self._recording is None:
                return
            sleep(POLL_S)

    def _watch(self) -> None:
        """Stop everybody before the kernel lets in who waits, until they may go in: a thread."""
        limit_s = max(self._break_time_s - STOP_MARGIN_S, self._break_time_s / 2)
        while True:
            sleep(POLL_S)
            with self._lock:
                now_s = monotonic()
                ages = [now_s - file.wanted_s for file in self._wanted]
                is_late = bool(ages) and max(ages) >= limit_s
                done = not self._places
            if is_late:
                self._freezer.stop()
                if not self._stopped_s:
                    log("a file takes long: the container's processes wait until it is there")
                    self._stopped_s = monotonic()
            elif self._stopped_s:
                self._freezer.go_on()
                self._stopped_s = 0.0
            if done:
                if self._profiled is not None:
                    self._profiled.close()
                return


_CAPABILITY = b"security.capability"


def _capability(fd: int) -> bytes:
    try:
        return os.getxattr(fd, _CAPABILITY)
    except OSError as error:
        if error.errno != ENODATA:
            raise
        return b""


def _name_of(fd: int) -> bytes:
    """Return the name that an open file has now, for messages."""
    try:
        return os.readlink(b"/proc/self/fd/%d" % fd)
    except OSError:
        return b"a file"


def write_contents(
    image: ImageReader,
    fd: int,
    offset: int,
    size: int,
    times: tuple[int, int] | None = None,
    saw: Callable[[bytes | memoryview], None] | None = None,
) -> None:
    """Write ``size`` bytes from ``offset`` of image.erofs to a new file of that size.

    With ``times``, access and modification in ns, the file has them again after each piece:
    others can see it, and a piece may be long in coming.  ``saw`` is told the bytes in order.

    Raises:
        BootfsError: they cannot be had; OSError: they cannot be written.

    """
    for at in range(0, size, PIECE):
        count = min(PIECE, size - at)
        if at + count < size:
            ahead = min(image.chunks.memory_limit // AHEAD_SHARE, size - at - count)
            image.chunks.want(image.chunks_of(offset + at + count, ahead))
        place = at
        for piece in image.read(offset + at, count):
            # Holes are there already.
            if not isinstance(piece, memoryview) or piece.obj is not ZEROS:
                _write_all(fd, piece, place)
            if saw is not None:
                saw(piece)
            place += len(piece)
        if times is not None:
            os.utime(fd, ns=times)
        if place != at + count:
            raise BootError(f"image.erofs ends before {offset + at + count}")


def _write_all(fd: int, data: bytes | memoryview, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, offset)
        view = view[count:]
        offset += count
