"""dir and tar: a root file system alone, as a directory or in a tar, becomes an image."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

from converter.decompress import compression_of, iter_plain
from converter.images.dirtree import read_directory
from converter.images.documents import encode_json
from converter.images.layerfile import spool_tar
from converter.images.skopeodir import is_skopeo_directory, open_skopeo_directory
from converter.images.view import ImageView, JsonObject, LayerSource, sha256_digest
from converter.layertar import iter_layer
from converter.platforms import Platform, check_stated, platform_of_machine
from converter.reference import Reference
from converter.settings import Settings
from converter.spool import FileBlob, Spool, os_errors_at
from converter.tarreader import Budget
from store.errors import FormatError, NotFound


def open_directory(
    reference: Reference, spool: Spool, platform: Platform | None = None
) -> ImageView:
    """Return the image whose root is a directory, or the one that skopeo keeps in it.

    The directory is copied into ``spool``, holes left out: what is converted is what was
    there at one time, or nothing.

    Raises:
        NotFound: there is no such directory.
        AccessDenied, UsageError, ConvertError: see `read_directory`.
        UnsupportedEntry: it holds something that no image can.
        StorageFull: the spool has no room for it.

    """
    path = Path(reference.name)
    with os_errors_at(path, "cannot be opened"):
        if not path.is_dir():
            problem = "is not a directory; for a tar use tar:" if path.exists() else "is missing"
            raise NotFound(f"{reference}: {path} {problem}")
    if is_skopeo_directory(path):
        return open_skopeo_directory(reference, spool, platform)
    tree = read_directory(path, Budget())
    plain, digest = spool_tar(iter_layer(tree, sparse=True), spool, str(reference))
    image = _image_of(reference, plain, digest)
    check_stated(image.config, platform, image.name)
    return image


def open_tar(reference: Reference, spool: Spool) -> ImageView:
    """Return the image whose root is what a tar holds, which gzip or zstd may have compressed.

    Raises:
        NotFound: there is no such file.
        FormatError: it is damaged, or empty.
        StorageFull: the spool has no room to decompress it.

    """
    stored = spool.open_file(Path(reference.name))
    head = stored.pread(0, min(4, stored.size))
    if not head:
        raise FormatError(str(reference), 0, "the tar is empty; make or fetch it again")
    if compression_of(head) != "none":
        pieces = iter_plain(stored.iter_pieces(), str(reference))
        return _image_of(reference, *spool_tar(pieces, spool, str(reference)))
    digest = hashlib.sha256()
    for piece in stored.iter_pieces():
        digest.update(piece)
    return _image_of(reference, stored, f"sha256:{digest.hexdigest()}")


def with_settings(image: ImageView, settings: Settings) -> ImageView:
    """Return an image with other settings; its digest is another, too."""
    return _with_config(image, image.config | {"config": settings.encode()})


def _image_of(reference: Reference, plain: FileBlob, diff_id: str) -> ImageView:
    machine = platform_of_machine()
    config: JsonObject = {
        "os": machine.system,
        "architecture": machine.architecture,
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created_by": f"bootfs: {reference.transport}"}],
    }
    layer = LayerSource(diff_id, diff_id, "", plain, str(reference))
    return _with_config(ImageView(str(reference), config, "", (layer,)), config)


def _with_config(image: ImageView, config: JsonObject) -> ImageView:
    return replace(image, config=config, manifest_digest=sha256_digest(encode_json(config)))
