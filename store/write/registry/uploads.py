"""Put a blob into a repository: in pieces, resumed after a cut, visible when it is whole.

OCI distribution specification, "Pushing a blob in chunks": POST opens an upload, PATCH
adds to it, PUT ends it and states the digest.  Until then the blob does not exist.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO, Protocol
from urllib.parse import quote, urljoin

from store.errors import (
    AccessDenied,
    BootfsError,
    DigestMismatch,
    NotFound,
    RemoteError,
    RemoteProtocolError,
    SizeMismatch,
)
from store.write.registry.answers import AskedTooOften, Refused
from store.write.registry.patience import Patience
from store.write.registry.session import Answer, Body, Session

CHUNK = 64 << 20
"""Bytes of one PATCH: a pack goes whole, as from docker, and what proxies limit is larger."""
_PIECE = 1 << 20
_CREATED = 201
_RANGE = re.compile(r"(?:bytes=)?0-(\d+)\Z")


class Content(Protocol):
    """Bytes that can be read at any place."""

    @property
    def size(self) -> int:
        """How many there are."""

    def pread(self, offset: int, size: int) -> bytes:
        """Return exactly ``size`` bytes from ``offset``."""


class Held:
    """Content that is in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.size = len(data)

    def pread(self, offset: int, size: int) -> bytes:
        """Return exactly ``size`` bytes from ``offset``."""
        return self._data[offset : offset + size]


class Kept:
    """Content that is in a file, which stays the caller's."""

    def __init__(self, file: BinaryIO) -> None:
        file.flush()
        self._fd = file.fileno()
        self.size = os.fstat(self._fd).st_size

    def pread(self, offset: int, size: int) -> bytes:
        """Return exactly ``size`` bytes from ``offset``."""
        return os.pread(self._fd, size, offset)


@dataclass(frozen=True, slots=True)
class _Place:
    """An upload under way: where it goes on, and how much of it the registry has."""

    url: str
    at: int


class Upload:
    """The upload of one blob; use it once."""

    def __init__(self, session: Session, digest: str, content: Content, chunk: int = CHUNK) -> None:
        self._session = session
        self._digest = digest
        self._content = content
        self._chunk = chunk
        self._scopes = session.scopes("pull,push")
        self._where = f"{session.endpoint}@{digest}"
        self._hash = hashlib.sha256()
        self._hashed = 0

    def run(self, mount_from: str = "") -> bool:
        """Put the blob there; return False where it was only mounted from ``mount_from``.

        Whatever fails leaves nothing that can be seen.

        Raises:
            DigestMismatch, SizeMismatch: the content is not that of the digest, or was
                damaged on its way twice.
            AccessDenied, StorageFull, RemoteError: as they say; asked again before that.

        """
        patience = Patience(self._session.limit_s, self._where)
        place = self._start(mount_from)
        furthest = 0
        was_damaged = False
        while place is not None:
            try:
                if place.at < self._content.size:
                    place = self._add(place)
                    if place.at > furthest:
                        furthest = place.at
                        patience.got_on()
                    continue
                self._finish(place)
            except Refused as error:
                # The registry lost the upload, or has other bytes than were sent.
                if was_damaged:
                    self._cancel(place)
                    raise
                was_damaged = True
                self._refuse_if_ours(error)
                self._cancel(place)
                place = self._start()
            except RemoteError as error:
                try:
                    patience.wait_after(error)
                except RemoteError:
                    self._cancel(place)
                    raise
                if not isinstance(error, AskedTooOften):
                    place = self._resume(place)
            except BootfsError:
                self._cancel(place)
                raise
            else:
                return True
        return False

    def _start(self, mount_from: str = "") -> _Place | None:
        """Open an upload; None where the registry mounted the blob instead."""
        try:
            answer = _open(self._session, self._digest, mount_from, self._where)
        except (AccessDenied, NotFound):
            if not mount_from:
                raise
            # The other repository is not for us, or gone.
            answer = _open(self._session, self._digest, "", self._where)
        return None if answer.status == _CREATED else _Place(_location(answer, self._where), 0)

    def _add(self, place: _Place) -> _Place:
        """Send the next chunk."""
        size = min(self._chunk, self._content.size - place.at)
        answer = self._session.ask(
            "PATCH",
            place.url,
            self._scopes,
            headers={
                "Content-Type": "application/octet-stream",
                "Content-Range": f"{place.at}-{place.at + size - 1}",
            },
            body=Body(size, lambda: self._pieces(place.at, size)),
            where=self._where,
        )
        end = _end_of(answer)
        if end is not None and end != place.at + size:
            raise Refused(
                f"{self._where}: the registry has {end} bytes of {place.at + size} sent", 0, []
            )
        return _Place(_location(answer, self._where), place.at + size)

    def _finish(self, place: _Place) -> None:
        self._check_hash()
        joint = "&" if "?" in place.url else "?"
        answer = self._session.ask(
            "PUT",
            f"{place.url}{joint}digest={quote(self._digest)}",
            self._scopes,
            headers={"Content-Length": "0"},
            where=self._where,
        )
        found = answer.headers.get("docker-content-digest", self._digest)
        if found != self._digest:
            raise DigestMismatch(self._where, self._digest, found)

    def _resume(self, place: _Place) -> _Place | None:
        """Return where the upload goes on after a cut: by the registry's word, or from the start.

        None where the blob is there: it was the answer that was cut off.
        """
        if place.at == self._content.size and self._is_there():
            return None
        try:
            answer = self._session.again(
                lambda: self._session.ask("GET", place.url, self._scopes, where=self._where),
                self._where,
            )
            end = _end_of(answer) or 0
            if end <= self._hashed:
                return _Place(_location(answer, self._where, place.url), end)
        except (NotFound, Refused):
            # Registries may forget an upload that was cut; docker-registry 2.8 does.
            pass
        self._cancel(place)
        return self._start()

    def _is_there(self) -> bool:
        url = f"blobs/{self._digest}"
        try:
            self._session.again(
                lambda: self._session.ask("HEAD", url, self._scopes, where=self._where),
                self._where,
            )
        except NotFound:
            return False
        return True

    def _cancel(self, place: _Place | None) -> None:
        if place is not None:
            _cancel(self._session, place.url, self._where)

    def _refuse_if_ours(self, error: Refused) -> None:
        """Raise ``error`` where nothing would be otherwise the next time."""
        is_lost = error.status in (0, 404, 416) or "DIGEST_INVALID" in error.codes
        is_lost = is_lost or any(code.startswith("BLOB_UPLOAD_") for code in error.codes)
        if not is_lost:
            raise error

    def _pieces(self, at: int, size: int) -> Iterator[bytes]:
        for offset in range(at, at + size, _PIECE):
            piece = self._content.pread(offset, min(_PIECE, at + size - offset))
            if offset + len(piece) > self._hashed >= offset:
                self._hash.update(memoryview(piece)[self._hashed - offset :])
                self._hashed = offset + len(piece)
            yield piece

    def _check_hash(self) -> None:
        """Check all of the content: a registry might not."""
        if self._hashed != self._content.size:
            raise SizeMismatch(self._where, self._content.size, self._hashed)
        actual = f"sha256:{self._hash.hexdigest()}"
        if actual != self._digest:
            raise DigestMismatch(self._where, self._digest, actual)


def mount(session: Session, digest: str, repository: str) -> bool:
    """Have the registry take a blob over from another repository; return whether it did.

    Raises:
        RemoteError: as it says.

    """
    where = f"{session.endpoint}@{digest}"
    try:
        answer = _open(session, digest, repository, where)
    except (AccessDenied, NotFound):
        # Of this repository, or of the other: an upload tells.
        return False
    if answer.status == _CREATED:
        return True
    _cancel(session, _location(answer, where), where)
    return False


def try_upload(session: Session) -> None:
    """Open an upload and give it up.

    Raises:
        AccessDenied, RemoteError: as they say.

    """
    where = str(session.endpoint)
    _cancel(session, _location(_open(session, "", "", where), where), where)


def _open(session: Session, digest: str, mount_from: str, where: str) -> Answer:
    query, scopes = "", session.scopes("pull,push")
    if mount_from:
        query = f"?mount={quote(digest)}&from={quote(mount_from, safe='')}"
        scopes = session.scopes("pull,push", mount_from)
    return session.again(
        lambda: session.ask(
            "POST",
            f"blobs/uploads/{query}",
            scopes,
            headers={"Content-Length": "0"},
            where=where,
        ),
        where,
    )


def _cancel(session: Session, url: str, where: str) -> None:
    # A courtesy: registries forget uploads by themselves.
    with suppress(BootfsError):
        session.ask("DELETE", url, session.scopes("pull,push"), where=where)


def _location(answer: Answer, where: str, otherwise: str = "") -> str:
    location: str = answer.headers.get("location", otherwise)
    if not location:
        raise RemoteProtocolError(
            f"{where}: the registry does not say where the upload goes on; see its log"
        )
    return urljoin(answer.url, location)


def _end_of(answer: Answer) -> int | None:
    """Return how many bytes the registry has of an upload, if it says so.

    ``0-0`` is one byte by the specification, and none where nothing was sent yet.
    """
    found = _RANGE.match(answer.headers.get("range", ""))
    return int(found[1]) + 1 if found and found[1] != "0" else None
