"""A store in a bucket of S3, or of a server that speaks it (docs/decisions/0017-s3.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

from store.errors import AccessDenied, BootfsError, PackNotFound, SizeMismatch, UsageError
from store.format.names import STORE_MARK, STORE_MARK_TEXT
from store.format.s3place import parse_s3_url
from store.read.retry import until_done
from store.write.backends import s3uploads
from store.write.backends.s3locks import LOCKS, S3Locks
from store.write.backends.s3objects import S3Objects
from store.write.backends.s3uploads import MARK, PART, Upload
from store.write.contact import Contact

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

READ_LIMIT_S = 120.0
"""What reading a piece of an object may take, tries after failures included."""


class S3Backend:
    """Objects below a prefix of a bucket.

    One of more than `PART` bytes goes in parts, of which two are in memory at most.
    """

    read_ahead = 1 << 20
    """A request takes the library some 10 ms of computing, wherever the server is."""

    def __init__(self, url: str, log: Callable[[str], None] = lambda _: None) -> None:
        """Say where; nothing is sent yet.

        Raises:
            UsageError: no such URL; AccessDenied: no such profile.

        """
        self.location = url
        self._objects = S3Objects(parse_s3_url(url))
        self._locks = S3Locks(self._objects)
        self._contact = Contact(log)

    def check(self) -> None:
        """Return when a store is there or can be made; see `Backend`.

        Raises:
            NotFound: there is no such bucket.

        """
        self._is_made()

    def create(self) -> None:
        """Make the store; see `Backend`.  The bucket is not made."""
        if not self._is_made():
            self._objects.put(STORE_MARK, STORE_MARK_TEXT)

    def _is_made(self) -> bool:
        """Whether a store is there, and not just nothing.

        Raises:
            UsageError: something else is.

        """
        try:
            # Not its size first: the answer to a HEAD has no reason where it is refused.
            found = self._fetch(STORE_MARK, 0, len(STORE_MARK_TEXT), None, self._objects.hasty)
        except SizeMismatch:
            found = b""
        except PackNotFound:
            if any(not name.startswith(LOCKS) for name, _ in self._objects.listed("")[0]):
                raise UsageError(
                    f"{self.location}: not empty and not a bootfs store; use another prefix"
                ) from None
            return False
        if found != STORE_MARK_TEXT:
            raise UsageError(f"{self.location}: a store of another version; use another prefix")
        return True

    def dial(self) -> None:
        """Do nothing: the first call connects."""

    def close(self) -> None:
        """Close the connections."""
        self._objects.close()

    def fetch(
        self, name: str, offset: int, size: int, arrived: Callable[[memoryview], None] | None = None
    ) -> bytes:
        """Return bytes of an object; see `Source`."""
        return self._fetch(name, offset, size, arrived, self._objects.client)

    def _fetch(
        self,
        name: str,
        offset: int,
        size: int,
        arrived: Callable[[memoryview], None] | None,
        client: S3Client,
    ) -> bytes:
        return until_done(
            lambda _: self._objects.fetch(name, offset, size, arrived, client),
            READ_LIMIT_S,
            self._objects.where(name),
            self._contact,
        )

    def has(self, name: str) -> bool:
        """Whether the object exists."""
        try:
            self._objects.size(name)
        except PackNotFound:
            return False
        return True

    def size(self, name: str) -> int:
        """Return the object's size; see `Backend`."""
        if MARK in name:
            return s3uploads.arrived_size(self._objects, name)
        return self._objects.size(name)

    def iter_names(self, prefix: str) -> Iterator[str]:
        """Yield names below ``prefix``, sorted; what says who holds the store is no object."""
        found, _ = self._objects.listed(prefix)
        yield from sorted(name for name, _ in found if not name.startswith(LOCKS))

    def iter_unfinished(self) -> Iterator[str]:
        """Yield names of multipart uploads; see `Backend`.

        An object that goes in one request is nowhere before it is whole.
        """
        yield from sorted(s3uploads.uploads(self._objects))

    def age_s(self, name: str, now_s: float) -> float:
        """Return how long ago an object was written; see `Backend`.  By whole seconds."""
        if MARK in name:
            written: datetime = s3uploads.begun(self._objects, name)
        else:
            written = self._objects.written(name)
        return now_s - written.timestamp()

    def refresh(self, name: str) -> bool:
        """Make an object young again; see `Backend`.

        Does not wait for a collection: what that takes all the same, the commit misses.
        """
        try:
            self._objects.touch(name)
        except PackNotFound:
            return False
        except AccessDenied as refused:
            # As in a directory: it is there, and stays as old as it is.
            try:
                return self.has(name)
            except AccessDenied:
                raise refused from None
        return True

    def write(self, name: str, pieces: Iterator[bytes]) -> None:
        """Write an object; see `Backend`."""
        if not self.refresh(name):
            self.replace(name, pieces)

    def replace(self, name: str, pieces: Iterator[bytes]) -> None:
        """Write an object over a damaged one; see `Backend`."""
        parts = _parts(pieces)
        first = next(parts, b"")
        if len(first) < PART:
            self._locks.check()
            self._objects.put(name, first)
            return
        upload = Upload(self._objects, name)
        try:
            upload.add(first)
            for part in parts:
                upload.add(part)
            self._locks.check()
            upload.complete()
        except BaseException as failed:
            try:
                upload.abort()
            except BootfsError as error:
                failed.add_note(f"the upload stays until it is collected: {error}")
            raise

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects; see `Backend`."""
        for name in names:
            self._locks.check()
            if MARK in name:
                s3uploads.abort(self._objects, name)
            else:
                self._objects.delete(name)

    @contextmanager
    def hold(self, *, alone: bool) -> Iterator[None]:
        """Hold the store by an object that says so; see `Backend`."""
        with self._locks.hold(alone=alone):
            yield


def _parts(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the same bytes in parts of `PART`; only the last may be smaller, none is empty."""
    pending = bytearray()
    for piece in pieces:
        pending += piece
        while len(pending) >= PART:
            yield bytes(pending[:PART])
            del pending[:PART]
    if pending:
        yield bytes(pending)
