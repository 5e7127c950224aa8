"""Remove artifacts from a repository, and what there is of their boot images beside them.

docs/format.md, "Store in a registry, version 1".
"""

from __future__ import annotations

from dataclasses import dataclass

from store.errors import ImageNotFound
from store.write.artifactlist import ArtifactList
from store.write.registry.client import Repository, referrers_tag


@dataclass(frozen=True, slots=True)
class Removal:
    """What is to go, by digest."""

    artifacts: set[str]
    boot_images: set[str]
    indexes: set[str]


def plan_removal(listed: ArtifactList, artifacts: set[str]) -> Removal:
    """Return what goes with artifacts: an image index that lists anything else stays whole."""
    boot_images = {listed.current[digest].subject for digest in artifacts} - {""}
    ours = artifacts | boot_images
    indexes = {place for place, entries in listed.indexes.items() if entries and entries <= ours}
    others = (entries for place, entries in listed.indexes.items() if place not in indexes)
    return Removal(artifacts, boot_images.difference(*others), indexes)


def remove_planned(repository: Repository, removal: Removal) -> None:
    """Remove it all; what is left by who was killed is found again.

    Raises:
        AccessDenied: the registry does not let us remove.
        RemoteError: as it says.

    """
    # What can be seen first: what is left after that is found again by its own tag.
    for digest in sorted(removal.indexes):
        repository.remove_manifest(digest)
    for digest in sorted(removal.boot_images):
        _remove_referrers(repository, digest, removal.artifacts)
        repository.remove_manifest(digest)
    for digest in sorted(removal.artifacts):
        repository.remove_manifest(digest)


def _remove_referrers(repository: Repository, boot_image: str, doomed: set[str]) -> None:
    """Remove the list of a boot image's referrers, where it has nothing else."""
    listed = repository.find_manifest(referrers_tag(boot_image))
    if listed is None:
        return
    referrers = repository.fetch_referrers(boot_image)
    if {referrer.digest for referrer in referrers} <= doomed:
        repository.remove_manifest(listed)


def find_boot_image(repository: Repository, boot_images: set[str], digest: str) -> str | None:
    """Return which of some manifests is an image, by the digest of its manifest or config.

    None where it is none of them.

    Raises:
        FormatError: one of them is damaged.
        AccessDenied, RemoteError: as they say.

    """
    if digest in boot_images:
        return digest
    for boot_image in sorted(boot_images):
        if _config_of(repository, boot_image) == digest:
            return boot_image
    return None


def _config_of(repository: Repository, boot_image: str) -> object:
    try:
        document = repository.fetch_manifest(boot_image).document(boot_image)
    except ImageNotFound:
        return None
    config = document.get("config")
    return config.get("digest") if isinstance(config, dict) else None
