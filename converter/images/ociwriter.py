"""Write OCI image layouts: blobs first, the index that names them last."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from converter.images.documents import encode_json, list_of, object_of, parse_json
from converter.images.ociimage import INDEX, OciImage, OciIndex
from converter.images.ocilayout import REF_NAME
from converter.images.placing import refuse_existing_file, temporary_name, write_file
from converter.images.tarwriting import iter_checked, iter_tar
from converter.images.view import JsonObject, Layer, sha256_digest
from converter.reference import Reference
from converter.spool import os_errors_at
from store.errors import UsageError

_LAYOUT = encode_json({"imageLayoutVersion": "1.0.0"})


def write_oci_layout(reference: Reference, config: JsonObject, layers: Sequence[Layer]) -> str:
    """Write an image into an OCI layout directory and return the digest of its manifest.

    Raises:
        As `add_to_layout`.

    """
    return add_to_layout(reference, OciImage(config, layers))


def add_to_layout(reference: Reference, image: OciImage | OciIndex) -> str:
    """Write an image or image index into an OCI layout directory and return its digest.

    A new directory appears when it is complete.  To one that is a layout already
    the image is added as skopeo does: an older image of the same tag loses the
    tag, all others stay.  If writing fails, the layout is as before.

    Raises:
        UsageError: the directory is not empty and not a layout.
        NotFound, AccessDenied, StorageFull: it cannot be written.
        IntegrityError: a layer's stored bytes are not those of its digest.

    """
    path = Path(reference.name)
    existing = check_oci_layout(reference)
    with os_errors_at(path, "cannot be written"):
        if existing:
            with _locked(path):
                _add(path, image, reference.tag)
        else:
            _make(path, image, reference.tag)
    return image.digest


def check_oci_layout(reference: Reference) -> bool:
    """Return whether ``reference`` is in a layout that exists; False where one can be made.

    Raises:
        UsageError: the directory is not empty and not a layout, or none can have such a path.
        AccessDenied: it may not be listed.

    """
    path = Path(reference.name)
    with os_errors_at(path, "cannot be written"):
        if path.exists() and not path.is_dir():
            raise UsageError(f"{reference}: {path} is not a directory; for a tar use oci-archive:")
        existing = path.is_dir() and any(path.iterdir())
        if existing and not (path / "oci-layout").is_file():
            raise UsageError(
                f"{reference}: {path} is not empty and not an OCI layout; choose another directory"
            )
        return existing


def write_oci_archive(reference: Reference, config: JsonObject, layers: Sequence[Layer]) -> str:
    """Write a tar of an OCI layout with one image and return the digest of its manifest.

    Raises:
        As `write_archive_of`.

    """
    return write_archive_of(reference, OciImage(config, layers))


def write_archive_of(reference: Reference, image: OciImage | OciIndex) -> str:
    """Write a tar of an OCI layout with an image or image index and return its digest.

    The file appears when it is complete.

    Raises:
        UsageError: the file exists.
        NotFound, AccessDenied, StorageFull: the file cannot be written.
        IntegrityError: a layer's stored bytes are not those of its digest.

    """
    path = Path(reference.name)
    refuse_existing_file(path, str(reference))
    index = encode_json(_index_with({}, _entry(image, reference.tag)))
    members: list[tuple[str, bytes | Path, str]] = [("oci-layout", _LAYOUT, sha256_digest(_LAYOUT))]
    for digest, (data, _) in sorted(_blobs(image).items()):
        members.append((_blob_name(digest), data, digest))
    members.append(("index.json", index, sha256_digest(index)))
    write_file(path, iter_tar(members))
    return image.digest


def _make(path: Path, image: OciImage | OciIndex, tag: str) -> None:
    """Build a layout beside ``path`` and move it there when it is complete."""
    temporary = temporary_name(path)
    temporary.mkdir()
    try:
        (temporary / "blobs" / "sha256").mkdir(parents=True)
        write_file(temporary / "oci-layout", [_LAYOUT])
        _add(temporary, image, tag)
        # An empty directory is replaced by this, any other is not.
        os.rename(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _add(path: Path, image: OciImage | OciIndex, tag: str) -> None:
    index_path = path / "index.json"
    index: JsonObject = {}
    if index_path.exists():
        what = str(index_path)
        index = object_of(parse_json(index_path.read_bytes(), what), what)
    updated = encode_json(_index_with(index, _entry(image, tag)))
    (path / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
    added = []
    try:
        for digest, (data, size) in _blobs(image).items():
            blob = path / _blob_name(digest)
            if blob.is_file() and blob.stat().st_size == size:
                continue
            write_file(blob, iter_checked(data, size, digest, f"blob {digest}"))
            added.append(blob)
        write_file(index_path, [updated])
    except BaseException:
        for blob in added:
            blob.unlink(missing_ok=True)
        raise


def _entry(image: OciImage | OciIndex, tag: str) -> JsonObject:
    return image.descriptor | ({"annotations": {REF_NAME: tag}} if tag else {})


def _blobs(image: OciImage | OciIndex) -> dict[str, tuple[bytes | Path, int]]:
    return image.blobs | {image.digest: (image.manifest, len(image.manifest))}


def _index_with(index: JsonObject, descriptor: JsonObject) -> JsonObject:
    """Return ``index`` with an image added; unknown fields and other images stay."""
    tag = descriptor.get("annotations", {}).get(REF_NAME)
    manifests = []
    for value in list_of(index.get("manifests"), "index.json: manifests"):
        entry = object_of(value, "index.json: manifests")
        annotations = object_of(entry.get("annotations") or {}, "index.json: annotations")
        if tag and annotations.get(REF_NAME) == tag:
            annotations = {key: value for key, value in annotations.items() if key != REF_NAME}
            entry = {key: value for key, value in entry.items() if key != "annotations"}
            if annotations:
                entry["annotations"] = annotations
        if entry.get("digest") == descriptor["digest"] and REF_NAME not in annotations:
            continue
        manifests.append(entry)
    manifests.append(descriptor)
    return {"schemaVersion": 2, "mediaType": INDEX} | index | {"manifests": manifests}


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a layout against other writers of ours, or the last one would win the index."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _blob_name(digest: str) -> str:
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"
