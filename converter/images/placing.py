"""Make files appear whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from converter.spool import os_errors_at, translate_os_error
from store.errors import UsageError


def temporary_name(path: Path) -> Path:
    """Return a hidden name beside ``path`` that nothing has."""
    # Without the name itself, which may be as long as names can be.
    return path.with_name(f".bootfs-{secrets.token_hex(6)}.tmp")


def write_file(path: Path, pieces: Iterable[bytes]) -> None:
    """Make ``path`` hold ``pieces``, in place of what it held, once all are on disk.

    If anything fails, ``pieces`` included, ``path`` is as before and nothing else remains.

    Raises:
        NotFound: the directory does not exist.
        AccessDenied: it may not be written to.
        StorageFull: the disk is full.
        UsageError: no file can have such a path.

    """
    temporary = temporary_name(path)
    try:
        # Opened so, and not by tempfile, the file's mode follows the user's umask.
        with temporary.open("xb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        # Where the file could not be made it cannot be removed either.
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise translate_os_error(error, path, "cannot be written") from error
        raise


def refuse_existing_file(path: Path, what: str) -> None:
    """Check that an archive may be written to ``path``: nothing or an empty file is there.

    Raises:
        UsageError: something is there that would be lost, or no file can have such a path.
        AccessDenied: its directory may not be looked into.

    """
    with os_errors_at(path, "cannot be written"):
        if path.is_dir():
            raise UsageError(f"{what}: {path} is a directory; name a file")
        if path.exists() and path.stat().st_size > 0:
            raise UsageError(f"{what}: {path} exists already; remove it or choose another name")
