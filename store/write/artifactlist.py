"""The artifacts of a repository: found by its tags, since a registry lists nothing else."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

from store.errors import FormatError, ImageNotFound, UnsupportedVersion
from store.write.artifact import Artifact, Blob, is_artifact_type, parse_artifact
from store.write.registry.client import Repository
from store.write.registry.manifest import Manifest, parse_descriptor

WORKERS = 8
_NOT_ASKED = re.compile(
    r"sha256-[0-9a-f]{64}|bootfs-[0-9a-f]{64}\.[0-9a-f]{32}\.image|bootfs-profiles-[0-9a-f]{64}"
)
"""Lists of referrers, boot images, and profiles: none is an artifact of an image or its index."""


class ArtifactList:
    """What artifacts there are; a manifest that was read once is not read again."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._artifacts: dict[str, Artifact | None] = {}
        """By digest; None of other manifests."""
        self._indexes: dict[str, tuple[set[str], set[str]]] = {}
        """By digest: the digests of all that it lists, and of what may be an artifact."""
        self.current: dict[str, Artifact] = {}
        """By digest, as they were when last read."""
        self._objects: dict[str, Blob] = {}
        self.indexes: dict[str, set[str]] = {}
        """Digest of each image index that has a tag, to all that it lists."""
        self._tags: dict[str, str] = {}
        """Those that are not `_NOT_ASKED`, to the digest that each names."""

    def read(self) -> None:
        """Bring it to what the repository has now.

        Raises:
            UnsupportedVersion: an artifact of a version this release does not read.
            FormatError: one is damaged.
            AccessDenied, RemoteError: as they say.

        """
        tags = [tag for tag in self._repository.iter_tags() if not _NOT_ASKED.fullmatch(tag)]
        with ThreadPoolExecutor(WORKERS) as pool:
            found_by_tag = zip(tags, pool.map(self._repository.find_manifest, tags), strict=True)
            self._tags = {tag: digest for tag, digest in found_by_tag if digest is not None}
            tagged = set(self._tags.values())
            places = sorted(tagged)
            list(pool.map(self._read_place, places))
            listed = {d for place in places for d in self._indexes.get(place, _NOTHING)[1]}
            # An index may outlive what it lists.
            asked = sorted(listed - tagged)
            there = {
                digest
                for digest, found in zip(
                    asked, pool.map(self._repository.find_manifest, asked), strict=True
                )
                if found is not None
            }
            list(pool.map(self._read_place, sorted(there)))
        self.current = {
            digest: artifact
            for digest, artifact in self._artifacts.items()
            if artifact is not None and (digest in tagged or digest in there)
        }
        self._objects = {
            name: blob
            for artifact in self.current.values()
            for name, blob in artifact.objects.items()
        }
        self.indexes = {
            place: self._indexes[place][0] for place in places if place in self._indexes
        }

    def find(self, name: str) -> Blob | None:
        """Return the blob that an object is, as last read; None where none has it."""
        return self._objects.get(name)

    def names(self) -> set[str]:
        """Return the names of all objects that artifacts have, as last read."""
        return set(self._objects)

    def tags_of(self, digests: set[str]) -> list[str]:
        """Return the tags that name one of some manifests, as last read, sorted.

        Of those that bootfs makes itself only artifacts' are among them.
        """
        return sorted(tag for tag, digest in self._tags.items() if digest in digests)

    def tags_leading_to(self, boot_image: str) -> list[str]:
        """Return the tags by which a boot image is had, also as one of several images, sorted."""
        places = {place for place, entries in self.indexes.items() if boot_image in entries}
        return self.tags_of({boot_image} | places)

    def _read_place(self, digest: str) -> None:
        """Learn what the manifest or image index of a digest is."""
        if digest in self._artifacts or digest in self._indexes:
            return
        where = f"{self._repository.location}@{digest}"
        try:
            manifest = self._repository.fetch_manifest(digest)
        except ImageNotFound:
            # Removed between two questions.
            return
        except UnsupportedVersion:
            raise
        except FormatError:
            # Of a kind that is none of ours.
            self._artifacts[digest] = None
            return
        if manifest.is_index:
            self._indexes[digest] = _read_index(manifest, where)
        else:
            self._artifacts[digest] = parse_artifact(manifest, where)


_NOTHING: tuple[set[str], set[str]] = (set(), set())


def _read_index(manifest: Manifest, where: str) -> tuple[set[str], set[str]]:
    """Return the digests of all that an index lists, and of what may be an artifact.

    Tools that copy may leave the type out (skopeo 1.9 does), and keep the platform.
    """
    entries = manifest.document(where).get("manifests")
    listed: set[str] = set()
    possible: set[str] = set()
    for value in entries if isinstance(entries, list) else []:
        entry = parse_descriptor(value, where)
        listed.add(entry.digest)
        platform = value.get("platform")
        is_unknown = isinstance(platform, dict) and platform.get("os") == "unknown"
        kind = entry.artifact_type
        if is_artifact_type(kind, where) or (is_unknown and not kind):
            possible.add(entry.digest)
    return listed, possible
