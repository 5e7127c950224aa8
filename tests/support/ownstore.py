"""A store of one test's own, to be damaged, slowed down and switched off."""

from __future__ import annotations

import dataclasses
import shutil
from typing import TYPE_CHECKING

from tests.support.servers import Nginx, free_port

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.converted import Conversions, Converted


class OwnStore:
    """A server of a copy of the store, and the image that is served from there."""

    def __init__(self, conversions: Conversions, image: Converted, root: Path) -> None:
        self.root = root
        shutil.copytree(conversions.directory, root)
        self._address = conversions.address
        self._port = free_port()
        self._server: Nginx | None = None
        self.image = dataclasses.replace(image, store=f"http://{self._address}:{self._port}")

    def serve(self, extra: str = "") -> None:
        """Serve it, with this in the server's block, instead of as before."""
        self.close()
        self._server = Nginx(self.root, addresses=[self._address], port=self._port, extra=extra)

    def close(self) -> None:
        """Serve it no more."""
        if self._server is not None:
            self._server.close()
