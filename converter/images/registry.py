"""docker://: images in registries, without an engine.

Reading streams the layers that are wanted into the spool, several at once, while they are
merged; writing sends what the repository lacks, and the manifest last.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

from converter.images.arriving import Arrivals
from converter.images.documents import DOCUMENT_LIMIT, Descriptor
from converter.images.ociimage import MANIFEST, OciImage
from converter.images.places import Places
from converter.images.resolving import open_resolved
from converter.images.tarwriting import size_of
from converter.images.view import ImageView, JsonObject, Layer
from converter.platforms import Platform
from converter.reference import Reference
from converter.spool import FileBlob, Spool, os_errors_at
from store.errors import FormatError, SizeMismatch, UsageError
from store.write.registry import open_repository
from store.write.registry.client import Repository
from store.write.registry.manifest import Manifest
from store.write.registry.uploads import Content, Held


def open_registry_image(
    reference: Reference, spool: Spool, platform: Platform | None = None
) -> ImageView:
    """Return an image of a registry, its layers to come into ``spool`` when they are wanted.

    They can be read at once, and whoever does waits for the bytes that have not come yet.
    What goes wrong with them is raised there.

    Raises:
        ImageNotFound: there is no such image, or none for the platform.
        AccessDenied: it may not be read with the account that was found.
        FormatError, IntegrityError: what is there is damaged, or no image.
        RemoteError: the registry does not answer as it should.
        StorageFull: the spool has no room for the image.

    """
    name = str(reference)
    with ExitStack() as opened:
        repository = opened.enter_context(closing(open_repository(reference.repository_url)))
        manifest = repository.fetch_manifest(reference.manifest_name)
        described = {
            "mediaType": manifest.media_type,
            "digest": manifest.digest,
            "size": len(manifest.data),
        }
        blobs = _RegistryBlobs(name, repository, opened.enter_context(closing(Arrivals(spool))))
        blobs.known[manifest.digest] = manifest.data
        view = open_resolved(blobs, name, Descriptor(described, name), platform)
        spool.end_first(opened.pop_all().close)
    return view


def check_registry_destination(reference: Reference) -> None:
    """Return when an image can be put where ``reference`` is, as far as can be seen now.

    Raises:
        UsageError: it has a digest instead of a tag.
        AccessDenied: the repository may not be written.
        RemoteError: the registry does not answer as it should.

    """
    if not reference.tag:
        raise UsageError(f"{reference}: an image cannot be written to a digest; give NAME:TAG")
    with closing(open_repository(reference.repository_url)) as repository:
        repository.check_writable()


def write_registry_image(reference: Reference, config: JsonObject, layers: Sequence[Layer]) -> str:
    """Push an image and return the digest of its manifest.

    The tag appears, or moves, when all else is there.  Layers that the repository has are
    not sent, nor those in files that another repository of the registry is known to have.

    Raises:
        UsageError: the reference has a digest instead of a tag.
        AccessDenied, StorageFull, RemoteError: it cannot be written.
        IntegrityError: a layer's stored bytes are not those of its digest.

    """
    if not reference.tag:
        raise UsageError(f"{reference}: an image cannot be written to a digest; give NAME:TAG")
    image = OciImage(config, layers)
    with closing(open_repository(reference.repository_url)) as repository:
        push_image(repository, image, reference.tag)
    return image.digest


def push_image(repository: Repository, image: OciImage, tag: str) -> None:
    """Put an image into a repository: what that lacks of its blobs, and the manifest last.

    Raises:
        AccessDenied, StorageFull, RemoteError, IntegrityError: as `write_registry_image`.

    """
    places = Places.of_user()
    with ExitStack() as files:
        for digest, (data, size) in image.blobs.items():
            content = _content_of(data, size, digest, files)
            # What is in a file is the runtime layer, which other images have too.
            is_shared = isinstance(data, Path)
            known = places.find(digest, repository.location) if is_shared else ""
            repository.push_blob(digest, content, mount_from=known)
            if is_shared:
                places.add(digest, repository.location)
        repository.push_manifest(tag, Manifest(image.manifest, MANIFEST))


def _content_of(data: bytes | Path, size: int, digest: str, files: ExitStack) -> Content:
    actual = size_of(data)
    if actual != size:
        raise SizeMismatch(f"blob {digest}", size, actual)
    if isinstance(data, bytes):
        return Held(data)
    with os_errors_at(data, "cannot be read"):
        file = files.enter_context(data.open("rb"))
    return FileBlob(file.fileno(), str(data), 0, size)


class _RegistryBlobs:
    """The blobs of an image, fetched from its repository."""

    def __init__(self, name: str, repository: Repository, arrivals: Arrivals) -> None:
        self.name = name
        self.known: dict[str, bytes] = {}
        """Manifests that were fetched already, by digest."""
        self._repository = repository
        self._arrivals = arrivals

    def document(self, descriptor: Descriptor) -> bytes:
        """Return a document, verified."""
        if descriptor.size > DOCUMENT_LIMIT:
            raise FormatError(
                f"{self.name}: blob {descriptor.digest}",
                0,
                f"{descriptor.size:,} bytes; the limit is {DOCUMENT_LIMIT:,}",
            )
        return b"".join(self._repository.iter_blob(descriptor.digest, descriptor.size))

    def manifest(self, descriptor: Descriptor) -> bytes:
        """Return a manifest or image index, verified."""
        if descriptor.digest not in self.known:
            found = self._repository.fetch_manifest(descriptor.digest).data
            descriptor.check_size(len(found), self.name)
            self.known[descriptor.digest] = found
        return self.known[descriptor.digest]

    def layers(self, descriptors: list[Descriptor]) -> list[FileBlob]:
        """Return the stored bytes of layers; each is fetched once, when it is wanted."""
        wanted = {descriptor.digest: descriptor for descriptor in descriptors}
        found = {digest: self._expect(descriptor) for digest, descriptor in wanted.items()}
        return [found[descriptor.digest] for descriptor in descriptors]

    def _expect(self, descriptor: Descriptor) -> FileBlob:
        return self._arrivals.expect(
            f"{self.name}: layer {descriptor.digest}",
            descriptor.size,
            lambda: self._repository.iter_blob(
                descriptor.digest, descriptor.size, self._arrivals.pause
            ),
        )
