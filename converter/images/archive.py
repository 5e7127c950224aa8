"""docker-archive: the tar that ``docker save`` and skopeo write.

``manifest.json`` is a list of images, each with the name of its config, its
layers' and its tags (moby, image/spec/spec.md v1.2).  Engines before 25 store
layers as ``HASH/layer.tar``, repeated ones as links; later ones put an OCI layout
around the same list; skopeo stores ``DIFFID.tar``.
"""

from __future__ import annotations

import re
from pathlib import Path

from converter.images.documents import (
    check_digest,
    diff_ids_of,
    list_of,
    object_of,
    parse_config,
    parse_json,
    read_document,
    text_of,
)
from converter.images.members import Files, open_members
from converter.images.view import ImageView, JsonObject, LayerSource, sha256_digest
from converter.reference import Reference, familiar_name
from converter.spool import FileBlob, Spool
from store.errors import FormatError, ImageNotFound, UsageError

_HEX = re.compile(r"(?:^|/)([0-9a-f]{64})(?:\.json)?\Z")
_NO_MANIFEST = (
    "there is no manifest.json: not a docker-archive; for the tar of an OCI layout use oci-archive:"
)
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})\Z")


def open_docker_archive(reference: Reference, spool: Spool) -> ImageView:
    """Return the image that ``reference`` names in a docker-archive file.

    Without a name the archive must hold exactly one image.

    Raises:
        NotFound: there is no such file, or (`ImageNotFound`) no such image in it.
        UsageError: the archive holds several images and none is named.
        FormatError, IntegrityError: the archive is damaged.

    """
    files = open_members(reference, spool.open_file(Path(reference.name)), spool)
    return image_of(files, str(reference), reference.tag)


def image_of(files: Files, name: str, wanted: str = "") -> ImageView:
    """Return an image of an opened docker-archive: the one named ``wanted``, or the only one.

    Raises:
        As `open_docker_archive`.

    """
    listing = files.find("manifest.json")
    if listing is None:
        raise FormatError(files.name, 0, _NO_MANIFEST)
    what = f"{files.name}: manifest.json"
    images = [
        object_of(image, what)
        for image in list_of(parse_json(read_document(listing, what), what), what)
    ]
    chosen = _choose(images, wanted, files.name, what)
    config_name = text_of(chosen.get("Config"), f"{what}: Config")
    raw = read_document(_member(files, config_name), f"{files.name}: {config_name}")
    stated = _HEX.search(config_name)
    if stated:
        check_digest(raw, f"sha256:{stated[1]}", f"{files.name}: {config_name}")
    where = f"{files.name}: {config_name}"
    config = parse_config(raw, where)
    paths = [
        text_of(path, f"{what}: Layers")
        for path in list_of(chosen.get("Layers"), f"{what}: Layers")
    ]
    diff_ids = diff_ids_of(config, where)
    if len(paths) != len(diff_ids):
        raise FormatError(
            what,
            0,
            f"{len(paths)} layers, but the config lists {len(diff_ids)} diff ids; "
            "save the image again",
        )
    layers = tuple(
        _layer(files, path, diff_id) for path, diff_id in zip(paths, diff_ids, strict=True)
    )
    return ImageView(name, config, sha256_digest(raw), layers)


def _choose(images: list[JsonObject], wanted: str, name: str, what: str) -> JsonObject:
    tags = [
        [text_of(tag, f"{what}: RepoTags") for tag in list_of(image.get("RepoTags"), what)]
        for image in images
    ]
    held = ", ".join(tag for image_tags in tags for tag in image_tags) or "images without names"
    if wanted:
        for image, image_tags in zip(images, tags, strict=True):
            if familiar_name(wanted) in map(familiar_name, image_tags):
                return image
        raise ImageNotFound(
            f"{name}: no image {wanted} in the archive; it holds {held}; name one of those"
        )
    if not images:
        raise ImageNotFound(f"{name}: the archive holds no image; check the path")
    if len(images) > 1:
        raise UsageError(
            f"{name}: the archive holds {len(images)} images ({held}); "
            "name one: docker-archive:PATH:NAME:TAG"
        )
    return images[0]


def _member(files: Files, path: str) -> FileBlob:
    found = files.find(path)
    if found is None:
        raise FormatError(
            files.name, 0, f"manifest.json names {path}, which is missing; save the image again"
        )
    return found


def _layer(files: Files, path: str, diff_id: str) -> LayerSource:
    blob = _BLOB.search(path)
    return LayerSource(
        diff_id=diff_id,
        digest=f"sha256:{blob[1]}" if blob else "",
        media_type="",
        stored=_member(files, path),
    )
