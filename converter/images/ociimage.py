"""An image as OCI has it: blobs, and a manifest that names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from converter.images.archivewriter import with_rootfs
from converter.images.documents import encode_json
from converter.images.view import JsonObject, Layer, sha256_digest

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"


class OciImage:
    """The documents of an image to be written; the same input gives the same bytes."""

    def __init__(
        self,
        config: JsonObject,
        layers: Sequence[Layer],
        stated: Mapping[str, object] | None = None,
    ) -> None:
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
        """Of the manifest, with the image's platform: ``stated``, or that of ``config``."""
        platform = stated or {
            key: config[key] for key in ("architecture", "os", "variant") if key in config
        }
        if platform:
            self.descriptor["platform"] = dict(platform)
        self.blobs: dict[str, tuple[bytes | Path, int]] = {
            layer.digest: (layer.stored, layer.size) for layer in layers
        }
        """Layers and then the config by their digests: bytes or the file with them, and size."""
        self.blobs[sha256_digest(raw)] = (raw, len(raw))


class OciIndex:
    """An image index of images to be written; the same input gives the same bytes."""

    def __init__(self, images: Sequence[OciImage], others: Sequence[JsonObject] = ()) -> None:
        self.images = tuple(images)
        entries = [*(image.descriptor for image in images), *others]
        self.manifest = encode_json({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
        self.digest = sha256_digest(self.manifest)
        """Of the image index."""
        self.descriptor = _descriptor(INDEX, self.manifest)
        self.blobs: dict[str, tuple[bytes | Path, int]] = {}
        """Blobs and manifests of all images, as `OciImage.blobs`; not the index."""
        for image in images:
            self.blobs |= image.blobs
            self.blobs[image.digest] = (image.manifest, len(image.manifest))


def _descriptor(media_type: str, data: bytes) -> JsonObject:
    return {"mediaType": media_type, "digest": sha256_digest(data), "size": len(data)}
