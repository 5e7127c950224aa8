"""A trace of what this container reads, for profiles of the image (docs/profiles.md).

Imported only where BOOTFS_RECORD is set.
"""

from __future__ import annotations

import os
from _queue import Empty, SimpleQueue
from _thread import allocate_lock, start_new_thread
from time import monotonic, time

from boot.config import AUTH, AUTHORITIES
from boot.log import log
from store.errors import BootfsError
from store.format.chunkindex import BLOCK
from store.format.trace import ENTRY, ENTRY_LIMIT, LIMIT, encode_trace_head
from store.format.tracenames import FILE_PREFIX, trace_file_name, trace_name

KEPT = 32
"""Traces of an image that a cache keeps: the newest, the one that is begun among them."""
SEND_LIMIT_S = 60.0
"""So long is it tried to send a trace to the store, in the background."""
LAST_LIMIT_S = 1.5
"""The same when the workload has ended: PID 1 waits a little longer."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from boot.config import Settings
    from boot.mounts import Mount

    Send = Callable[[str, bytes, float], str]
    """Sends an object of a name, in so many seconds; returns which store took it."""

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
AGAIN = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW


class Recording:
    """Writes each read as it happens; may be used by many threads."""

    def __init__(
        self,
        path: str,
        image: bytes,
        command: list[bytes],
        limit_s: float,
        log: Callable[[str], None],
    ) -> None:
        """Begin a trace in the directory ``path`` of a cache, of ``limit_s`` at most.

        Raises:
            OSError: it cannot be written.

        """
        self._lock = allocate_lock()
        self._log = log
        self._limit_s = limit_s
        self._begun_s = 0.0
        self._left = ENTRY_LIMIT
        # By itself: who made the path may close it, and this process may get another root.
        self._directory = os.open(path, DIRECTORY)
        begun_s = int(time())
        self._file_name = trace_file_name(image, begun_s, os.urandom(8))
        self._name = trace_name(image, self._file_name)
        self._ends: SimpleQueue[bool] = SimpleQueue()
        """What `end` was told."""
        self._done = allocate_lock()
        """Held while a thread has still to send what is recorded."""
        try:
            self._fd = os.open(self._file_name, NEW, 0o600, dir_fd=self._directory)
            try:
                os.write(self._fd, encode_trace_head(image, command, begun_s))
            except OSError:
                self._close()
                os.unlink(self._file_name, dir_fd=self._directory)
                raise
        except OSError:
            os.close(self._directory)
            raise

    def saw(self, offset: int, size: int) -> None:
        """Note a read of ``image.erofs``, while that is wanted."""
        with self._lock:
            if self._fd < 0:
                return
            now = monotonic()
            self._begun_s = self._begun_s or now
            passed_s = now - self._begun_s
            if passed_s > self._limit_s or not self._left:
                self._close()
                return
            self._left -= 1
            first = offset // BLOCK
            pages = -(-(offset + size) // BLOCK) - first
            try:
                # One write appends whole: who reads meanwhile sees no half entry.
                os.write(self._fd, ENTRY.pack(int(passed_s * 1000), first, pages))
            except OSError as error:
                self._log(
                    f"recording ends here: {error.strerror}; what is written of it can be used"
                )
                self._close()

    def is_over(self) -> bool:
        """Whether nothing more is noted; where nothing was read at all, it is not."""
        with self._lock:
            is_late = bool(self._begun_s) and monotonic() - self._begun_s > self._limit_s
            if is_late and self._fd >= 0:
                self._close()
            return self._fd < 0

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        os.close(fd)

    def begin(self, send: Send | None, is_kept: Callable[[], bool]) -> None:
        """Have old traces removed, and this one sent when it ends, by a thread of its own.

        Without ``send`` it stays in the cache.  ``is_kept`` says whether what is there
        outlives the container.
        """
        self._done.acquire()
        try:
            start_new_thread(self._run, (send, is_kept))
        except RuntimeError:
            self._done.release()
            self._log(
                "no thread to send the trace by: it stays in the cache, and so do old ones; "
                "bootfs profile add IMAGE --from CONTAINER takes it from there, or give the "
                "container a larger --pids-limit"
            )

    def end(self, *, exits: bool) -> None:
        """End the recording; with ``exits`` end this process too, when the trace is sent.

        For a signal handler: it takes no lock that `saw` may hold.
        """
        if exits and not self._done.locked():
            os._exit(0)
        self._ends.put(exits)

    def wait_until_sent(self) -> None:
        """Return when the trace is sent, or stays where it is; `end` has been called."""
        with self._done:
            return

    def _run(self, send: Send | None, is_kept: Callable[[], bool]) -> None:
        exits = False
        limit_s = LAST_LIMIT_S
        try:
            self._remove_old()
        except OSError as error:
            self._log(f"old traces stay in the cache: {error.strerror}")
        if send is None:
            self._done.release()
            return
        try:
            try:
                exits = self._ends.get(timeout=self._limit_s)
            except Empty:
                limit_s = SEND_LIMIT_S
            with self._lock:
                if self._fd >= 0:
                    self._close()
            self._send(send, is_kept, limit_s)
        except Exception as error:
            # A fault of ours: the workload goes on, and so does whoever waits for the end.
            self._log(f"the trace is not sent: {error!r}; it stays in the cache")
        self._done.release()
        # While it was sent `end` may have been called by one that saw it locked.
        while not exits:
            exits = self._ends.get()
        os._exit(0)

    def _send(self, send: Send, is_kept: Callable[[], bool], limit_s: float) -> None:
        fd = os.open(self._file_name, AGAIN, dir_fd=self._directory)
        try:
            trace = os.pread(fd, LIMIT, 0)
        finally:
            os.close(fd)
        try:
            taker = send(self._name, trace, limit_s)
        except BootfsError as error:
            kept = "the cache volume" if is_kept() else "the container, and goes with it"
            self._log(
                f"the trace is not sent: {error}; it stays in {kept}: "
                "bootfs profile add IMAGE --from CONTAINER takes it from there"
            )
            return
        os.unlink(self._file_name, dir_fd=self._directory)
        self._log(
            f"the trace is in {taker}: {self._name}; bootfs profile add IMAGE --from-store takes it"
        )

    def _remove_old(self) -> None:
        """Remove the oldest traces of the image, whoever recorded them, beyond `KEPT`."""
        found: list[tuple[float, str]] = []
        for name in os.listdir(self._directory):
            if name.startswith(FILE_PREFIX):
                try:
                    status = os.stat(name, dir_fd=self._directory, follow_symlinks=False)
                except FileNotFoundError:
                    continue  # others remove some too
                found.append((status.st_mtime, name))
        found.sort()
        for _, name in found[: max(len(found) - KEPT, 0)]:
            try:
                os.unlink(name, dir_fd=self._directory)
            except (FileNotFoundError, IsADirectoryError):
                continue


def begin_recording(
    path: str, settings: Settings, command: list[bytes], mounts: list[Mount] | None = None
) -> Recording:
    """Begin a trace in the directory ``path`` of a cache, and have it sent when it ends.

    ``mounts`` are the container's, where they cannot be read later.

    Raises:
        OSError: it cannot be written.

    """
    image = settings.chunk_index
    recording = Recording(path, image, command, settings.record_s, log)

    def send(name: str, trace: bytes, limit_s: float) -> str:
        from boot.sending import send_object

        return send_object(settings.record_to, name, trace, limit_s, AUTHORITIES, AUTH)

    def is_kept() -> bool:
        from boot.mounts import read_mounts
        from boot.root import is_kept

        return is_kept(settings.cache, mounts or read_mounts(), image.hex())

    recording.begin(send if settings.record_to else None, is_kept)
    return recording
