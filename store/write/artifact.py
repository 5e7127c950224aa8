"""What a registry keeps of one image in a store: an artifact manifest, with the objects as blobs.

Implements docs/format.md, "Store in a registry, version 1": an image manifest with
``artifactType`` (OCI image-spec, "Guidelines for Artifact Usage").
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from store.errors import FormatError, UnsupportedVersion
from store.format.distribution import blob_digest
from store.format.names import (
    bootstrap_name,
    chunk_index_name,
    manifest_name,
    pack_name,
)
from store.write.registry.manifest import (
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    parse_descriptor,
    sha256_of,
)

ANY_VERSION = "application/vnd.bootfs.store.v"
ARTIFACT_TYPE = f"{ANY_VERSION}1"
MANIFEST_TYPE = "application/vnd.bootfs.manifest.v1+json"
CHUNK_INDEX_TYPE = "application/vnd.bootfs.chunk-index.v1"
BOOTSTRAP_TYPE = "application/vnd.bootfs.bootstrap.v1"
PACK_TYPE = "application/vnd.bootfs.pack.v1"
TITLE = "org.opencontainers.image.title"
EMPTY = b"{}"
EMPTY_CONFIG = Descriptor("application/vnd.oci.empty.v1+json", sha256_of(EMPTY), len(EMPTY))

_MANIFEST_NAME = re.compile(r"manifests/([0-9a-f]{64})")
_SUBJECT_DIGITS = 32

Blob = tuple[str, int]
"""Digest, as a registry writes it, and size in bytes."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """An artifact manifest, read."""

    digest: str
    """Of the manifest itself."""
    size: int
    """Of the manifest, in bytes."""
    image: bytes
    """Raw digest of the image's chunk index."""
    objects: dict[str, Blob]
    """By the names that they have in a store."""
    subject: str
    """Digest of the boot image's manifest; empty where it does not belong to one."""


def artifact_tag(image: bytes, subject: str = "") -> str:
    """Return the tag of an artifact of the image whose chunk index has this raw digest."""
    tag = f"bootfs-{image.hex()}"
    return f"{tag}.{_short(subject)}" if subject else tag


def boot_image_tag(image: bytes, boot_image: str) -> str:
    """Return the tag of the boot image that is an artifact's subject."""
    return f"{artifact_tag(image, boot_image)}.image"


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:_SUBJECT_DIGITS]


def encode_artifact(
    image: bytes,
    packs: list[tuple[bytes, int]],
    others: dict[str, Blob],
    subject: Descriptor | None,
) -> Manifest:
    """Return the artifact manifest of an image; the same arguments give the same bytes.

    ``others`` holds store manifest, chunk index and bootstrap of the image, by name.
    """
    layers = [
        _layer(media_type, name, *others[name])
        for media_type, name in (
            (MANIFEST_TYPE, manifest_name(image)),
            (CHUNK_INDEX_TYPE, chunk_index_name(image)),
            (BOOTSTRAP_TYPE, bootstrap_name(image)),
        )
    ]
    layers += [
        _layer(PACK_TYPE, pack_name(digest), f"sha256:{digest.hex()}", size)
        for digest, size in packs
    ]
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": ARTIFACT_TYPE,
        "config": EMPTY_CONFIG.as_json(),
        "layers": layers,
    }
    if subject is not None:
        document["subject"] = subject.as_json()
    return Manifest(encode_document(document), OCI_MANIFEST)


def encode_document(document: dict[str, object]) -> bytes:
    """Return the one encoding of a manifest or image index: keys sorted, no spaces, ASCII alone."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _layer(media_type: str, name: str, digest: str, size: int) -> dict[str, object]:
    return Descriptor(media_type, digest, size, annotations={TITLE: name}).as_json()


def parse_artifact(manifest: Manifest, what: str) -> Artifact | None:
    """Return the artifact that a manifest is; None where it is something else.

    Raises:
        UnsupportedVersion: of a version this release does not read.
        FormatError: it says that it is one, and has not its form.

    """
    document = manifest.document(what)
    kind = document.get("artifactType")
    if not is_artifact_type(kind, what):
        return None
    listed = document.get("layers")
    layers = [
        parse_descriptor(value, f"{what}: layers")
        for value in (listed if isinstance(listed, list) else [])
    ]
    objects = {layer.annotations.get(TITLE, ""): (layer.digest, layer.size) for layer in layers}
    images = [found[1] for name in objects if (found := _MANIFEST_NAME.fullmatch(name))]
    if len(images) != 1:
        raise FormatError(what, 0, f"{len(images)} store manifests, not one; push it again")
    image = bytes.fromhex(images[0])
    own = {manifest_name(image), chunk_index_name(image), bootstrap_name(image)}
    if not own <= objects.keys():
        raise FormatError(what, 0, "chunk index or bootstrap is not in it; push it again")
    for name in objects.keys() - own:
        if not name.startswith("packs/") or blob_digest(name) != objects[name][0]:
            raise FormatError(what, 0, f"{name!r:.100} is no object of this image")
    subject = document.get("subject")
    named = parse_descriptor(subject, f"{what}: subject").digest if subject else ""
    return Artifact(manifest.digest, len(manifest.data), image, objects, named)


def is_artifact_type(kind: object, what: str) -> bool:
    """Whether ``kind`` is the type of our artifacts.

    Raises:
        UnsupportedVersion: of those of another version.

    """
    if isinstance(kind, str) and kind.startswith(ANY_VERSION) and kind != ARTIFACT_TYPE:
        raise UnsupportedVersion(what, 0, f"artifact type {kind!r:.100}")
    return kind == ARTIFACT_TYPE
