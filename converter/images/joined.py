"""A boot image in a registry with the artifact of its data beside it, under one tag.

docs/format.md, "Store in a registry, version 1".
"""

from __future__ import annotations

from collections.abc import Sequence
from time import sleep

from converter.images.ociimage import MANIFEST, OciImage
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
    ) -> None:
        assert isinstance(backend, RegistryBackend)
        self._reference = reference
        self._backend = backend
        self._image = image
        self._boot_image = OciImage(config, layers)
        backend.subject = Descriptor(
            MANIFEST, self._boot_image.digest, len(self._boot_image.manifest)
        )

    def write(self) -> str:
        """Push the boot image and then, under the user's tag, the index; return its digest.

        The image must have been committed to the store.

        Raises:
            PackNotFound: it is not, or not any more.
            AccessDenied, StorageFull, RemoteError: it cannot be written.
            IntegrityError: a layer's stored bytes are not those of its digest.

        """
        artifact = self._backend.find_artifact(self._image)
        repository = self._backend.repository
        push_image(repository, self._boot_image, boot_image_tag(self._image, artifact.subject))
        self._list_referrer(artifact)
        entries = [self._boot_image.descriptor, _entry(artifact) | {"platform": _NO_PLATFORM}]
        index = _index_of(entries)
        repository.push_manifest(self._reference.tag, index)
        return index.digest

    def _list_referrer(self, artifact: Artifact) -> None:
        """See that the artifact is among the boot image's referrers, by API or by tag."""
        repository = self._backend.repository
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


def _entry(artifact: Artifact) -> JsonObject:
    return Descriptor(MANIFEST, artifact.digest, artifact.size, ARTIFACT_TYPE).as_json()


def _index_of(entries: Sequence[JsonObject]) -> Manifest:
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(entries)}
    return Manifest(encode_document(document), OCI_INDEX)
