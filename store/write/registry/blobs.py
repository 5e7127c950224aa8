"""The verbs of blobs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from time import sleep

from store.errors import (
    DigestMismatch,
    NotFound,
    RemoteError,
    RemoteProtocolError,
    SizeMismatch,
)
from store.write.registry.patience import Patience
from store.write.registry.uploads import CHUNK, Content, Upload, mount
from store.write.registry.verbs import Verbs


class Blobs(Verbs):
    """The blobs of a repository, by digest."""

    def blob_size(self, digest: str) -> int | None:
        """Return the size of a blob in bytes; None if the repository does not have it.

        Raises:
            AccessDenied, RemoteError: as they say.

        """
        where = self._named(digest)
        try:
            answer = self._ask("HEAD", f"blobs/{digest}", where=where)
        except NotFound:
            return None
        size = answer.headers.get("content-length", "")
        if not size.isdigit():
            raise RemoteProtocolError(f"{where}: the registry does not say its size")
        return int(size)

    def fetch_range(self, digest: str, offset: int, size: int) -> bytes:
        """Return exactly ``size`` bytes of a blob from ``offset``, not verified.

        Raises:
            NotFound: the repository does not have it.
            SizeMismatch: it ends before that.
            RemoteProtocolError: the registry gives no ranges.
            AccessDenied, RemoteError: as they say.

        """
        where = self._named(digest)

        def attempt() -> bytes:
            found = bytearray()
            for piece in self._iter_from(digest, offset, offset + size, where):
                found += piece
            if len(found) != size:
                raise SizeMismatch(where, offset + size, offset + len(found))
            return bytes(found)

        return self._session.again(attempt, where)

    def iter_blob(
        self, digest: str, size: int, pause: Callable[[float], object] = sleep
    ) -> Iterator[bytes]:
        """Yield a whole blob of ``size`` bytes in pieces; go on where it was cut off.

        ``pause`` waits for seconds before another try, and may raise instead.
        Only who takes all of them knows that they are right.

        Raises:
            NotFound: the repository does not have it.
            SizeMismatch, DigestMismatch: at the end: it is another one.
            AccessDenied, RemoteError: as they say.

        """
        where = self._named(digest)
        actual = hashlib.sha256()
        at = 0
        patience = Patience(self._session.limit_s, where, pause)
        while at < size:
            before = at
            try:
                for piece in self._iter_from(digest, at, size, where, may_skip=True):
                    at += len(piece)
                    actual.update(piece)
                    patience.got_on()
                    yield piece
                if at < size:
                    raise SizeMismatch(where, size, at)
            except RemoteError as error:
                if at == before or not error.retryable:
                    patience.wait_after(error)
        found = f"sha256:{actual.hexdigest()}"
        if found != digest:
            raise DigestMismatch(where, digest, found)

    def push_blob(
        self, digest: str, content: Content, mount_from: str = "", chunk: int = CHUNK
    ) -> bool:
        """Put a blob there unless it is; return whether its bytes were sent.

        A repository of the same registry, ``mount_from``, is asked for it first.

        Raises:
            DigestMismatch, SizeMismatch: the content is not that of the digest.
            AccessDenied, StorageFull, RemoteError: as they say.

        """
        if self.blob_size(digest) is not None:
            return False
        return Upload(self._session, digest, content, chunk).run(mount_from)

    def mount_blob(self, digest: str, repository: str) -> bool:
        """Have the registry take a blob over from another repository; return whether it did.

        It does not where the other lacks it, or may not be read.

        Raises:
            RemoteError: as it says.

        """
        return mount(self._session, digest, repository)

    def remove_blob(self, digest: str) -> bool:
        """Remove a blob from the repository; return whether it was there.

        Raises:
            AccessDenied: it may not be removed, or the registry does not remove.
            RemoteError: as it says.

        """
        return self._remove(f"blobs/{digest}", self._named(digest))

    def _iter_from(
        self, digest: str, start: int, end: int, where: str, *, may_skip: bool = False
    ) -> Iterator[bytes]:
        """Yield a blob's bytes from ``start`` up to ``end``, by one try; fewer where it ends.

        With ``may_skip`` also of a registry that gives no ranges.
        """
        headers = {"Range": f"bytes={start}-{end - 1}"} if end > start else {}
        url = f"blobs/{digest}"
        with self._session.open("GET", url, self._reading, headers=headers, where=where) as answer:
            skip = 0
            if answer.status_code == 206:
                stated = answer.headers.get("content-range", "")
                if not stated.startswith(f"bytes {start}-"):
                    raise RemoteProtocolError(f"{where}: asked from byte {start}, got {stated!r}")
            elif start and not may_skip:
                raise RemoteProtocolError(
                    f"{where}: the registry gives no ranges; use one that does"
                )
            else:
                skip = start
            at = start - skip
            # As they come: who has to wait for a whole piece cannot be ended meanwhile.
            for piece in answer.iter_raw():
                wanted = piece[max(0, start - at) : end - at]
                at += len(piece)
                if wanted:
                    yield wanted
                if at >= end:
                    break
