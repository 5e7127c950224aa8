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
from converter.platforms import UNKNOWN, Listed, Stated, Wish, check_stated, choose_entry
from converter.spool import FileBlob
from store.errors import FormatError, ImageNotFound

INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_DEPTH_LIMIT = 8
_LISTED_LIMIT = 1000
"""Images that are listed below one tag: more than anybody has architectures for."""


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
    blobs: Blobs, reference: str, descriptor: Descriptor, platform: Wish
) -> ImageView:
    """Return the image that ``descriptor`` leads to, of an image index the one for ``platform``.

    Without a platform the one for this machine.

    Raises:
        ImageNotFound: no image for the platform.
        FormatError: what is there is no image, or damaged.

    """
    named = descriptor
    descriptor, manifest, is_only = _resolve(blobs, descriptor, platform)
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
    return ImageView(reference, config, descriptor.digest, layers, named.digest, is_only)


def list_resolved(blobs: Blobs, descriptor: Descriptor) -> list[Listed] | None:
    """Return all that the image index lists which ``descriptor`` is; None where it is none.

    What a nested index lists stands in its place.  Where no platform is stated, that of the
    nested index counts, or else the image's config.

    Raises:
        FormatError, IntegrityError: an entry is damaged.

    """
    document = _document(blobs, descriptor)
    if not _is_index(blobs, descriptor, document):
        return None
    found: list[Listed] = []
    todo = _entries_of(blobs, descriptor, document, (), {})
    seen = 0
    while todo:
        way, entry, platform = todo.pop()
        seen += 1
        if seen > _LISTED_LIMIT:
            raise FormatError(
                blobs.name,
                0,
                f"an image index lists more than {_LISTED_LIMIT:,}; copy some images of it alone",
            )
        if platform.get("os") == UNKNOWN or entry.media_type not in (*INDEXES, *MANIFESTS, ""):
            found.append(Listed(way, platform, False))
        elif entry.media_type in MANIFESTS and platform:
            found.append(Listed(way, platform))
        elif _is_index(blobs, entry, below := _document(blobs, entry)):
            if len(way) + 1 == _DEPTH_LIMIT:
                raise _too_deep(blobs)
            todo += _entries_of(blobs, entry, below, way, platform)
        else:
            found.append(Listed(way, platform or _platform_of(blobs, entry, below)))
    return found


def _entries_of(
    blobs: Blobs, index: Descriptor, document: JsonObject, way: tuple[str, ...], stated: Stated
) -> list[tuple[tuple[str, ...], Descriptor, Stated]]:
    """Return what an index lists, the last first: the way to each, and its platform."""
    entries = manifests_of(document, f"{blobs.name}: {index.digest}")
    return [((*way, entry.digest), entry, entry.platform or stated) for entry in reversed(entries)]


def _platform_of(blobs: Blobs, descriptor: Descriptor, manifest: JsonObject) -> JsonObject:
    what = f"{blobs.name}: manifest {descriptor.digest}"
    described = Descriptor(manifest.get("config"), f"{what}: config")
    config = parse_config(blobs.document(described), f"{blobs.name}: blob {described.digest}")
    return {key: config[key] for key in ("os", "architecture", "variant") if key in config}


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
    blobs: Blobs, descriptor: Descriptor, platform: Wish
) -> tuple[Descriptor, JsonObject, bool]:
    """Follow image indexes from ``descriptor`` to a manifest.

    And return whether they list no other image.
    """
    is_only = True
    for depth in range(_DEPTH_LIMIT):
        document = _document(blobs, descriptor)
        if not _is_index(blobs, descriptor, document):
            return descriptor, document, is_only
        entries = manifests_of(document, f"{blobs.name}: {descriptor.digest}")
        is_only = is_only and sum(e.platform.get("os") != UNKNOWN for e in entries) == 1
        descriptor = _choose(blobs, entries, platform, depth)
    raise _too_deep(blobs)


def _choose(blobs: Blobs, entries: list[Descriptor], platform: Wish, depth: int) -> Descriptor:
    if not isinstance(platform, Listed):
        return entries[choose_entry([e.platform for e in entries], platform, blobs.name)]
    for entry in entries:
        if platform.way[depth : depth + 1] == (entry.digest,):
            return entry
    raise ImageNotFound(
        f"{blobs.name}: the image for {platform}, {platform.digest}, is not there any more; "
        "somebody has changed the image index meanwhile: try again"
    )


def _document(blobs: Blobs, descriptor: Descriptor) -> JsonObject:
    what = f"{blobs.name}: blob {descriptor.digest}"
    return object_of(parse_json(blobs.manifest(descriptor), what), what)


def _is_index(blobs: Blobs, descriptor: Descriptor, document: JsonObject) -> bool:
    """Whether a document is an image index; False where it is a manifest.

    Raises:
        FormatError: it is neither.

    """
    media_type = document.get("mediaType") or descriptor.media_type
    if media_type in MANIFESTS or "config" in document:
        return False
    if media_type not in INDEXES and "manifests" not in document:
        raise FormatError(
            f"{blobs.name}: {descriptor.digest}",
            0,
            f"{media_type!r} is not an image; choose another tag",
        )
    return True


def _too_deep(blobs: Blobs) -> FormatError:
    return FormatError(
        blobs.name,
        0,
        f"image indexes are nested more than {_DEPTH_LIMIT} deep; copy the image alone",
    )
