"""An image as OCI has it: blobs, and a manifest that names them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from converter.images.archivewriter import with_rootfs
from converter.images.documents import encode_json
from converter.images.view import JsonObject, Layer, sha256_digest

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"


class OciImage:
    """The documents of an image to be written; the same input gives the same bytes."""

    def __init__(self, config: JsonObject, layers: Sequence[Layer]) -> None:
        raw = encode_json(with_rootfs(config, layers))
        self.manifest = encode_json(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": _descriptor(_CONFIG, raw),
                "layers": [
                    {"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size}
                    for layer in layers
                ],
            }
        )
        self.digest = sha256_digest(self.manifest)
        """Of the manifest."""
        self.descriptor = _descriptor(MANIFEST, self.manifest)
        """Of the manifest, with the image's platform."""
        platform = {key: config[key] for key in ("architecture", "os", "variant") if key in config}
        if platform:
            self.descriptor["platform"] = platform
        self.blobs: dict[str, tuple[bytes | Path, int]] = {
            layer.digest: (layer.stored, layer.size) for layer in layers
        }
        """Layers and then the config by their digests: bytes or the file with them, and size."""
        self.blobs[sha256_digest(raw)] = (raw, len(raw))


def _descriptor(media_type: str, data: bytes) -> JsonObject:
    return {"mediaType": media_type, "digest": sha256_digest(data), "size": len(data)}
