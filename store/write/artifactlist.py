"""The artifacts of a repository: found by its tags, since a registry lists nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from store.errors import FormatError, ImageNotFound, UnsupportedVersion
from store.write.artifact import Artifact, Blob, is_artifact_type, parse_artifact
from store.write.registry.client import Repository
from store.write.registry.manifest import Manifest, parse_descriptor

WORKERS = 8
_NOT_ASKED = re.compile(r"sha256-[0-9a-f]{64}|bootfs-[0-9a-f]{64}\.[0-9a-f]{32}\.image")
"""Lists of referrers, and boot images: neither is an artifact or the index of one."""

Places = dict[str, set[str]]
"""Digest of a manifest or image index to the digests of the artifacts there."""


class ArtifactList:
    """What artifacts there are; a manifest that was read once is not read again."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._places: Places = {}
        self._indexes: dict[str, set[str]] = {}
        self._artifacts: dict[str, Artifact] = {}
        self.current: dict[str, Artifact] = {}
        """By digest, as they were when last read."""
        self.indexes: dict[str, set[str]] = {}
        """Digest of each image index that lists an artifact, to all that it lists."""

    def read(self) -> None:
        """Bring it to what the repository has now.

        Raises:
            UnsupportedVersion: an artifact of a version this release does not read.
            FormatError: one is damaged.
            AccessDenied, RemoteError: as they say.

        """
        tags = [tag for tag in self._repository.iter_tags() if not _NOT_ASKED.fullmatch(tag)]
        current: dict[str, Artifact] = {}
        indexes: dict[str, set[str]] = {}
        with ThreadPoolExecutor(WORKERS) as pool:
            for place, found in pool.map(self._read_tag, tags):
                current.update((artifact.digest, artifact) for artifact in found)
                if place in self._indexes and found:
                    indexes[place] = self._indexes[place]
        self.current, self.indexes = current, indexes

    def find(self, name: str) -> Blob | None:
        """Return the blob that an object is, as last read; None where none has it."""
        for artifact in self.current.values():
            if name in artifact.objects:
                return artifact.objects[name]
        return None

    def _read_tag(self, tag: str) -> tuple[str, list[Artifact]]:
        """Return the digest of what a tag names, and the artifacts there."""
        try:
            digest = self._repository.find_manifest(tag)
            if digest is None:
                return "", []
            if digest not in self._places:
                self._read_place(digest)
        except ImageNotFound:
            # Removed between two questions.
            return "", []
        return digest, list(self._iter_there(self._places[digest]))

    def _read_place(self, digest: str) -> None:
        where = f"{self._repository.location}@{digest}"
        try:
            manifest = self._repository.fetch_manifest(digest)
        except UnsupportedVersion:
            raise
        except FormatError:
            # Of a kind that is none of ours.
            self._places[digest] = set()
            return
        if not manifest.is_index:
            artifact = parse_artifact(manifest, where)
            if artifact is not None:
                self._artifacts[digest] = artifact
            self._places[digest] = {digest} if artifact is not None else set()
            return
        listed = [parse_descriptor(value, where) for value in _entries(manifest, where)]
        self._places[digest] = {
            entry.digest for entry in listed if is_artifact_type(entry.artifact_type, where)
        }
        self._indexes[digest] = {entry.digest for entry in listed}

    def _iter_there(self, digests: set[str]) -> Iterator[Artifact]:
        for digest in sorted(digests):
            if digest not in self._artifacts:
                where = f"{self._repository.location}@{digest}"
                try:
                    found = parse_artifact(self._repository.fetch_manifest(digest), where)
                except ImageNotFound:
                    # An index may outlive what it lists.
                    continue
                if found is None:
                    continue
                self._artifacts[digest] = found
            yield self._artifacts[digest]


def _entries(manifest: Manifest, where: str) -> list[object]:
    listed = manifest.document(where).get("manifests")
    return listed if isinstance(listed, list) else []
