"""A store of one test's own, to be damaged, slowed down and switched off."""

from __future__ import annotations

import dataclasses
import shutil
from typing import TYPE_CHECKING

from store.format.chunkindex import parse_chunk_index
from store.format.names import STORE_MARK, chunk_index_name, pack_name
from tests.support.engine import asking
from tests.support.servers import Nginx, free_port

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.converted import Conversions, Converted


def copy_store(conversions: Conversions, image: Converted, root: Path) -> None:
    """Copy of the session's store, which is large in the end, what an image needs."""
    with asking() as client:
        labels = client.inspect_image(image.boot)["Config"]["Labels"]
    digest = labels["io.bootfs.chunk-index"].removeprefix("blake3:")
    index = chunk_index_name(bytes.fromhex(digest))
    needed = parse_chunk_index((conversions.directory / index).read_bytes()).pack_digests
    for name in (STORE_MARK, index, *map(pack_name, needed)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(conversions.directory / name, root / name)


class OwnStore:
    """A server of a copy of what an image needs of the store, and the image served from there."""

    def __init__(self, conversions: Conversions, image: Converted, root: Path) -> None:
        self.root = root
        copy_store(conversions, image, root)
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
