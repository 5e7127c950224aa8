"""What this container counts of itself, written to a file for whoever asks from outside.

Who asks reads the directory `DIRECTORY` by the engine (`docker cp`).  The kernel tells PID 1
of that by a signal (fcntl(2), F_NOTIFY), and PID 1 writes what is in the memory that its
children count in.  So nothing is written while nobody asks, but once at the end, and nobody
waits for it: a mapped file would have readers wait for the disk, and end by SIGBUS where it
is full.
"""

from __future__ import annotations

import os
from errno import EEXIST, ENOENT, ENOSPC, EROFS
from mmap import mmap
from time import monotonic, monotonic_ns, time_ns

from boot.log import log
from store.format.status import (
    BEGUN,
    COUNTS,
    HEADER,
    MAGIC,
    MEMORY,
    MODES,
    NUMBER,
    READ,
    READ_LIMIT,
    READS_AT,
    REQUEST,
    REQUEST_LIMIT,
    REQUESTS_AT,
    STEPS_AT,
    VERSION,
    number_at,
)

DIRECTORY = "/.bootfs/rw/status"
"""In `boot.config.WRITABLE`; that module is not imported here, before the daemon is forked."""
ASKED = 63
"""The signal by which the kernel tells of a reader; SIGRTMAX is that of leases."""
PAUSE_S = 0.05
"""Who reads a file reads more than once: one answer for all of that."""
_F_SETSIG = 10
_F_NOTIFY = 1026
_DN_ACCESS, _DN_MULTISHOT = 1, 1 << 31
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


class Status:
    """The memory in which a container counts, and its file."""

    __slots__ = ("_answered_s", "_chunk_index", "_directory", "_mode", "_name", "memory")

    def __init__(self) -> None:
        """Make the memory, to be shared with all processes forked from now on."""
        self.memory = mmap(-1, MEMORY)
        self._directory = -1
        self._answered_s = 0.0
        self._mode = 0
        self._chunk_index = b""
        self._name = ""
        self.step(BEGUN)

    def step(self, step: int) -> None:
        """Note that a step of the start, of `store.format.status.STEPS`, is made now."""
        NUMBER.pack_into(self.memory, STEPS_AT + step * NUMBER.size, monotonic_ns())

    def number(self, name: str) -> int:
        """Return one of the numbers that are counted."""
        value: int = NUMBER.unpack_from(self.memory, number_at(name))[0]
        return value

    def count_daemon(self) -> None:
        """Note that a process is started which answers reads."""
        NUMBER.pack_into(self.memory, number_at("daemons"), self.number("daemons") + 1)

    def watch(self, mode: str, chunk_index: bytes, name: str) -> None:
        """Have `ASKED` sent to this process from now on when somebody looks into `DIRECTORY`.

        ``name`` is that of the container, and of its file.
        """
        import fcntl

        self._mode = MODES.index(mode)
        self._chunk_index = chunk_index
        self._name = name
        # What was tried before and did not work is none.
        self.count_daemon()
        try:
            os.mkdir(DIRECTORY, 0o700)
        except OSError as error:
            if error.errno != EEXIST:
                return  # a volume that cannot be written: `bootfs status` says that there is none
        try:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
            self._directory = os.open(DIRECTORY, flags)
            fcntl.fcntl(self._directory, _F_SETSIG, ASKED)
            fcntl.fcntl(self._directory, _F_NOTIFY, _DN_ACCESS | _DN_MULTISHOT)
        except OSError:
            # A kernel without, or with too many of these: the file is written at the end alone.
            return

    def answer(self) -> None:
        """Write the file, unless that was done just now."""
        if monotonic() - self._answered_s >= PAUSE_S:
            self.write()
            self._answered_s = monotonic()

    def write(self, has_ended: bool = False) -> None:
        """Write the file in place of what was there; what keeps it from that is logged."""
        if self._directory < 0:
            return
        try:
            self._write(self._pieces(has_ended))
        except OSError as error:
            if error.errno == EROFS:
                return  # as where the directory cannot be made: `--volumes-from NAME:ro`
            log(f"status: {error.strerror}; the file in {DIRECTORY} is not written")

    def _pieces(self, has_ended: bool) -> list[bytes]:
        memory = self.memory
        requests = min(self.number("listed_requests"), REQUEST_LIMIT)
        reads = min(self.number("listed_reads"), READ_LIMIT)
        counts = bytearray(memory[: COUNTS.size])
        # Others count on meanwhile: the numbers are to be of the lists that follow.
        NUMBER.pack_into(counts, number_at("listed_requests"), requests)
        NUMBER.pack_into(counts, number_at("listed_reads"), reads)
        now = (time_ns(), monotonic_ns())
        return [
            HEADER.pack(MAGIC, VERSION, self._mode, has_ended, *now, self._chunk_index),
            bytes(counts),
            memory[REQUESTS_AT : REQUESTS_AT + requests * REQUEST.size],
            memory[READS_AT : READS_AT + reads * READ.size],
        ]

    def _write(self, pieces: list[bytes]) -> None:
        new = f"{self._name}.new"
        directory = self._directory
        try:
            # Whatever it is, and wherever it leads: in mode ``lease`` the workload sees it.
            os.unlink(new, dir_fd=directory)
        except OSError as error:
            if error.errno != ENOENT:
                raise
        fd = os.open(new, _NEW, 0o600, dir_fd=directory)
        try:
            if os.writev(fd, pieces) != sum(map(len, pieces)):
                raise OSError(ENOSPC, os.strerror(ENOSPC))
        finally:
            os.close(fd)
        os.rename(new, self._name, src_dir_fd=directory, dst_dir_fd=directory)
