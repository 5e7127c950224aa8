"""The verbs of a registry's repository."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from urllib.parse import quote, urljoin

from store.errors import (
    DigestMismatch,
    FormatError,
    ImageNotFound,
    NotFound,
    RemoteError,
    RemoteProtocolError,
    SizeMismatch,
)
from store.write.registry.answers import Refused
from store.write.registry.manifest import (
    DIGEST,
    MANIFEST_LIMIT,
    MEDIA_TYPES,
    OCI_INDEX,
    Descriptor,
    Manifest,
    media_type_of,
    parse_descriptor,
    sha256_of,
)
from store.write.registry.patience import Patience
from store.write.registry.session import Answer, Body, Session
from store.write.registry.uploads import CHUNK, Content, Upload, mount, try_upload

_PIECE = 256 << 10
_PAGE = 1000
_PAGES = 10_000
_NEXT = re.compile(r"<([^>]*)>\s*;[^,]*\brel=\"?next\"?")


class Repository:
    """One repository of a registry.  May be used by many threads at once; the caller closes it.

    Everything is asked again, with back-off, where that may help.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self.location = str(session.endpoint)
        """As the user wrote it, for messages."""
        self._reading = session.scopes("pull")
        self._writing = session.scopes("pull,push")
        self._removing = session.scopes("delete")

    def close(self) -> None:
        """Close all connections."""
        self._session.close()

    def check(self) -> None:
        """Return when there is a registry that lets us read, changing nothing.

        Raises:
            AccessDenied: it refuses.
            RemoteError: nobody answers, or what answers is no registry.

        """
        try:
            self._ask("GET", self._session.endpoint.api)
        except NotFound as error:
            raise RemoteProtocolError(
                f"{self.location}: what answers is no registry: it has no /v2/; check the address"
            ) from error

    def check_writable(self) -> None:
        """Return when blobs may be put here: an upload is opened and given up at once.

        Raises:
            AccessDenied: the repository may not be written.
            RemoteError: as `check`.

        """
        try_upload(self._session)

    # Manifests --------------------------------------------------------------------------

    def fetch_manifest(self, name: str) -> Manifest:
        """Return the manifest or image index of a tag or digest, verified where it is a digest.

        Raises:
            ImageNotFound: there is none.
            FormatError: it is of an unknown type, or longer than `MANIFEST_LIMIT`.
            DigestMismatch: it is not what its digest says.
            AccessDenied, RemoteError: as they say.

        """
        where = self._named(name)
        answer = self._ask_manifest("GET", name)
        if len(answer.body) > MANIFEST_LIMIT:
            raise FormatError(
                where, MANIFEST_LIMIT, f"longer than the limit of {MANIFEST_LIMIT:,} bytes"
            )
        actual = sha256_of(answer.body)
        expected = name if DIGEST.match(name) else answer.headers.get("docker-content-digest", "")
        if DIGEST.match(expected) and actual != expected:
            raise DigestMismatch(where, expected, actual)
        stated = answer.headers.get("content-type", "")
        return Manifest(answer.body, media_type_of(answer.body, stated, where))

    def find_manifest(self, name: str) -> str | None:
        """Return the digest of the manifest that a tag or digest names; None if there is none.

        Raises:
            AccessDenied, RemoteError: as they say.

        """
        try:
            answer = self._ask_manifest("HEAD", name)
        except NotFound:
            return None
        stated: str = answer.headers.get("docker-content-digest", "")
        if DIGEST.match(name):
            return name
        return stated if DIGEST.match(stated) else self.fetch_manifest(name).digest

    def push_manifest(self, name: str, manifest: Manifest) -> None:
        """Put a manifest under a tag, or under its digest; all that it names must be there.

        Raises:
            AccessDenied, StorageFull, RemoteError: as they say.
            DigestMismatch: the registry got something else.

        """
        where = self._named(name)
        answer = self._session.again(
            lambda: self._session.ask(
                "PUT",
                f"manifests/{quote(name)}",
                self._writing,
                headers={"Content-Type": manifest.media_type},
                body=Body(len(manifest.data), lambda: iter((manifest.data,))),
                where=where,
            ),
            where,
        )
        found = answer.headers.get("docker-content-digest", manifest.digest)
        if found != manifest.digest:
            raise DigestMismatch(where, manifest.digest, found)

    def remove_manifest(self, digest: str) -> bool:
        """Remove a manifest, and with it all its tags; return whether it was there.

        Raises:
            AccessDenied: it may not be removed, or the registry does not remove.
            RemoteError: as it says.

        """
        return self._remove(f"manifests/{quote(digest)}", self._named(digest))

    # Blobs ------------------------------------------------------------------------------

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

    def iter_blob(self, digest: str, size: int) -> Iterator[bytes]:
        """Yield a whole blob of ``size`` bytes in pieces; go on where it was cut off.

        Only who takes all of them knows that they are right.

        Raises:
            NotFound: the repository does not have it.
            SizeMismatch, DigestMismatch: at the end: it is another one.
            AccessDenied, RemoteError: as they say.

        """
        where = self._named(digest)
        actual = hashlib.sha256()
        at = 0
        patience = Patience(self._session.limit_s, where)
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

    # Lists ------------------------------------------------------------------------------

    def iter_tags(self, page: int = _PAGE) -> Iterator[str]:
        """Yield all tags, ``page`` a request; none where there is no such repository.

        Raises:
            AccessDenied, RemoteError: as they say.

        """
        try:
            for listed in self._iter_pages(f"tags/list?n={page}"):
                yield from (tag for tag in _list_of(listed, "tags") if isinstance(tag, str))
        except NotFound:
            return

    def fetch_referrers(self, digest: str, artifact_type: str = "") -> list[Descriptor]:
        """Return the manifests whose subject is ``digest``, of one type or of all.

        From the registry's referrers API, or from the tag that stands in for it (OCI
        distribution specification, "Referrers Tag Schema").

        Raises:
            FormatError: what is listed is damaged.
            AccessDenied, RemoteError: as they say.

        """
        where = self._named(digest)
        try:
            pages = list(self._iter_pages(f"referrers/{digest}"))
        except (NotFound, Refused):
            try:
                listed = self.fetch_manifest(referrers_tag(digest))
            except ImageNotFound:
                return []
            pages = [listed.document(where)]
        found = [
            parse_descriptor(value, f"{where}: referrers")
            for page in pages
            for value in _list_of(page, "manifests")
        ]
        return [one for one in found if artifact_type in ("", one.artifact_type)]

    # ------------------------------------------------------------------------------------

    def _named(self, name: str) -> str:
        return f"{self.location}{'@' if DIGEST.match(name) else ':'}{name}"

    def _ask(self, method: str, url: str, limit: int = MANIFEST_LIMIT, where: str = "") -> Answer:
        return self._session.again(
            lambda: self._session.ask(method, url, self._reading, limit=limit, where=where),
            where or self.location,
        )

    def _ask_manifest(self, method: str, name: str) -> Answer:
        where = self._named(name)
        headers = {"Accept": ", ".join(MEDIA_TYPES)}
        try:
            return self._session.again(
                lambda: self._session.ask(
                    method,
                    f"manifests/{quote(name)}",
                    self._reading,
                    headers=headers,
                    limit=2 * MANIFEST_LIMIT,
                    where=where,
                ),
                where,
            )
        except NotFound as error:
            raise ImageNotFound(str(error)) from None

    def _remove(self, url: str, where: str) -> bool:
        try:
            self._session.again(
                lambda: self._session.ask("DELETE", url, self._removing, where=where), where
            )
        except NotFound:
            return False
        return True

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
            for piece in answer.iter_raw(_PIECE):
                wanted = piece[max(0, start - at) : end - at]
                at += len(piece)
                if wanted:
                    yield wanted
                if at >= end:
                    break

    def _iter_pages(self, url: str) -> Iterator[dict[str, object]]:
        for _ in range(_PAGES):
            answer = self._ask("GET", url)
            where = f"{self.location}: {url.partition('?')[0]}"
            yield Manifest(answer.body, OCI_INDEX).document(where)
            following = _NEXT.search(answer.headers.get("link", ""))
            if following is None:
                return
            url = urljoin(answer.url, following[1])
        raise RemoteProtocolError(f"{self.location}: a list of more than {_PAGES} pages")


def referrers_tag(digest: str) -> str:
    """Return the tag that lists a manifest's referrers where a registry has no API for them."""
    return digest.replace(":", "-")


def _list_of(page: dict[str, object], name: str) -> list[object]:
    value = page.get(name)
    return value if isinstance(value, list) else []
