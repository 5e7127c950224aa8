"""The verbs that list."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urljoin

from store.errors import ImageNotFound, NotFound, RemoteProtocolError
from store.write.registry.answers import Refused
from store.write.registry.manifest import OCI_INDEX, Descriptor, Manifest, parse_descriptor
from store.write.registry.manifests import Manifests

_PAGE = 1000
_PAGES = 10_000
_NEXT = re.compile(r"<([^>]*)>\s*;[^,]*\brel=\"?next\"?")


class Lists(Manifests):
    """What a repository has: its tags, and what refers to a manifest."""

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
