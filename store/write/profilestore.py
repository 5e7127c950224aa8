"""The profiles that a store has of an image: read, added to, removed.

docs/format.md, "Profiles, version 1".  Their document is the one object of a store that
changes; it is written last, over the one before, by who holds the store alone where that can be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from store.errors import (
    AccessDenied,
    BootfsError,
    FormatError,
    ImageNotFound,
    IntegrityError,
    NotFound,
    PackNotFound,
    UnsupportedVersion,
    UsageError,
)
from store.format.chunkindex import ChunkIndex
from store.format.names import hot_pack_name, manifest_name, profiles_name
from store.format.profile import DOCUMENT_LIMIT, Profile, parse_profiles
from store.interfaces import Backend, Objects
from store.write.hotpack import write_hot_pack
from store.write.profilebuild import ANALYSIS, merge_profiles
from store.write.profiles import encode_profiles
from store.write.roots import check_is_store

TRIES = 4
"""So many times is a profile made that others change meanwhile."""


def read_profiles(objects: Objects, image: bytes) -> list[Profile]:
    """Return the profiles that a store has of the image whose chunk index has a raw digest.

    None where there is no document.  Chunk and page numbers are not checked.

    Raises:
        IntegrityError: the document is damaged.
        UnsupportedVersion: a later release wrote it.
        AccessDenied, RemoteError: it cannot be read.

    """
    name = profiles_name(image)
    where = f"{objects.location}/{name}"
    for is_last in (False, True):
        try:
            size = objects.size(name)
            # A larger one is refused by what it begins with and its size.
            data = objects.fetch(name, 0, min(size, DOCUMENT_LIMIT + 1)) if size else b""
            return parse_profiles(data, image, where)
        except PackNotFound:
            return []
        except UnsupportedVersion:
            raise
        except (IntegrityError, FormatError) as error:
            # Once more: it may have been replaced between two requests.
            if is_last:
                raise IntegrityError(
                    f"{error}; bootfs profile add --replace or bootfs profile remove mends it"
                ) from None
    raise AssertionError


def has_damage(objects: Objects, image: bytes) -> bool:
    """Whether the document of an image's profiles is there and damaged.

    Raises:
        BootfsError: as `read_profiles`, but for the damage.

    """
    try:
        read_profiles(objects, image)
    except IntegrityError:
        return True
    return False


def add_profile(
    backend: Backend,
    image: bytes,
    index: ChunkIndex,
    profile: Profile,
    *,
    replaces: bool = False,
    advance: Callable[[int], None] = lambda _: None,
    read: Callable[[int], bytes] | None = None,
    without_hot_pack: bool = False,
) -> Profile:
    """Add a profile of `build_profile`, with its hot pack, and return what the store has now.

    Where there is one of its name, that is what both say; or the new one alone with
    ``replaces``, and where that was measured and the other only reckoned; then one of another
    name goes too that was reckoned of the same command.  A damaged document
    is replaced by ``replaces`` too.  ``image`` is the raw digest of ``index``.  ``advance`` is
    told the plain bytes of chunks, which ``read`` returns, verified, or else the store's packs
    have.  ``without_hot_pack`` starts fetch its chunks from the packs, before they are read.
    Else the hot pack is written first.  The one of the profile before stays until it is
    collected.

    Raises:
        ImageNotFound: the store does not have the image.
        IntegrityError: the document is damaged, or a chunk.
        FormatError: more profiles than there may be.
        StorageFull, AccessDenied, RemoteError: as they say.
        UnsupportedVersion: the document is of a later release.

    """
    check_is_store(backend)
    for _ in range(TRIES):
        check_has_image(backend, image)
        before = _named(_known(backend, image, mends=replaces), profile.name)
        whole = profile
        if before is not None and not replaces and not _is_better(profile, before):
            whole = merge_profiles(index, before, profile)
        if not without_hot_pack:
            write_hot_pack(backend, index, whole, advance, read)
        with _held(backend):
            known = _known(backend, image, mends=replaces)
            if not replaces and not _is_same(_named(known, profile.name), before):
                continue
            check_has_image(backend, image)
            _check_has_hot_pack(backend, whole)
            kept = [one for one in known if not _makes_way(one, whole)]
            _write(backend, image, sorted([*kept, whole], key=lambda one: one.name))
        return whole
    raise BootfsError(
        f"{backend.location}/{profiles_name(image)}: others change profile {profile.name!r} all "
        "the time; add it again"
    )


def remove_profiles(backend: Backend, image: bytes, names: Sequence[str] | None) -> list[str]:
    """Remove profiles, all of them where ``names`` is None; return the names of those.

    A damaged document is removed whole, and nobody knows the names; their hot packs stay
    until they are collected.

    Raises:
        NotFound: there is none of a name; nothing was removed.
        UnsupportedVersion: the document is of a later release.
        AccessDenied, RemoteError: as they say.

    """
    check_is_store(backend)
    with _held(backend):
        known = _known(backend, image, mends=True)
        if has_damage(backend, image):
            names = None
        for name in names or ():
            if _named(known, name) is None:
                there = ", ".join(repr(one.name) for one in known) or "none"
                raise NotFound(f"{backend.location} has no profile {name!r} of the image: {there}")
        left = [one for one in known if names is not None and one.name not in names]
        if left:
            _write(backend, image, left)
        else:
            backend.remove([profiles_name(image)])
        return [one.name for one in known if one not in left]


def _known(backend: Objects, image: bytes, *, mends: bool) -> list[Profile]:
    """Return the profiles there are; with ``mends`` of a damaged document none."""
    try:
        return read_profiles(backend, image)
    except IntegrityError:
        if not mends:
            raise
        return []


def _named(profiles: list[Profile], name: str) -> Profile | None:
    return next((one for one in profiles if one.name == name), None)


def _makes_way(old: Profile, new: Profile) -> bool:
    """Whether a profile goes when another comes: of its name, or better and of its command.

    Who has only the command would not know which of the two to take.
    """
    return old.name == new.name or (old.command == new.command and _is_better(new, old))


def _is_better(new: Profile, old: Profile) -> bool:
    """Whether one was measured and the other told from the image alone."""
    return old.origin == ANALYSIS and new.origin != ANALYSIS


def _is_same(one: Profile | None, other: Profile | None) -> bool:
    if one is None or other is None:
        return one is other
    return all(getattr(one, name) == getattr(other, name) for name in Profile.__slots__)


def _write(backend: Backend, image: bytes, profiles: list[Profile]) -> None:
    backend.replace(profiles_name(image), iter((encode_profiles(image, profiles),)))


def check_has_image(backend: Backend, image: bytes) -> None:
    """Return when a store has the image whose chunk index has a raw digest.

    Raises:
        ImageNotFound: it has not.

    """
    if not backend.has(manifest_name(image)):
        raise ImageNotFound(
            f"{backend.location}: no image blake3:{image.hex()} in this store; check its address, "
            "or convert the image into it"
        )


def _check_has_hot_pack(backend: Backend, profile: Profile) -> None:
    if profile.hot_pack_size and not backend.has(hot_pack_name(profile.hot_pack)):
        raise PackNotFound(
            f"{backend.location}/{hot_pack_name(profile.hot_pack)}: collected while it was needed; "
            "add the profile again, and collect with a longer --grace"
        )


@contextmanager
def _held(backend: Backend) -> Iterator[None]:
    """Hold the store alone, so that nobody else changes a document meanwhile, where that can be.

    Where it cannot, over SFTP and in registries, or for who may not write the mark, two
    who change the profiles of one image at the same moment may lose what one of them did.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(backend.hold(alone=True))
        except (UsageError, AccessDenied):
            stack.enter_context(backend.hold(alone=False))
        yield
