"""oci and oci-archive: an OCI image layout, as a directory or in a tar (image-layout.md, 1.1)."""

from __future__ import annotations

from pathlib import Path

from converter.images.documents import (
    Descriptor,
    check_digest,
    object_of,
    parse_json,
    read_document,
)
from converter.images.members import Files, open_members
from converter.images.resolving import list_resolved, manifests_of, open_resolved
from converter.images.view import ImageView
from converter.platforms import Listed, Wish
from converter.reference import Reference
from converter.spool import FileBlob, Spool, os_errors_at
from store.errors import FormatError, ImageNotFound, NotFound, UsageError

REF_NAME = "org.opencontainers.image.ref.name"

_NO_LAYOUT = (
    "there is no file oci-layout: not an OCI image layout; "
    "for the tar of `docker save` use docker-archive:"
)


def open_oci_layout(reference: Reference, spool: Spool, platform: Wish = None) -> ImageView:
    """Return the image that ``reference`` names in an OCI layout directory.

    Without a tag the layout must hold exactly one image.  Of an image index, the
    image for ``platform`` is taken, or without one that for this machine.

    Raises:
        NotFound: there is no such directory, or (`ImageNotFound`) no such image in it.
        UsageError: the layout holds several images and no tag is given.
        FormatError, IntegrityError: the layout is damaged.

    """
    return _image_of(_directory(reference, spool), reference, platform)


def list_oci_layout(reference: Reference, spool: Spool) -> list[Listed] | None:
    """Return what the image index lists that ``reference`` names; None of an image alone.

    Raises:
        As `open_oci_layout`.

    """
    return list_resolved(*_find(_directory(reference, spool), reference))


def _directory(reference: Reference, spool: Spool) -> Directory:
    path = Path(reference.name)
    with os_errors_at(path, "cannot be opened"):
        if not path.is_dir():
            problem = (
                "is not a directory; for a tar use oci-archive:"
                if path.exists()
                else "does not exist; check the path"
            )
            raise NotFound(f"{reference}: {path} {problem}")
    return Directory(str(reference), path, spool)


def open_oci_archive(reference: Reference, spool: Spool, platform: Wish = None) -> ImageView:
    """Return the image that ``reference`` names in a tar of an OCI layout.

    Raises:
        As `open_oci_layout`, and StorageFull: no room to decompress the archive.

    """
    return _image_of(_archive(reference, spool), reference, platform)


def list_oci_archive(reference: Reference, spool: Spool) -> list[Listed] | None:
    """Return what the image index lists that ``reference`` names; None of an image alone.

    Raises:
        As `open_oci_archive`.

    """
    return list_resolved(*_find(_archive(reference, spool), reference))


def _archive(reference: Reference, spool: Spool) -> Files:
    return open_members(reference, spool.open_file(Path(reference.name)), spool)


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


def _image_of(files: Files, reference: Reference, platform: Wish = None) -> ImageView:
    blobs, named = _find(files, reference)
    return open_resolved(blobs, str(reference), named, platform)


def _find(files: Files, reference: Reference) -> tuple[_LayoutBlobs, Descriptor]:
    """Return the blobs of a layout, and what of them ``reference`` names."""
    if files.find("oci-layout") is None:
        raise FormatError(files.name, 0, _NO_LAYOUT)
    index = files.find("index.json")
    if index is None:
        raise FormatError(files.name, 0, "there is no index.json: incomplete, copy it again")
    what = f"{files.name}: index.json"
    document = object_of(parse_json(read_document(index, what), what), what)
    # Nothing has the digest of index.json: only its own form can tell damage.
    return _LayoutBlobs(files), _choose(manifests_of(document, what), reference)


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


class _LayoutBlobs:
    """The blobs of a layout, read in place."""

    def __init__(self, files: Files) -> None:
        self.name = files.name
        self._files = files

    def document(self, descriptor: Descriptor) -> bytes:
        """Return a document, verified."""
        what = f"{self.name}: blob {descriptor.digest}"
        data = read_document(self._blob(descriptor), what)
        check_digest(data, descriptor.digest, what)
        return data

    def manifest(self, descriptor: Descriptor) -> bytes:
        """Return a manifest or image index, verified."""
        return self.document(descriptor)

    def layers(self, descriptors: list[Descriptor]) -> list[FileBlob]:
        """Return the stored bytes of layers, not verified."""
        return [self._blob(descriptor) for descriptor in descriptors]

    def _blob(self, descriptor: Descriptor) -> FileBlob:
        found = self._files.find(f"blobs/sha256/{descriptor.digest.removeprefix('sha256:')}")
        if found is None:
            raise FormatError(self.name, 0, f"blob {descriptor.digest} is missing; copy it again")
        descriptor.check_size(found.size, self.name)
        return found
