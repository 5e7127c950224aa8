"""Take a boot image out of the registry that keeps its data, and nobody else's."""

from __future__ import annotations

from collections.abc import Sequence

from converter.images.joined import is_joined
from converter.reference import Reference
from store.errors import UsageError
from store.interfaces import Backend
from store.write.backends.registry import RegistryBackend
from store.write.roots import check_is_store


def forget_in_registry(
    backend: Backend, images: Sequence[tuple[bytes, str]], reference: Reference | None
) -> str:
    """Remove images from a registry, and return what to say of it.

    Each is given by the raw digest of its chunk index.  Of it goes all, or, where there is a
    ``reference``, the one boot image of that whose manifest or config has the digest beside it.

    Raises:
        NotFound: there is no store, or no such image in it.
        UsageError: a boot image has tags beside the one that is given.
        BootfsError: the store cannot be read, or not be changed.

    """
    assert isinstance(backend, RegistryBackend)
    check_is_store(backend)
    doomed: dict[tuple[bytes, str | None], str] = {}
    for image, digest in images:
        if reference is None:
            doomed[image, None] = f"blake3:{image.hex()} forgotten"
            continue
        subject = backend.find_subject(image, digest)
        doomed[image, subject] = f"boot image {subject} forgotten"
        if subject:
            _check_no_other_tag(backend, reference, subject)
        else:
            doomed[image, subject] = (
                f"blake3:{image.hex()} forgotten, for every boot image outside of this "
                "repository that has it, with other settings too"
            )
    if reference is not None and not is_joined(reference, backend):
        _check_no_other_beside(backend, reference, {subject for _, subject in doomed if subject})
    tags = backend.forget_all(doomed.keys())
    return f"{'; '.join(doomed.values())}, {_counted(tags)} removed"


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


def _check_no_other_beside(
    backend: RegistryBackend, reference: Reference, subjects: set[str]
) -> None:
    """Return when no index lists boot images that a copy elsewhere names beside others.

    Raises:
        UsageError: one does; the index would stay, and that boot image in it without its data.

    """
    for subject in sorted(subjects):
        others = backend.beside(subject) - subjects
        if others:
            (*_, tag) = backend.tags_leading_to(subject)
            raise UsageError(
                f"{reference}: the boot image is one of {len(others) + 1} in an image index, which "
                f"go together: forget {backend.location}:{tag}"
            )


def _counted(tags: list[str]) -> str:
    named = f" ({', '.join(tags)})" if tags else ""
    return f"{len(tags)} tag{'' if len(tags) == 1 else 's'}{named}"
