"""What all verbs of a repository have in common."""

from __future__ import annotations

from store.errors import NotFound
from store.write.registry.manifest import DIGEST, MANIFEST_LIMIT
from store.write.registry.session import Answer, Session


class Verbs:
    """Requests to one repository, asked again where that may help."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.location = str(session.endpoint)
        """As the user wrote it, for messages."""
        self._reading = session.scopes("pull")
        self._writing = session.scopes("pull,push")
        self._removing = session.scopes("delete")

    def _named(self, name: str) -> str:
        return f"{self.location}{'@' if DIGEST.match(name) else ':'}{name}"

    def _ask(self, method: str, url: str, limit: int = MANIFEST_LIMIT, where: str = "") -> Answer:
        return self._session.again(
            lambda: self._session.ask(method, url, self._reading, limit=limit, where=where),
            where or self.location,
        )

    def _remove(self, url: str, where: str) -> bool:
        try:
            self._session.again(
                lambda: self._session.ask("DELETE", url, self._removing, where=where), where
            )
        except NotFound:
            return False
        return True
