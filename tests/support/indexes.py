"""Image indexes of several platforms, made by hand: in an OCI layout, or pushed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from store.write.registry import open_repository
from store.write.registry.manifest import OCI_INDEX, OCI_MANIFEST, Manifest
from store.write.registry.uploads import Held
from tests.support.layers import compressed, config_of, digest

KIND = "application/vnd.oci.image"
UNKNOWN = {"os": "unknown", "architecture": "unknown"}


@dataclass
class Index:
    """An image index that is being made; blobs and manifests by digest."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    entries: list[dict[str, Any]] = field(default_factory=list)

    def add(
        self, platform: str, *layers: bytes, stated: bool = True, command: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Add an image for ``OS/ARCHITECTURE[/VARIANT]``; return its entry, to be changed."""
        names = ("os", "architecture", "variant")
        parts = dict(zip(names, platform.split("/"), strict=False))
        described = {key: value for key, value in parts.items() if key != "variant"}
        settings: dict[str, Any] = {"config": {"Cmd": list(command)}} if command else {}
        config = json.dumps(config_of(layers, **settings) | described).encode()
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": self._blob(config, f"{KIND}.config.v1+json"),
            "layers": [
                self._blob(compressed(layer, "gzip"), f"{KIND}.layer.v1.tar+gzip")
                for layer in layers
            ],
        }
        entry = self._manifest(json.dumps(document).encode(), OCI_MANIFEST)
        if stated:
            entry["platform"] = parts
        self.entries.append(entry)
        return entry

    def add_attestation(self) -> None:
        """Add what BuildKit has beside each image."""
        entry = self.add("unknown/unknown")
        entry["annotations"] = {"vnd.docker.reference.type": "attestation-manifest"}

    def nest(self, platform: dict[str, str] | None = None) -> None:
        """Put all that was added into an index of its own, which this one lists."""
        entry = self._manifest(self.document(), OCI_INDEX)
        if platform:
            entry["platform"] = platform
        self.entries = [entry]

    def document(self) -> bytes:
        """Return the index."""
        return json.dumps(
            {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": self.entries}
        ).encode()

    def write(self, path: Path) -> str:
        """Write an OCI layout with the index under the tag v1; return its reference."""
        directory = path / "blobs/sha256"
        directory.mkdir(parents=True)
        top = self.document()
        for name, data in {**self.blobs, **self.manifests, digest(top): top}.items():
            (directory / name.removeprefix("sha256:")).write_bytes(data)
        entry = {"mediaType": OCI_INDEX, "digest": digest(top), "size": len(top)}
        entry["annotations"] = {"org.opencontainers.image.ref.name": "v1"}
        (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
        (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        return f"oci:{path}:v1"

    def push(self, url: str, tag: str) -> str:
        """Push the index; return its reference."""
        with closing(open_repository(url)) as repository:
            for name, data in self.blobs.items():
                repository.push_blob(name, Held(data))
            for name, data in self.manifests.items():
                kind = json.loads(data)["mediaType"]
                # With a tag, or the registry's garbage collector may take it.
                repository.push_manifest(f"child-{name[7:39]}", Manifest(data, kind))
            repository.push_manifest(tag, Manifest(self.document(), OCI_INDEX))
        return f"{url}:{tag}"

    def _blob(self, data: bytes, media_type: str) -> dict[str, Any]:
        self.blobs[digest(data)] = data
        return {"mediaType": media_type, "digest": digest(data), "size": len(data)}

    def _manifest(self, data: bytes, media_type: str) -> dict[str, Any]:
        self.manifests[digest(data)] = data
        return {"mediaType": media_type, "digest": digest(data), "size": len(data)}


def read_index(path: Path, tag: str = "v1") -> list[dict[str, Any]]:
    """Return the entries of the image index under a tag of an OCI layout, its blobs verified."""
    (named,) = [
        entry
        for entry in json.loads((path / "index.json").read_bytes())["manifests"]
        if entry.get("annotations", {}).get("org.opencontainers.image.ref.name") == tag
    ]
    assert named["mediaType"] == OCI_INDEX
    found: list[dict[str, Any]] = json.loads(_blob_of(path, named))["manifests"]
    for entry in found:
        manifest = json.loads(_blob_of(path, entry))
        for described in [manifest["config"], *manifest["layers"]]:
            _blob_of(path, described)
    return found


def _blob_of(path: Path, entry: dict[str, Any]) -> bytes:
    data = (path / "blobs/sha256" / entry["digest"].removeprefix("sha256:")).read_bytes()
    assert len(data) == entry["size"]
    assert f"sha256:{hashlib.sha256(data).hexdigest()}" == entry["digest"]
    return data
