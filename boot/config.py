"""What this boot is told: by the boot config in the image, and by the environment."""

from __future__ import annotations

import os

from store.errors import BootError
from store.format.bootconfig import BootConfig, parse_boot_config

HOME = "/.bootfs"
IMAGE = f"{HOME}/image"
RUNTIME = f"{HOME}/runtime"
CACHE = f"{HOME}/cache"
WRITABLE = f"{HOME}/rw"
MOUNTS = f"{HOME}/mnt"
AUTHORITIES = f"{RUNTIME}/ca-certificates.crt"
"""Whom HTTPS trusts."""
AUTH = f"{HOME}/auth"
"""Where the user mounts files with credentials."""

MODES = ("auto", "erofs", "fuse", "lease", "eager")
READ_LIMIT_S = 30.0
"""What one read may take, retries included, before it is EIO (BOOTFS_READ_LIMIT)."""
FILL_LIMIT_S = 120.0
"""The same where a read that fails is the container's end: modes ``lease`` and ``eager``."""
RECORD_S = 60.0
"""What a start is taken to last that is recorded (BOOTFS_RECORD=1)."""
NO_PROFILE = "off"
WHOLE = ("auto", "on", "off")
NAME_LIMIT = 64
"""Of store/format/profile.py, which is imported only where there are profiles."""
CACHE_LEAST = 4 << 20
"""Bytes below which a cache would only be written, never read (BOOTFS_CACHE_LIMIT)."""
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
GATES = (
    *("chattr", "darkhttpd", "file", "grep", "gzip", "lftp", "lighttpd", "lsattr", "nginx"),
    *("openresty", "ruby", "smbd", "squid", "tar", "truncate", "vsftpd", "xz"),
)
"""Programs that open files with O_NONBLOCK and take EAGAIN for an answer (BOOTFS_GATES).

Where files are filled when they are opened, these are let in when all are filled.
"""


class Settings:
    """Decided values, for init and daemon."""

    __slots__ = (
        "blob_store",
        "cache",
        "cache_limit",
        "chunk_index",
        "complete",
        "entrypoint",
        "fill_limit_s",
        "finds_gates",
        "gates",
        "keeps_admin",
        "mode",
        "profile",
        "read_limit_s",
        "record_s",
        "record_to",
        "sends_recording",
        "whole",
    )

    def __init__(self, config: BootConfig, environment: dict[bytes, bytes]) -> None:
        """Decide.

        Raises:
            BootError: a variable has a value that is none, or the store is not named.

        """
        self.chunk_index = config.chunk_index
        self.cache = CACHE
        self.cache_limit = _cache_limit(os.fsdecode(environment.get(b"BOOTFS_CACHE_LIMIT", b"")))
        """Bytes; 0 is without limit."""
        self.complete = _rate(os.fsdecode(environment.get(b"BOOTFS_COMPLETE", b"")))
        """Bytes/s that the rest of the image is fetched at, 0 without limit; None: it is not."""
        self.mode = os.fsdecode(environment.get(b"BOOTFS_MODE", b"auto")) or "auto"
        if self.mode not in MODES:
            raise BootError(f"BOOTFS_MODE is {self.mode!r}; give one of {', '.join(MODES)}")
        self.blob_store = os.fsdecode(environment.get(b"BLOB_STORE", b"") or config.blob_store)
        if not self.blob_store:
            raise BootError(
                "no store: give -e BLOB_STORE=URL to docker run, "
                "or convert the image with --blob-store URL"
            )
        limit = os.fsdecode(environment.get(b"BOOTFS_READ_LIMIT", b""))
        try:
            self.read_limit_s = float(limit or READ_LIMIT_S)
        except ValueError:
            self.read_limit_s = -1.0
        if not 0 < self.read_limit_s < 86400:
            raise BootError(f"BOOTFS_READ_LIMIT is {limit!r}; give seconds, for instance 30")
        self.profile = os.fsdecode(environment.get(b"BOOTFS_PROFILE", b""))
        """A profile's name; empty for the one of the command, ``off`` for none."""
        if len(os.fsencode(self.profile)) > NAME_LIMIT:
            raise BootError(
                f"BOOTFS_PROFILE begins with {self.profile[:20]!r} and is longer than the "
                f"{NAME_LIMIT} bytes of a profile's name"
            )
        record = os.fsdecode(environment.get(b"BOOTFS_RECORD", b""))
        try:
            self.record_s = float(record or 0)
        except ValueError:
            self.record_s = -1.0
        if not 0 <= self.record_s < 86400:
            raise BootError(f"BOOTFS_RECORD is {record!r}; give 1, or seconds, for instance 30")
        if self.record_s == 1.0:
            self.record_s = RECORD_S
        record_to = os.fsdecode(environment.get(b"BOOTFS_RECORD_TO", b"")) or "store"
        if record_to not in ("store", "cache") and "://" not in record_to and record_to[0] != "/":
            raise BootError(
                f"BOOTFS_RECORD_TO is {record_to!r}; give store, cache, or the URL of a store"
            )
        self.record_to = {"store": self.blob_store, "cache": ""}.get(record_to, record_to)
        """URL of the store that a trace is sent to, or of several mirrors; empty for none."""
        self.sends_recording = bool(self.record_s and self.record_to)
        self.whole = os.fsdecode(environment.get(b"BOOTFS_WHOLE", b"")) or "auto"
        """Whether a cold start has all of the image fetched: one of `WHOLE`."""
        if self.whole not in WHOLE:
            raise BootError(f"BOOTFS_WHOLE is {self.whole!r}; give one of {', '.join(WHOLE)}")
        self.fill_limit_s = self.read_limit_s if limit else FILL_LIMIT_S
        gates = environment.get(b"BOOTFS_GATES")
        self.finds_gates = gates is None
        """Whether programs of other names are looked at too (boot/lease/gates.py)."""
        self.gates = tuple(os.fsencode(g) for g in GATES) if gates is None else tuple(gates.split())
        kept = environment.get(b"BOOTFS_KEEP_CAPS", b"")
        if kept not in (b"", b"SYS_ADMIN"):
            raise BootError(
                f"BOOTFS_KEEP_CAPS is {os.fsdecode(kept)!r}; only SYS_ADMIN can be kept"
            )
        self.keeps_admin = bool(kept)
        entrypoint = environment.get(b"BOOTFS_ENTRYPOINT")
        self.entrypoint = config.entrypoint
        """What comes before the arguments; one word, or none, where the user gives another."""
        if entrypoint is not None:
            self.entrypoint = [entrypoint] if entrypoint else []


def _rate(text: str) -> int | None:
    """Return the bytes/s that a text like 2M says, 0 for ``on``; None where it says ``off``.

    Raises:
        BootError: it says none.

    """
    if text in ("", "off"):
        return None
    if text == "on":
        return 0
    rate = _bytes(text)
    if rate <= 0:
        raise BootError(
            f"BOOTFS_COMPLETE is {text!r}; give on, or bytes a second, for instance 500K or 20M"
        )
    return rate


def _bytes(text: str) -> int:
    """Return the bytes that a text like 500M or 20G says; 0 for what says none."""
    number, unit = (text, 1) if text[-1].isdigit() else (text[:-1], UNITS.get(text[-1], 0))
    return int(number) * unit if number.isascii() and number.isdigit() else 0


def _cache_limit(text: str) -> int:
    """Return the bytes that a text like 500M or 20G says; 0 for none.

    Raises:
        BootError: it says none, or fewer than `CACHE_LEAST`.

    """
    if not text:
        return 0
    limit = _bytes(text)
    if limit < CACHE_LEAST:
        raise BootError(
            f"BOOTFS_CACHE_LIMIT is {text!r}; give bytes, for instance 500M or 20G, 4M or more"
        )
    return limit


def read_boot_config() -> BootConfig:
    """Return the boot config of this boot image.

    Raises:
        BootError: there is none; FormatError: it is damaged.

    """
    path = f"{IMAGE}/config"
    try:
        with open(path, "rb", buffering=0) as file:
            data = file.readall() or b""
    except OSError as error:
        raise BootError(f"{path}: {error.strerror}; this is not a boot image") from None
    return parse_boot_config(data)


def workload_environment(environment: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """Return the environment without what was meant for bootfs alone."""
    return {
        name: value
        for name, value in environment.items()
        if name != b"BLOB_STORE" and not name.startswith(b"BOOTFS_")
    }
