"""Take a boot image out of the registry that keeps its data, and nobody else's."""

from __future__ import annotations

from converter.images.joined import is_joined
from converter.reference import Reference
from store.errors import UsageError
from store.interfaces import Backend
from store.write.backends.registry import RegistryBackend
from store.write.roots import check_is_store


def forget_in_registry(backend: Backend, image: bytes, named: tuple[Reference, str] | None) -> str:
    """Remove an image from a registry, and return what to say of it.

    ``image`` is the raw digest of its chunk index.  Of it goes all, or one boot image:
    ``named``, its reference and the digest of its manifest or config.

    Raises:
        NotFound: there is no store, or no such image in it.
        UsageError: the boot image has tags beside the one that is given.
        BootfsError: the store cannot be read, or not be changed.

    """
    assert isinstance(backend, RegistryBackend)
    check_is_store(backend)
    if named is None:
        what, tags = f"blake3:{image.hex()} forgotten", backend.forget(image)
    else:
        what, tags = _forget_boot_image(backend, image, *named)
    return f"{what}, {_counted(tags)} removed"


def _forget_boot_image(
    backend: RegistryBackend, image: bytes, reference: Reference, digest: str
) -> tuple[str, list[str]]:
    """Remove one boot image; return what to say of it, and the tags that went."""
    subject = backend.find_subject(image, digest)
    if not subject:
        what = f"blake3:{image.hex()} forgotten, for every boot image outside of this repository"
        return f"{what} that has it, with other settings too", backend.forget(image, subject)
    _check_no_other_tag(backend, reference, subject)
    return f"boot image {subject} forgotten", backend.forget(image, subject)


def _check_no_other_tag(backend: RegistryBackend, reference: Reference, subject: str) -> None:
    """Return when a boot image has no tag but the one that is given.

    One that is given by digest may have any.  A copy from elsewhere names no tag, so one
    may be there.

    Raises:
        UsageError: it has more.

    """
    is_here = is_joined(reference, backend)
    if is_here and not reference.tag:
        return
    tags = backend.tags_leading_to(subject)
    others = [tag for tag in tags if not is_here or tag != reference.tag]
    if others and (is_here or len(others) > 1):
        raise UsageError(
            f"{reference}: the boot image has {_counted(others)}{' too' if is_here else ''}, and "
            "a registry removes an image with all of its tags: move them on to other images, or "
            f"forget {backend.location}@{subject} to remove them all"
        )


def _counted(tags: list[str]) -> str:
    named = f" ({', '.join(tags)})" if tags else ""
    return f"{len(tags)} tag{'' if len(tags) == 1 else 's'}{named}"
