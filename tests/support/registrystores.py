"""Images in a registry's store, and the registry's own garbage collector."""

from __future__ import annotations

import json
import subprocess
import urllib.error
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converter.convert import convert
from converter.progress import Silent
from converter.reference import parse_reference
from store.write.backends import open_backend
from store.write.checking import Problem, StoreCheck
from tests.support.converted import Converted
from tests.support.registries import REPOSITORY, ask_json

if TYPE_CHECKING:
    from tests.support.engine import Engine
    from tests.support.servers import Registry


@dataclass
class Stored:
    """A store in a registry on this machine that containers reach."""

    registry: Registry
    address: str

    @property
    def url(self) -> str:
        """As the converter names the store."""
        return f"docker://{self.registry.host_port}/{REPOSITORY}"

    @property
    def blob_store(self) -> str:
        """As a container does."""
        return f"docker+http://{self.address}:{self.registry.port}/{REPOSITORY}"

    def convert(self, engine: Engine, source: str) -> Converted:
        """Convert an image of the engine into one of it, its data into the registry."""
        boot = engine.image_name()
        with closing(open_backend(self.url)) as backend:
            convert(parse_reference(source), parse_reference(boot), backend, 1, "", Silent())
        return Converted(source, boot, self.blob_store)


def convert_into(url: str, archive: Path, destination: str) -> tuple[bytes, int]:
    """Convert a docker-archive; return the chunk index's digest and the bytes of new packs."""
    with closing(open_backend(url)) as backend:
        before = set(backend.iter_names("manifests/"))
        report = convert(
            parse_reference(f"docker-archive:{archive}"),
            parse_reference(destination),
            backend,
            1,
            "",
            Silent(),
        )
        (made,) = set(backend.iter_names("manifests/")) - before
    return bytes.fromhex(made.removeprefix("manifests/")), report.new_stored_bytes


def problems_in(url: str) -> list[Problem]:
    """Return all that `bootfs check --store` says of a store."""
    with closing(open_backend(url)) as backend:
        check = StoreCheck(backend)
        check.take_stock()
        return list(check.iter_problems(lambda _: None))


def tags_of(registry: Registry, repository: str = REPOSITORY) -> list[str]:
    """Return the tags of a repository, sorted; none where there is no such repository."""
    try:
        return sorted(ask_json(registry, f"{repository}/tags/list")["tags"] or [])
    except urllib.error.HTTPError as refused:
        refused.close()
        if refused.code != 404:
            raise
        return []


def manifest_of(registry: Registry, name: str, repository: str = REPOSITORY) -> dict[str, Any]:
    """Return the manifest of a tag or digest."""
    return ask_json(registry, f"{repository}/manifests/{name}")


def blobs_of(registry: Registry) -> dict[str, int]:
    """Return the digests of all blobs that lie on the registry's disk, with their sizes."""
    found = registry.blobs.glob("docker/registry/v2/blobs/sha256/*/*/data")
    return {f"sha256:{path.parent.name}": path.stat().st_size for path in found}


def collect_garbage(registry: Registry, *options: str) -> None:
    """Run the registry's garbage collector, while nobody writes."""
    command = ["docker-registry", "garbage-collect", *options, str(registry.config)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def as_text(document: dict[str, Any]) -> str:
    """Return a manifest as it is encoded."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"))
