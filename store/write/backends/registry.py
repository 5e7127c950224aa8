"""A store in a repository of a registry (docs/decisions/0016-registry-store.md).

Objects are blobs.  What has been written can be found by its name in this process, and by
others once an artifact manifest names it: that is made when the store manifest of an image
is written.  The registry itself frees what no manifest names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from threading import Lock

from store.errors import DigestMismatch, NotFound, PackNotFound, SizeMismatch, UsageError
from store.format.distribution import blob_digest, profiles_image
from store.format.names import (
    STORE_MARK,
    STORE_MARK_TEXT,
    bootstrap_name,
    chunk_index_name,
    manifest_name,
    profiles_name,
)
from store.format.shownurl import shown
from store.write.artifact import (
    EMPTY,
    EMPTY_CONFIG,
    Artifact,
    Blob,
    artifact_tag,
    encode_artifact,
)
from store.write.artifactlist import ArtifactList
from store.write.artifactremoval import find_boot_image, plan_removal, remove_planned
from store.write.manifest import parse_manifest
from store.write.profileartifact import ProfileArtifacts
from store.write.registry import open_repository
from store.write.registry.answers import Refused
from store.write.registry.client import Repository
from store.write.registry.endpoint import parse_endpoint
from store.write.registry.manifest import Descriptor
from store.write.registry.uploads import Held, Kept
from store.write.roots import MANIFESTS
from store.write.temporary import temporary_file

HOT_PACKS = "hot/"
OF_PROFILES = ("profiles/", HOT_PACKS)
"""What names of objects begin with that an artifact of profiles has."""


class RegistryBackend:
    """Objects as blobs of the repository ``docker://HOST/REPOSITORY``."""

    read_ahead = 128 << 10

    def __init__(self, url: str, log: Callable[[str], None] = lambda _: None) -> None:
        self.location = url
        self.subject: Descriptor | None = None
        """The boot image that the artifacts made from now on belong to."""
        self.is_apart = False
        """Whether the boot image will be elsewhere: what others have is then not its own."""
        self.repository = open_repository(url, log=log)
        self._list = ArtifactList(self.repository)
        self._profiles = ProfileArtifacts(self.repository)
        self._others: list[tuple[str, Repository, ArtifactList]] = []
        self._lock = Lock()
        self._is_read = False
        self._is_made = False
        self._written: dict[str, Blob] = {}

    def dial(self) -> None:
        """Do nothing: the first request connects."""

    def close(self) -> None:
        """Close all connections."""
        for _, repository, _ in self._others:
            repository.close()
        self.repository.close()

    def mount_from(self, url: str) -> None:
        """List the packs of another repository of the same registry too.

        They are read there; `refresh` has the registry take one over into this repository.

        Raises:
            UsageError: it is none, or of another registry.
            AccessDenied, RemoteError: it cannot be read.

        """
        here, there = parse_endpoint(self.location), parse_endpoint(url)
        if here.api != there.api or here.repository == there.repository:
            raise UsageError(
                f"{shown(url)}: packs can be mounted from another repository of {here.host} alone"
            )
        repository = open_repository(url)
        artifacts = ArtifactList(repository)
        self._others.append((there.repository, repository, artifacts))
        artifacts.read()

    def check(self) -> None:
        """Return when the repository can be read, and holds no store of another version."""
        self.repository.check()
        self._read()

    def create(self) -> None:
        """Write the blob that every artifact needs: who may not write learns it now."""
        self.repository.push_blob(EMPTY_CONFIG.digest, Held(EMPTY))
        self._is_made = True

    # Objects ----------------------------------------------------------------------------

    def has(self, name: str) -> bool:
        """Whether the object exists, asked of the registry now."""
        if name == STORE_MARK:
            return self._is_made or bool(self._artifacts())
        digest = blob_digest(name)
        if digest:
            return self.repository.blob_size(digest) is not None
        if profiles_image(name):
            return self._profiles.find(name) is not None
        if name in self._written:
            return True
        if self._is_named(name):
            return True
        self._read()
        return self._is_named(name)

    def _is_named(self, name: str) -> bool:
        """Whether an artifact that still exists has the object."""
        return any(
            self.repository.find_manifest(artifact.digest) is not None
            for artifact in self._artifacts()
            if name in artifact.objects and self._is_ours(artifact, name)
        )

    def _is_ours(self, artifact: Artifact, name: str) -> bool:
        """Whether a store manifest counts: for a boot image only that which goes with it."""
        if not name.startswith(MANIFESTS) or (self.subject is None and not self.is_apart):
            return True
        return artifact.subject == (self.subject.digest if self.subject is not None else "")

    def size(self, name: str) -> int:
        """Return the object's size; see `Backend`."""
        return self._find(name)[1]

    def fetch(
        self, name: str, offset: int, size: int, arrived: Callable[[memoryview], None] | None = None
    ) -> bytes:
        """Return bytes of an object; see `Source`."""
        digest, whole = self._find(name)
        if offset + size > whole:
            raise SizeMismatch(f"{self.location}: {name}", offset + size, whole)
        if name == STORE_MARK:
            body = STORE_MARK_TEXT[offset : offset + size]
        else:
            body = self._fetch_range(name, digest, offset, size)
        if arrived is not None:
            arrived(memoryview(body))
        return body

    def _fetch_range(self, name: str, digest: str, offset: int, size: int) -> bytes:
        repositories = [self.repository]
        if name not in self._written and self._list.find(name) is None:
            repositories += [other for _, other, there in self._others if there.find(name)]
        for repository in reversed(repositories):
            try:
                return repository.fetch_range(digest, offset, size)
            except NotFound:
                continue
        raise PackNotFound(f"{self.location}: {name}, blob {digest}, does not exist")

    def _find(self, name: str) -> Blob:
        """Return the blob that an object is.

        Raises:
            PackNotFound: there is none of this name.

        """
        if name == STORE_MARK and self.has(name):
            return "", len(STORE_MARK_TEXT)
        if name in self._written:
            return self._written[name]
        if profiles_image(name):
            document = self._profiles.find(name)
            if document is None:
                raise PackNotFound(f"{self.location}: {name} does not exist")
            return document
        self._artifacts()
        for artifacts in (self._list, *(there for _, _, there in self._others)):
            found = artifacts.find(name)
            if found is not None:
                return found
        digest = blob_digest(name)
        size = self.repository.blob_size(digest) if digest else None
        if size is None:
            raise PackNotFound(f"{self.location}: {name} does not exist")
        return digest, size

    def find_artifact(self, image: bytes) -> Artifact:
        """Return the artifact of an image, by its chunk index's raw digest, and of `subject`.

        Raises:
            PackNotFound: there is none.

        """
        self._read()
        name = manifest_name(image)
        for artifact in self._artifacts():
            if name in artifact.objects and self._is_ours(artifact, name):
                return artifact
        raise PackNotFound(
            f"{self.location}: the image was forgotten while it was converted; convert again"
        )

    def iter_names(self, prefix: str) -> Iterator[str]:
        """Yield names that artifacts of the repository have, or that were written here.

        And of packs those of the repositories to mount from.
        """
        self._read()
        names = self._list.names() | self._written.keys()
        for _, _, there in self._others:
            names |= {name for name in there.names() if blob_digest(name)}
        if self._is_made or self._artifacts():
            names.add(STORE_MARK)
        if any(kind.startswith(prefix) or prefix.startswith(kind) for kind in OF_PROFILES):
            names.update(self._profiles.iter_names())
        yield from sorted(name for name in names if name.startswith(prefix))

    def _artifacts(self) -> list[Artifact]:
        with self._lock:
            if not self._is_read:
                self._list.read()
                self._is_read = True
            return list(self._list.current.values())

    def _read(self) -> None:
        with self._lock:
            self._list.read()
            self._is_read = True

    # Writing ----------------------------------------------------------------------------

    def write(self, name: str, pieces: Iterator[bytes]) -> None:
        """Write an object; see `Backend`."""
        if not self.has(name):
            self.replace(name, pieces)

    def replace(self, name: str, pieces: Iterator[bytes]) -> None:
        """Write an object, and with a store manifest the artifact of its image; see `Backend`."""
        if name.startswith(HOT_PACKS):
            self._write_hot_pack(name, pieces)
            return
        data = b"".join(pieces)
        if profiles_image(name):
            self._profiles.write(name, data)
            return
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        expected = blob_digest(name)
        if expected and digest != expected:
            raise DigestMismatch(f"{self.location}: {name}", expected, digest)
        self.repository.push_blob(digest, Held(data))
        if name.startswith(MANIFESTS):
            self._write_artifact(data, (digest, len(data)))
        else:
            self._written[name] = digest, len(data)

    def _write_hot_pack(self, name: str, pieces: Iterator[bytes]) -> None:
        """Write an object that may be too large for memory."""
        hashed = hashlib.sha256()
        with temporary_file() as file:
            for piece in pieces:
                hashed.update(piece)
                file.write(piece)
            content = Kept(file)
            digest = f"sha256:{hashed.hexdigest()}"
            if digest != blob_digest(name):
                raise DigestMismatch(f"{self.location}: {name}", blob_digest(name), digest)
            self.repository.push_blob(digest, content)
        self._written[name] = digest, content.size

    def _write_artifact(self, data: bytes, blob: Blob) -> None:
        image, packs = parse_manifest(data)
        others = {manifest_name(image): blob}
        for name in (chunk_index_name(image), bootstrap_name(image)):
            others[name] = self._find(name)
        manifest = encode_artifact(image, packs, others, self.subject)
        tag = artifact_tag(image, self.subject.digest if self.subject is not None else "")
        try:
            self.repository.push_manifest(tag, manifest)
        except Refused as error:
            if "MANIFEST_BLOB_UNKNOWN" not in error.codes:
                raise
            raise PackNotFound(
                f"{self.location}:{tag}: what the image needs was collected meanwhile; "
                "convert again, and collect when nobody converts"
            ) from None
        self._read()

    def refresh(self, name: str) -> bool:
        """Return whether the object exists, mounted now if need be.

        Blobs have no age that could be changed.
        """
        if self.has(name):
            return True
        digest = blob_digest(name)
        return bool(digest) and any(
            self.repository.mount_blob(digest, repository)
            for repository, _, there in self._others
            if there.find(name)
        )

    def age_s(self, name: str, now_s: float) -> float:
        """Return 0: what a registry does not need it frees itself, whatever its age."""
        del now_s
        self._find(name)
        return 0.0

    def iter_unfinished(self) -> Iterator[str]:
        """Yield nothing: uploads that were cut off are the registry's to forget."""
        return iter(())

    # Removing ---------------------------------------------------------------------------

    def remove(self, names: Iterable[str]) -> None:
        """Remove images, named by their store manifests, and what was written here in vain.

        Of the latter only the name, since a blob is the registry's.  With an image go its
        artifacts, and of each image index that lists nothing but artifacts and their boot
        images the index and the boot images too.

        Raises:
            UsageError: an object that images need.
            AccessDenied: the registry does not let us remove.

        """
        for name in names:
            if name.startswith(MANIFESTS):
                self._remove_image(name)
            elif profiles_image(name):
                self._profiles.remove(name)
            elif self._written.pop(name, None) is None and self.has(name):
                raise UsageError(
                    f"{self.location}: {name} is a blob, which only the registry frees: run its "
                    "garbage collector"
                )

    def _remove_image(self, name: str) -> None:
        self._read()
        self._remove_artifacts({a.digest for a in self._artifacts() if name in a.objects})

    def _remove_artifacts(self, doomed: set[str]) -> list[str]:
        """Remove artifacts, and what goes with them; return the user's tags that went."""
        images = {a.image for a in self._artifacts() if a.digest in doomed}
        removal = plan_removal(self._list, doomed)
        tags = self._list.tags_of(removal.indexes | removal.boot_images)
        remove_planned(self.repository, removal)
        self._read()
        for image in images - {a.image for a in self._artifacts()}:
            self._profiles.remove(profiles_name(image))
        return tags

    def find_subject(self, image: bytes, digest: str) -> str:
        """Return the subject of the artifacts that keep the data of one boot image.

        ``image`` is the raw digest of its chunk index, ``digest`` that of its manifest or
        config.  Empty where it shares an artifact with all that are in no repository of
        their data.

        Raises:
            NotFound: the repository has no data for it.
            FormatError, AccessDenied, RemoteError: as they say.

        """
        self._read()
        subjects = {a.subject for a in self._artifacts() if a.image == image}
        found = find_boot_image(self.repository, subjects - {""}, digest)
        if found is None and "" in subjects:
            return ""
        if found is not None:
            return found
        if not subjects:
            raise NotFound(f"{self.location} has no image blake3:{image.hex()}")
        raise NotFound(
            f"{self.location} has blake3:{image.hex()} for other boot images alone: "
            f"{', '.join(sorted(subjects))}; forget one of them by its tag, or all by blake3:…"
        )

    def tags_leading_to(self, boot_image: str) -> list[str]:
        """Return the user's tags by which a boot image is had, as last read, sorted."""
        return self._list.tags_leading_to(boot_image)

    def forget(self, image: bytes, subject: str | None = None) -> list[str]:
        """Remove an image, all of it or what belongs to ``subject``; return the tags that went.

        Those that bootfs made itself are not among them.

        Raises:
            NotFound: there is no such image.
            AccessDenied: the registry does not let us remove.
            FormatError, RemoteError: as they say.

        """
        self._read()
        doomed = {
            a.digest for a in self._artifacts() if a.image == image and subject in (None, a.subject)
        }
        if not doomed:
            raise NotFound(f"{self.location} has no image blake3:{image.hex()}")
        return self._remove_artifacts(doomed)

    def hold(self, *, alone: bool) -> AbstractContextManager[None]:
        """Do nothing: no blob is removed but by the registry, when no manifest names it.

        So who commits, and whose blobs are gone, is refused by the registry.
        """
        del alone
        return nullcontext()
