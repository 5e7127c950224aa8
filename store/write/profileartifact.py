"""The profiles of images in a registry: artifact manifests under tags that move.

Implements docs/format.md, "Store in a registry, version 1".  The manifest names the
document and all hot packs, so that the registry's own collector leaves them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from store.errors import AccessDenied, FormatError, ImageNotFound, PackNotFound, UnsupportedVersion
from store.format.distribution import (
    PROFILES_TYPE,
    blob_digest,
    profiles_image,
    profiles_tag,
)
from store.format.names import hot_pack_name, profiles_name
from store.format.profile import parse_profiles
from store.write.artifact import (
    EMPTY,
    EMPTY_CONFIG,
    TITLE,
    Blob,
    encode_document,
)
from store.write.registry.answers import Refused
from store.write.registry.client import Repository
from store.write.registry.manifest import (
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    parse_descriptor,
    sha256_of,
)
from store.write.registry.uploads import Held

ANY_VERSION = PROFILES_TYPE.rstrip("0123456789")
DOCUMENT_TYPE = "application/vnd.bootfs.profile-document.v1"
HOT_PACK_TYPE = "application/vnd.bootfs.hot-pack.v1"
_TAG = re.compile(r"bootfs-profiles-([0-9a-f]{64})")


def encode_profile_artifact(
    image: bytes, document: Blob, hot_packs: list[tuple[bytes, int]]
) -> Manifest:
    """Return the artifact manifest of an image's profiles; hot packs by raw digest and size."""
    layers = [Descriptor(DOCUMENT_TYPE, *document, annotations={TITLE: profiles_name(image)})]
    layers += [
        Descriptor(
            HOT_PACK_TYPE,
            f"sha256:{digest.hex()}",
            size,
            annotations={TITLE: hot_pack_name(digest)},
        )
        for digest, size in hot_packs
    ]
    document_json: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "artifactType": PROFILES_TYPE,
        "config": EMPTY_CONFIG.as_json(),
        "layers": [layer.as_json() for layer in layers],
    }
    return Manifest(encode_document(document_json), OCI_MANIFEST)


def parse_profile_artifact(manifest: Manifest, image: bytes, what: str) -> dict[str, Blob]:
    """Return the objects that the artifact of an image's profiles has, by name.

    Raises:
        UnsupportedVersion: of a version this release does not read.
        FormatError: it is something else, or has not its form.

    """
    document = manifest.document(what)
    kind = document.get("artifactType")
    if kind != PROFILES_TYPE:
        if isinstance(kind, str) and kind.startswith(ANY_VERSION):
            raise UnsupportedVersion(what, 0, f"artifact type {kind!r:.100}")
        raise FormatError(what, 0, "not the profiles of an image")
    listed = document.get("layers")
    layers = [
        parse_descriptor(value, f"{what}: layers")
        for value in (listed if isinstance(listed, list) else [])
    ]
    objects = {layer.annotations.get(TITLE, ""): (layer.digest, layer.size) for layer in layers}
    own = profiles_name(image)
    if own not in objects:
        raise FormatError(what, 0, "has no document of profiles")
    for name in objects.keys() - {own}:
        if not name.startswith("hot/") or blob_digest(name) != objects[name][0]:
            raise FormatError(what, 0, f"{name!r:.100} is no hot pack of its digest")
    return objects


class ProfileArtifacts:
    """The profiles of a repository's images; nothing that is read is kept, since it changes."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    def find(self, name: str) -> Blob | None:
        """Return the blob that is the document of a name; None where there is none.

        Raises:
            FormatError: something else is in its place, or it is damaged.
            AccessDenied, RemoteError: as they say.

        """
        image = profiles_image(name)
        objects = self._read(image) if image else None
        return None if objects is None else objects[name]

    def _read(self, image: bytes) -> dict[str, Blob] | None:
        tag = profiles_tag(image)
        try:
            manifest = self._repository.fetch_manifest(tag)
        except ImageNotFound:
            return None
        return parse_profile_artifact(manifest, image, f"{self._repository.location}:{tag}")

    def iter_names(self) -> Iterator[str]:
        """Yield the names of documents, and of the hot packs beside those that are sound."""
        for tag in self._repository.iter_tags():
            found = _TAG.fullmatch(tag)
            if found is None:
                continue
            image = bytes.fromhex(found[1])
            yield profiles_name(image)
            try:
                objects = self._read(image) or {}
            except FormatError:
                # Who reads the document is told what is wrong with it.
                continue
            yield from objects.keys() - {profiles_name(image)}

    def write(self, name: str, data: bytes) -> None:
        """Write a document over the one before; the hot packs that it names must be there.

        Raises:
            PackNotFound: the registry lacks one.
            FormatError, IntegrityError: it is no such document.
            AccessDenied, StorageFull, RemoteError: as they say.

        """
        image = profiles_image(name)
        if not image:
            raise FormatError(name, 0, "not the name of a document of profiles")
        profiles = parse_profiles(data, image, name)
        hot_packs = {one.hot_pack: one.hot_pack_size for one in profiles if one.hot_pack_size}
        digest = sha256_of(data)
        self._repository.push_blob(EMPTY_CONFIG.digest, Held(EMPTY))
        self._repository.push_blob(digest, Held(data))
        manifest = encode_profile_artifact(image, (digest, len(data)), sorted(hot_packs.items()))
        tag = profiles_tag(image)
        before = self._repository.find_manifest(tag)
        try:
            self._repository.push_manifest(tag, manifest)
        except Refused as error:
            if "MANIFEST_BLOB_UNKNOWN" not in error.codes:
                raise
            raise PackNotFound(
                f"{self._repository.location}:{tag}: a hot pack was collected meanwhile; add the "
                "profile again, and collect when nobody does"
            ) from None
        if before is not None and before != manifest.digest:
            try:
                self._repository.remove_manifest(before)
            except AccessDenied:
                # Who may add may not always remove.  It has no tag any more: that is what
                # registries look for when they clean up.
                return

    def remove(self, name: str) -> None:
        """Remove a document, whatever stands in its place; the registry frees the hot packs.

        Raises:
            AccessDenied: the registry does not let us remove.
            RemoteError: as it says.

        """
        image = profiles_image(name)
        digest = self._repository.find_manifest(profiles_tag(image)) if image else None
        if digest is not None:
            self._repository.remove_manifest(digest)
