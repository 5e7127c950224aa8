"""What skopeo's own transport dir: writes: an image's manifest, config and layers in a directory.

Files are named by their digest without its algorithm, the manifest is ``manifest.json``,
those of an image index ``DIGEST.manifest.json`` (containers/image, directory/explanation).
"""

from __future__ import annotations

from pathlib import Path

from converter.images.documents import (
    Descriptor,
    check_digest,
    object_of,
    parse_json,
    read_document,
)
from converter.images.resolving import open_resolved
from converter.images.view import ImageView, sha256_digest
from converter.platforms import Wish
from converter.reference import Reference
from converter.spool import FileBlob, Spool, os_errors_at

_VERSION = "Directory Transport Version: "


def is_skopeo_directory(path: Path) -> bool:
    """Whether a directory is what skopeo wrote, and not a root file system.

    Raises:
        AccessDenied: it may not be looked into.

    """
    with os_errors_at(path, "cannot be opened"):
        version = path / "version"
        if not (version.is_file() and (path / "manifest.json").is_file()):
            return False
        with version.open("rb") as file:
            return file.read(len(_VERSION)) == _VERSION.encode()


def open_skopeo_directory(reference: Reference, spool: Spool, platform: Wish = None) -> ImageView:
    """Return the image that skopeo keeps in a directory.

    Of an image index, the image for ``platform`` is taken, or without one that for this
    machine.

    Raises:
        ImageNotFound: the index has none for it.
        FormatError, IntegrityError: what is there is damaged.

    """
    path = Path(reference.name)
    what = f"{reference}: manifest.json"
    data = read_document(spool.open_file(path / "manifest.json"), what)
    manifest = object_of(parse_json(data, what), what)
    top = Descriptor(
        {
            "digest": sha256_digest(data),
            "size": len(data),
            "mediaType": str(manifest.get("mediaType") or ""),
        },
        what,
    )
    blobs = _Blobs(str(reference), path, spool, top.digest)
    return open_resolved(blobs, str(reference), top, platform)


class _Blobs:
    """The blobs of a directory, read in place."""

    def __init__(self, name: str, path: Path, spool: Spool, top: str) -> None:
        self.name = name
        self._path = path
        self._spool = spool
        self._top = top
        """Digest of what is called ``manifest.json``."""

    def document(self, descriptor: Descriptor) -> bytes:
        """Return a document, verified."""
        return self._read(descriptor, descriptor.digest.removeprefix("sha256:"))

    def manifest(self, descriptor: Descriptor) -> bytes:
        """Return a manifest or image index, verified."""
        if descriptor.digest == self._top:
            return self._read(descriptor, "manifest.json")
        base = descriptor.digest.removeprefix("sha256:")
        return self._read(descriptor, f"{base}.manifest.json")

    def layers(self, descriptors: list[Descriptor]) -> list[FileBlob]:
        """Return the stored bytes of layers, not verified."""
        return [
            self._open(descriptor, descriptor.digest.removeprefix("sha256:"))
            for descriptor in descriptors
        ]

    def _read(self, descriptor: Descriptor, name: str) -> bytes:
        what = f"{self.name}: {name}"
        data = read_document(self._open(descriptor, name), what)
        check_digest(data, descriptor.digest, what)
        return data

    def _open(self, descriptor: Descriptor, name: str) -> FileBlob:
        found = self._spool.open_file(self._path / name)
        descriptor.check_size(found.size, f"{self.name}: {name}")
        return found
