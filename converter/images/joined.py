"""A boot image in a registry with the artifact of its data beside it, under one tag.

docs/format.md, "Store in a registry, version 1".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import sleep

from converter.images.ociimage import MANIFEST, OciImage, OciIndex
from converter.images.registry import push_image
from converter.images.view import JsonObject, Layer
from converter.reference import Reference
from store.interfaces import Backend
from store.read.retry import jittered
from store.write.artifact import (
    ARTIFACT_TYPE,
    Artifact,
    boot_image_tag,
    encode_document,
)
from store.write.backends.registry import RegistryBackend
from store.write.registry.client import referrers_tag
from store.write.registry.endpoint import parse_endpoint
from store.write.registry.manifest import OCI_INDEX, Descriptor, Manifest

LISTING_TRIES = 5
LISTING_PAUSE_S = 0.2
"""Time for who writes the same tag: he looks again after as much, and finds one another's entry."""
_NO_PLATFORM = {"architecture": "unknown", "os": "unknown"}
"""So that no engine takes the entry for an image."""


def is_joined(reference: Reference, backend: Backend) -> bool:
    """Whether boot image and store are in one repository."""
    if not reference.is_registry or not isinstance(backend, RegistryBackend):
        return False
    here, there = parse_endpoint(reference.repository_url), parse_endpoint(backend.location)
    return (here.api, here.repository) == (there.api, there.repository)


class JoinedImage:
    """A boot image to be written into the repository that is its store.

    From when it is made, what ``backend`` commits belongs to this boot image; ``image`` is
    the raw digest of its chunk index.
    """

    def __init__(
        self,
        reference: Reference,
        config: JsonObject,
        layers: Sequence[Layer],
        backend: Backend,
        image: bytes,
        stated: Mapping[str, object] | None = None,
    ) -> None:
        assert isinstance(backend, RegistryBackend)
        self.reference = reference
        self.backend = backend
        self._image = image
        self.boot_image = OciImage(config, layers, stated)
        self._subject = Descriptor(MANIFEST, self.boot_image.digest, len(self.boot_image.manifest))
        backend.subject = self._subject

    def choose(self) -> None:
        """Have ``backend`` mean this boot image again, where others came after it."""
        self.backend.subject = self._subject

    def push(self) -> JsonObject:
        """Push the boot image under a tag of its own; return the index's entry of its artifact.

        The image must have been committed to the store.

        Raises:
            PackNotFound: it is not, or not any more.
            AccessDenied, StorageFull, RemoteError: it cannot be written.
            IntegrityError: a layer's stored bytes are not those of its digest.

        """
        self.choose()
        artifact = self.backend.find_artifact(self._image)
        tag = boot_image_tag(self._image, artifact.subject)
        push_image(self.backend.repository, self.boot_image, tag)
        self._list_referrer(artifact)
        return _entry(artifact) | {"platform": _NO_PLATFORM}

    def _list_referrer(self, artifact: Artifact) -> None:
        """See that the artifact is among the boot image's referrers, by API or by tag."""
        repository = self.backend.repository
        for _ in range(LISTING_TRIES):
            listed = repository.fetch_referrers(artifact.subject)
            if any(referrer.digest == artifact.digest for referrer in listed):
                return
            entries = [referrer.as_json() for referrer in listed]
            # By tag there is no adding: who writes it at the same moment may not have seen this.
            repository.push_manifest(
                referrers_tag(artifact.subject), _index_of([*entries, _entry(artifact)])
            )
            sleep(jittered(LISTING_PAUSE_S))
        # A registry whose API answers, and lists nothing, has it by the artifact's own tag.


def write_joined(several: Sequence[JoinedImage], artifacts: Sequence[JsonObject]) -> str:
    """Push, under the user's tag, the index of boot images and their artifacts; return its digest.

    The boot images were pushed; ``artifacts`` are what `JoinedImage.push` returned.

    Raises:
        AccessDenied, StorageFull, RemoteError: it cannot be written.

    """
    # Of images that differ in nothing but what an index states there is one artifact.
    distinct = {artifact["digest"]: artifact for artifact in artifacts}
    index = OciIndex([one.boot_image for one in several], list(distinct.values()))
    several[0].backend.repository.push_manifest(
        several[0].reference.tag, Manifest(index.manifest, OCI_INDEX)
    )
    return index.digest


def _entry(artifact: Artifact) -> JsonObject:
    return Descriptor(MANIFEST, artifact.digest, artifact.size, ARTIFACT_TYPE).as_json()


def _index_of(entries: Sequence[JsonObject]) -> Manifest:
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(entries)}
    return Manifest(encode_document(document), OCI_INDEX)
