"""Temporary files, whose disk may be full."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EDQUOT, EFBIG, ENOSPC
from typing import BinaryIO

from store.errors import StorageFull


@contextmanager
def temporary_file() -> Iterator[BinaryIO]:
    """Give a file that nobody else sees, and that is gone afterwards.

    Raises:
        StorageFull: its disk is full.

    """
    with tempfile.TemporaryFile() as file:
        try:
            yield file
        except OSError as error:
            if error.errno not in (ENOSPC, EDQUOT, EFBIG):
                raise
            raise StorageFull(
                f"{tempfile.gettempdir()}: {error.strerror}; make room there, or name another "
                "directory by TMPDIR"
            ) from None
