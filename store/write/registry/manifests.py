"""The verbs of manifests."""

from __future__ import annotations

from urllib.parse import quote

from store.errors import DigestMismatch, FormatError, ImageNotFound, NotFound
from store.write.registry.manifest import (
    DIGEST,
    MANIFEST_LIMIT,
    MEDIA_TYPES,
    Manifest,
    media_type_of,
    sha256_of,
)
from store.write.registry.session import Answer, Body
from store.write.registry.verbs import Verbs


class Manifests(Verbs):
    """The manifests and image indexes of a repository, by tag and by digest."""

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
