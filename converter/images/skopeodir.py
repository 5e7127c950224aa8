"""What skopeo's own transport dir: writes: an image's manifest, config and layers in a directory.

Files are named by their digest without its algorithm, the manifest is ``manifest.json``,
those of an image index ``DIGEST.manifest.json`` (containers/image, directory/explanation).
"""

from __future__ import annotations

from pathlib import Path

from converter.images.documents import Descriptor, object_of, parse_json, read_document
from converter.images.ocilayout import image_of_manifest
from converter.images.view import ImageView, sha256_digest
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


def open_skopeo_directory(reference: Reference, spool: Spool) -> ImageView:
    """Return the image that skopeo keeps in a directory; of an image index, this machine's.

    Raises:
        ImageNotFound: the index has none for this machine.
        FormatError, IntegrityError: what is there is damaged.

    """
    path = Path(reference.name)
    files = _Files(str(reference), path, spool)
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
    files.top = top.digest
    return image_of_manifest(files, reference, top)


class _Files:
    """The blobs of a directory, found as an OCI layout names them."""

    def __init__(self, name: str, path: Path, spool: Spool) -> None:
        self.name = name
        self.top = ""
        """Digest of what is called ``manifest.json``."""
        self._path = path
        self._spool = spool

    def find(self, path: str) -> FileBlob | None:
        """Return the blob of that name, or None."""
        base = path.rpartition("/")[2]
        names = [base, f"{base}.manifest.json"]
        if f"sha256:{base}" == self.top:
            names = ["manifest.json"]
        for name in names:
            full = self._path / name
            with os_errors_at(full, "cannot be opened"):
                if full.is_file():
                    return self._spool.open_file(full)
        return None
