"""Write docker-archives, such as every engine and skopeo read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from converter.images.documents import encode_json
from converter.images.placing import refuse_existing_file, write_file
from converter.images.tarwriting import iter_tar
from converter.images.view import JsonObject, Layer, sha256_digest
from converter.reference import Reference


def with_rootfs(config: JsonObject, layers: Sequence[Layer]) -> JsonObject:
    """Return ``config`` with its ``rootfs`` naming ``layers``, and all else as it is."""
    return config | {"rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]}}


def iter_docker_archive(
    config: JsonObject, layers: Sequence[Layer], tags: Sequence[str]
) -> Iterator[bytes]:
    """Yield a docker-archive of one image with plain layers, always the same bytes.

    Raises:
        DigestMismatch, SizeMismatch: a layer's plain bytes are not those of its diff id.

    """
    raw = encode_json(with_rootfs(config, layers))
    digest = sha256_digest(raw)
    config_name = f"{digest.removeprefix('sha256:')}.json"
    names = {layer.diff_id: f"{layer.diff_id.removeprefix('sha256:')}.tar" for layer in layers}
    manifest = encode_json(
        [
            {
                "Config": config_name,
                "RepoTags": list(tags),
                "Layers": [names[layer.diff_id] for layer in layers],
            }
        ]
    )
    once = {layer.diff_id: layer for layer in layers}
    yield from iter_tar(
        [
            *((names[diff_id], layer.plain, diff_id) for diff_id, layer in once.items()),
            (config_name, raw, digest),
            ("manifest.json", manifest, sha256_digest(manifest)),
        ]
    )


def write_docker_archive(reference: Reference, config: JsonObject, layers: Sequence[Layer]) -> str:
    """Write a docker-archive file and return the digest of the image's config.

    The file appears when it is complete.

    Raises:
        UsageError: the file exists; as with skopeo, archives are not added to.
        NotFound, AccessDenied, StorageFull: the file cannot be written.

    """
    path = Path(reference.name)
    refuse_existing_file(path, str(reference))
    tags = [reference.tag] if reference.tag else []
    write_file(path, iter_docker_archive(config, layers, tags))
    return sha256_digest(encode_json(with_rootfs(config, layers)))
