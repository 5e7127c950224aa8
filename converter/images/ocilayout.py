"""oci and oci-archive: an OCI image layout, as a directory or in a tar (image-layout.md, 1.1)."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

from converter.images.documents import (
    Descriptor,
    check_digest,
    diff_ids_of,
    list_of,
    object_of,
    parse_config,
    parse_json,
    read_document,
)
from converter.images.members import Files, open_members
from converter.images.view import ImageView, JsonObject, LayerSource
from converter.reference import Reference
from converter.spool import FileBlob, Spool, os_errors_at
from store.errors import FormatError, ImageNotFound, NotFound, UsageError

REF_NAME = "org.opencontainers.image.ref.name"

_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_DEPTH_LIMIT = 8
_NO_LAYOUT = (
    "there is no file oci-layout: not an OCI image layout; "
    "for the tar of `docker save` use docker-archive:"
)


def open_oci_layout(reference: Reference, spool: Spool) -> ImageView:
    """Return the image that ``reference`` names in an OCI layout directory.

    Without a tag the layout must hold exactly one image.  Of an image index, the
    image for this machine's platform is taken.

    Raises:
        NotFound: there is no such directory, or (`ImageNotFound`) no such image in it.
        UsageError: the layout holds several images and no tag is given.
        FormatError, IntegrityError: the layout is damaged.

    """
    path = Path(reference.name)
    with os_errors_at(path, "cannot be opened"):
        if not path.is_dir():
            problem = (
                "is not a directory; for a tar use oci-archive:"
                if path.exists()
                else "does not exist; check the path"
            )
            raise NotFound(f"{reference}: {path} {problem}")
    return _image_of(Directory(str(reference), path, spool), reference)


def open_oci_archive(reference: Reference, spool: Spool) -> ImageView:
    """Return the image that ``reference`` names in a tar of an OCI layout.

    Raises:
        As `open_oci_layout`, and StorageFull: no room to decompress the archive.

    """
    files = open_members(reference, spool.open_file(Path(reference.name)), spool)
    return _image_of(files, reference)


class Directory:
    """The files below a directory, opened on behalf of a spool."""

    def __init__(self, name: str, path: Path, spool: Spool) -> None:
        self.name = name
        self._path = path
        self._spool = spool

    def find(self, path: str) -> FileBlob | None:
        """Return the file of that name, or None."""
        full = self._path / path
        with os_errors_at(full, "cannot be opened"):
            return self._spool.open_file(full) if full.is_file() else None


def platform_of_machine() -> tuple[str, str]:
    """Return the operating system and architecture whose images run here, as OCI names them."""
    machine = platform.machine()
    return "linux", _ARCHITECTURES.get(machine, machine)


def _image_of(files: Files, reference: Reference) -> ImageView:
    if files.find("oci-layout") is None:
        raise FormatError(files.name, 0, _NO_LAYOUT)
    index = files.find("index.json")
    if index is None:
        raise FormatError(files.name, 0, "there is no index.json: incomplete, copy it again")
    what = f"{files.name}: index.json"
    document = object_of(parse_json(read_document(index, what), what), what)
    return image_of_manifest(files, reference, _choose(_manifests(document, what), reference))


def image_of_manifest(files: Files, reference: Reference, chosen: Descriptor) -> ImageView:
    """Return the image whose manifest, or an image index with one, ``chosen`` describes.

    ``files`` has its blobs under the names that they have in an OCI layout.

    Raises:
        ImageNotFound: an index has none for this machine.
        FormatError, IntegrityError: what is there is damaged.

    """
    descriptor, manifest = _resolve(files, chosen)
    return _view(files, reference, descriptor, manifest)


def _manifests(document: JsonObject, what: str) -> list[Descriptor]:
    # Nothing has the digest of index.json: only its own form can tell damage.
    if not isinstance(document.get("manifests"), list):
        raise FormatError(what, 0, "there is no list `manifests`: damaged, copy it again")
    listed = list_of(document["manifests"], f"{what}: manifests")
    return [Descriptor(value, f"{what}: manifests") for value in listed]


def _choose(manifests: list[Descriptor], reference: Reference) -> Descriptor:
    tags = [
        str(entry.annotations[REF_NAME]) for entry in manifests if REF_NAME in entry.annotations
    ]
    held = ", ".join(tags) or "images without tags"
    if reference.tag:
        for entry in manifests:
            if entry.annotations.get(REF_NAME) == reference.tag:
                return entry
        raise ImageNotFound(
            f"{reference}: the layout has no such tag; it holds {held}; name one of those"
        )
    if not manifests:
        raise ImageNotFound(f"{reference}: the layout holds no image; check the path")
    if len(manifests) > 1:
        raise UsageError(
            f"{reference}: the layout holds {len(manifests)} images ({held}); "
            f"name one: {reference.transport}:PATH:TAG"
        )
    return manifests[0]


def _resolve(files: Files, descriptor: Descriptor) -> tuple[Descriptor, JsonObject]:
    """Follow image indexes from ``descriptor`` to the manifest for this platform."""
    for _ in range(_DEPTH_LIMIT):
        data, what = _document(files, descriptor)
        document = object_of(parse_json(data, what), what)
        media_type = document.get("mediaType") or descriptor.media_type
        if media_type in _MANIFESTS or "config" in document:
            return descriptor, document
        if media_type not in _INDEXES and "manifests" not in document:
            raise FormatError(
                f"{files.name}: {descriptor.digest}",
                0,
                f"{media_type!r} is not an image; choose another tag",
            )
        system, architecture = platform_of_machine()
        entries = _manifests(document, f"{files.name}: {descriptor.digest}")
        fitting = [
            entry
            for entry in entries
            if (entry.platform.get("os"), entry.platform.get("architecture"))
            == (system, architecture)
        ]
        if not fitting:
            held = ", ".join(_platforms(entries)) or "none"
            raise ImageNotFound(
                f"{files.name}: no image for {system}/{architecture}; the index has {held}; "
                "choose another image"
            )
        descriptor = fitting[0]
    raise FormatError(
        files.name,
        0,
        f"image indexes are nested more than {_DEPTH_LIMIT} deep; copy the image alone",
    )


def _platforms(entries: list[Descriptor]) -> Iterator[str]:
    for entry in entries:
        yield f"{entry.platform.get('os')}/{entry.platform.get('architecture')}"


def _view(
    files: Files, reference: Reference, descriptor: Descriptor, manifest: JsonObject
) -> ImageView:
    what = f"{files.name}: manifest {descriptor.digest}"
    config = parse_config(*_document(files, Descriptor(manifest.get("config"), f"{what}: config")))
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
        LayerSource(diff_id, entry.digest, entry.media_type, _blob(files, entry))
        for entry, diff_id in zip(listed, diff_ids, strict=True)
    )
    return ImageView(str(reference), config, descriptor.digest, layers)


def _document(files: Files, descriptor: Descriptor) -> tuple[bytes, str]:
    """Return a document, which has its digest, and its name for messages."""
    what = f"{files.name}: blob {descriptor.digest}"
    data = read_document(_blob(files, descriptor), what)
    check_digest(data, descriptor.digest, what)
    return data, what


def _blob(files: Files, descriptor: Descriptor) -> FileBlob:
    found = files.find(f"blobs/sha256/{descriptor.digest.removeprefix('sha256:')}")
    if found is None:
        raise FormatError(files.name, 0, f"blob {descriptor.digest} is missing; copy it again")
    descriptor.check_size(found.size, files.name)
    return found
