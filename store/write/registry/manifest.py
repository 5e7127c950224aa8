"""Manifests and image indexes as a registry gives and takes them, and descriptors in them."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from typing import Any

from store.errors import FormatError

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
INDEXES = (OCI_INDEX, DOCKER_INDEX)
MEDIA_TYPES = (OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_INDEX)

MANIFEST_LIMIT = 4 << 20
"""The longest manifest or index, in bytes: so much registries must take, by the specification."""

DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_ADVICE = "push the image again"


def sha256_of(data: bytes) -> str:
    """Return the digest of ``data`` as registries write it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Manifest:
    """The exact bytes of a manifest or image index."""

    data: bytes
    media_type: str

    @property
    def digest(self) -> str:
        """What it is called in every registry."""
        return sha256_of(self.data)

    @property
    def is_index(self) -> bool:
        """Whether it lists manifests, instead of being one."""
        return self.media_type in INDEXES

    def document(self, what: str) -> dict[str, Any]:
        """Return the JSON object that it is; ``what`` names it in errors.

        Raises:
            FormatError: it is none.

        """
        try:
            value = json.loads(self.data)
        except (ValueError, RecursionError) as error:
            raise FormatError(what, 0, f"not JSON: {error}; {_ADVICE}") from error
        if not isinstance(value, dict):
            raise FormatError(what, 0, f"not a JSON object; {_ADVICE}")
        return value


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A reference to a blob or manifest by digest (OCI image-spec, descriptor.md)."""

    media_type: str
    digest: str
    size: int
    artifact_type: str = ""
    annotations: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the descriptor as it stands in documents."""
        shown: dict[str, Any] = {
            "mediaType": self.media_type,
            "digest": self.digest,
            "size": self.size,
        }
        if self.artifact_type:
            shown["artifactType"] = self.artifact_type
        if self.annotations:
            shown["annotations"] = self.annotations
        return shown


def parse_descriptor(value: object, what: str) -> Descriptor:
    """Return the descriptor that a JSON value is.

    Raises:
        FormatError: it is none; the digest must be one of SHA-256.

    """
    fields = value if isinstance(value, dict) else {}
    digest, size = fields.get("digest"), fields.get("size")
    annotations = fields.get("annotations") or {}
    media_type = fields.get("mediaType") or ""
    artifact_type = fields.get("artifactType") or ""
    if (
        not isinstance(digest, str)
        or not DIGEST.match(digest)
        or not isinstance(size, int)
        or size < 0
        or not isinstance(media_type, str)
        or not isinstance(artifact_type, str)
        or not isinstance(annotations, dict)
        or not all(isinstance(text, str) for text in annotations.values())
    ):
        raise FormatError(what, 0, f"{str(value)[:120]} is not a descriptor; {_ADVICE}")
    return Descriptor(media_type, digest, size, artifact_type, annotations)


def media_type_of(data: bytes, stated: str, what: str) -> str:
    """Return the media type of a manifest: as the answer states it, or else as it says itself.

    Raises:
        FormatError: it is of none of `MEDIA_TYPES`.

    """
    stated = stated.partition(";")[0].strip().lower()
    if stated in MEDIA_TYPES:
        return stated
    own = Manifest(data, stated).document(what).get("mediaType")
    if isinstance(own, str) and own in MEDIA_TYPES and stated in ("", "application/json"):
        return own
    raise FormatError(
        what,
        0,
        f"a manifest of type {stated or own!r}; bootfs knows those of OCI and of Docker's "
        "schema 2: build the image with a newer tool",
    )
