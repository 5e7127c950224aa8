"""How far the kernel reads on by itself: the settings of its block-device-less devices.

Each file system has one, of 128 KiB, in sysfs (class/bdi, Documentation/ABI/testing/
sysfs-class-bdi).  Ours are changed: that of ``image.erofs`` takes longer advice, and that of
EROFS reads on less while a start is to read just what its profile, or an earlier start, tells.
"""

from __future__ import annotations

import os
from _thread import allocate_lock, start_new_thread

from boot.syscalls import CLONE_NEWNET, open_file_system, unshare

ADVICE = 128 << 10
"""VM_READAHEAD_PAGES of linux/mm.h."""
LONG_ADVICE = 1 << 20
"""One request to the daemon."""
SHORT_READ_AHEAD = 16 << 10
"""A start of gcc reads 12.8 MB of stored chunks with it, 12.3 with none, 15.7 with 128 KiB."""


class KernelReads:
    """The settings of one mount of ``image.erofs``, and of the EROFS in it."""

    def __init__(self) -> None:
        self._opened = allocate_lock()
        self._changes = allocate_lock()
        self._sysfs = -1
        self._before: set[str] = set()
        self._shortened: list[tuple[int, int]] = []
        """Descriptors of settings, and what they were."""

    def begin(self) -> None:
        """Begin to open sysfs, beside what the caller does next: it takes a millisecond."""
        self._opened.acquire()
        try:
            start_new_thread(self._open, ())
        except RuntimeError:
            # The container may have no more threads (--pids-limit).
            self._opened.release()

    def _open(self) -> None:
        # The sysfs of the container's network namespace cannot be written where the engine
        # has mounted it read-only, as it does by default: this is one of a new namespace,
        # the thread's, which ends with it.
        try:
            unshare(CLONE_NEWNET)
            self._sysfs = open_file_system(b"sysfs")
            self._before = self._of_erofs()
        except OSError:
            # An engine that hides sysfs, or a user namespace: the kernel reads as it does.
            self.close()
        finally:
            self._opened.release()

    def wait_until_open(self) -> None:
        """Return when it is known what file systems there were before."""
        with self._opened:
            return

    def allow_long_advice(self, device: int) -> int:
        """Have the kernel take longer advice on the mount ``device``; return the bytes it takes.

        ``device`` is its number.  Waits until sysfs is open.

        What it reads for one piece of advice is bounded by the device's read-ahead, and
        each piece costs the daemon the same 0.1 ms.  Files opened before keep their own
        bound, the mount's file among them, until POSIX_FADV_NORMAL.
        """
        self.wait_until_open()
        try:
            setting = self._setting(f"{os.major(device)}:{os.minor(device)}")
            try:
                os.write(setting, b"%d" % (LONG_ADVICE >> 10))
            finally:
                os.close(setting)
        except OSError:
            return ADVICE
        return LONG_ADVICE

    def shorten(self) -> None:
        """Have EROFS read on less in files that are opened from now on, until `restore`.

        Nothing says which of these devices is whose: all are taken that are new.  Those of
        others begin a moment ago like this one, and get back what they had.
        """
        try:
            for name in self._of_erofs() - self._before:
                setting = self._setting(name)
                before = int(os.pread(setting, 32, 0))
                if before <= SHORT_READ_AHEAD >> 10:
                    # By another start at this moment, which gives back what it found.
                    before = ADVICE >> 10
                os.pwrite(setting, b"%d" % (SHORT_READ_AHEAD >> 10), 0)
                with self._changes:
                    self._shortened.append((setting, before))
        except (OSError, ValueError):
            return

    def restore(self) -> None:
        """Have it read on as before."""
        with self._changes:
            changed, self._shortened = self._shortened, []
        for setting, before in changed:
            try:
                os.pwrite(setting, b"%d" % before, 0)
            except OSError:
                continue
            finally:
                os.close(setting)

    def give_back(self) -> None:
        """Put right what a daemon that was killed has left shortened.

        Also that of a start which goes on somewhere at this moment: it reads some more.
        """
        self.wait_until_open()
        try:
            for name in self._before:
                setting = self._setting(name)
                try:
                    if int(os.pread(setting, 32, 0)) == SHORT_READ_AHEAD >> 10:
                        os.pwrite(setting, b"%d" % (ADVICE >> 10), 0)
                finally:
                    os.close(setting)
        except (OSError, ValueError):
            return
        finally:
            self.close()

    def close(self) -> None:
        """Let sysfs go."""
        sysfs, self._sysfs = self._sysfs, -1
        if sysfs >= 0:
            os.close(sysfs)

    def _of_erofs(self) -> set[str]:
        if self._sysfs < 0:
            return set()
        directory = os.open(
            "class/bdi", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._sysfs
        )
        try:
            return {name for name in os.listdir(directory) if name.startswith("erofs-")}
        finally:
            os.close(directory)

    def _setting(self, name: str) -> int:
        if self._sysfs < 0:
            raise FileNotFoundError
        path = f"class/bdi/{name}/read_ahead_kb"
        return os.open(path, os.O_RDWR | os.O_CLOEXEC, dir_fd=self._sysfs)
