"""What an image is to the converter: the values sources give and destinations take."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from converter.images.gzipping import gzip_deterministic
from converter.spool import FileBlob

JsonObject = dict[str, Any]

OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"


@dataclass(frozen=True, slots=True)
class LayerSource:
    """One layer of a source image, where it lies on disk."""

    diff_id: str
    """Digest of the plain tar, from the image's config."""
    digest: str
    """Digest of the stored bytes, or empty where the image does not say (docker-archive)."""
    media_type: str
    """As stated, which need not be true; empty where the image does not say."""
    stored: FileBlob
    """The stored bytes, not yet verified; open as long as the spool it was opened with."""
    name: str = ""
    """What messages call it; empty where its digest is all that the user could know."""

    @property
    def size(self) -> int:
        """Size of the stored bytes."""
        return self.stored.size


@dataclass(frozen=True, slots=True)
class ImageView:
    """A source image.  Its config is verified, its layers are not until they are read."""

    name: str
    """The reference, as messages and labels show it."""
    config: JsonObject
    """The config (OCI image-spec, config.md) with every field it came with."""
    manifest_digest: str
    """Digest of the manifest, or of the config where an image has no manifest
    (docker-daemon and docker-archive: it is the engine's image id)."""
    layers: tuple[LayerSource, ...]
    """Lowest first."""
    named_digest: str = ""
    """Digest of what the reference names: the manifest, or an image index with it; empty
    where an image has no manifest."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of an image to be written, both plain and stored."""

    plain: bytes | Path
    """The uncompressed tar, or the file that holds it."""
    stored: bytes | Path
    """The same, compressed as ``media_type`` says."""
    diff_id: str
    """Digest of the plain tar."""
    digest: str
    """Digest of the stored bytes."""
    size: int
    """Size of the stored bytes."""
    media_type: str = OCI_LAYER_GZIP

    @classmethod
    def from_plain(cls, plain: bytes) -> Self:
        """Return the layer of an uncompressed tar; the same tar gives the same layer anywhere."""
        stored = gzip_deterministic(plain)
        return cls(plain, stored, sha256_digest(plain), sha256_digest(stored), len(stored))


def sha256_digest(data: bytes) -> str:
    """Return the digest of ``data`` as OCI writes it, ``sha256:`` and 64 hex digits."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
