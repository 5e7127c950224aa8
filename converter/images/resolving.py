"""From a descriptor to an image: through image indexes, wherever their blobs lie."""

from __future__ import annotations

from typing import Protocol

from converter.images.documents import (
    Descriptor,
    diff_ids_of,
    list_of,
    object_of,
    parse_config,
    parse_json,
)
from converter.images.view import ImageView, JsonObject, LayerSource
from converter.platforms import Platform, check_stated, choose_entry
from converter.spool import FileBlob
from store.errors import FormatError

INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_DEPTH_LIMIT = 8


class Blobs(Protocol):
    """Where the documents and layers of an image are."""

    name: str
    """How messages call it."""

    def document(self, descriptor: Descriptor) -> bytes:
        """Return a document, verified: it has the digest."""

    def manifest(self, descriptor: Descriptor) -> bytes:
        """Return a manifest or image index, verified."""

    def layers(self, descriptors: list[Descriptor]) -> list[FileBlob]:
        """Return the stored bytes of layers, which need not be verified."""


def open_resolved(
    blobs: Blobs, reference: str, descriptor: Descriptor, platform: Platform | None
) -> ImageView:
    """Return the image that ``descriptor`` leads to, of an image index the one for ``platform``.

    Without a platform the one for this machine.

    Raises:
        ImageNotFound: no image for the platform.
        UsageError: `converter.platforms.ALL` was asked for, and not all can be had.
        FormatError: what is there is no image, or damaged.

    """
    named = descriptor
    descriptor, manifest = _resolve(blobs, descriptor, platform)
    what = f"{blobs.name}: manifest {descriptor.digest}"
    described = Descriptor(manifest.get("config"), f"{what}: config")
    config = parse_config(blobs.document(described), f"{blobs.name}: blob {described.digest}")
    if descriptor is named:
        # What an index states counts: configs leave the variant out.
        check_stated(config, platform, reference)
    listed = [
        Descriptor(value, f"{what}: layers")
        for value in list_of(manifest.get("layers"), f"{what}: layers")
    ]
    diff_ids = diff_ids_of(config, f"{what}: config")
    if len(listed) != len(diff_ids):
        raise FormatError(
            what,
            0,
            f"{len(listed)} layers, but the config lists {len(diff_ids)} diff ids; "
            "build or copy the image again",
        )
    layers = tuple(
        LayerSource(diff_id, entry.digest, entry.media_type, stored)
        for entry, diff_id, stored in zip(listed, diff_ids, blobs.layers(listed), strict=True)
    )
    return ImageView(reference, config, descriptor.digest, layers, named.digest)


def manifests_of(document: JsonObject, what: str) -> list[Descriptor]:
    """Return what an image index lists.

    Raises:
        FormatError: it has no list.

    """
    if not isinstance(document.get("manifests"), list):
        raise FormatError(what, 0, "there is no list `manifests`: damaged, copy it again")
    listed = list_of(document["manifests"], f"{what}: manifests")
    return [Descriptor(value, f"{what}: manifests") for value in listed]


def _resolve(
    blobs: Blobs, descriptor: Descriptor, platform: Platform | None
) -> tuple[Descriptor, JsonObject]:
    """Follow image indexes from ``descriptor`` to a manifest."""
    for _ in range(_DEPTH_LIMIT):
        what = f"{blobs.name}: blob {descriptor.digest}"
        document = object_of(parse_json(blobs.manifest(descriptor), what), what)
        media_type = document.get("mediaType") or descriptor.media_type
        if media_type in MANIFESTS or "config" in document:
            return descriptor, document
        if media_type not in INDEXES and "manifests" not in document:
            raise FormatError(
                f"{blobs.name}: {descriptor.digest}",
                0,
                f"{media_type!r} is not an image; choose another tag",
            )
        entries = manifests_of(document, f"{blobs.name}: {descriptor.digest}")
        stated = [entry.platform for entry in entries]
        descriptor = entries[choose_entry(stated, platform, blobs.name)]
    raise FormatError(
        blobs.name,
        0,
        f"image indexes are nested more than {_DEPTH_LIMIT} deep; copy the image alone",
    )
