"""Remove from a store what no image needs (docs/decisions/0013-collecting.md).

Safe beside conversions: nothing is removed but by who holds the store alone and has
read every manifest since.  A conversion whose objects went before it committed fails
then, and leaves no manifest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from store.errors import (
    BootfsError,
    IntegrityError,
    NotFound,
    PackNotFound,
    UnsupportedVersion,
)
from store.format.names import hot_pack_name, manifest_name, profiles_name
from store.interfaces import Backend
from store.write.manifest import parse_manifest
from store.write.profilestore import read_profiles
from store.write.roots import MANIFESTS, Packs, Roots, check_is_store, needed_names
from store.write.tracestore import image_of_trace

GRACE_S = 24 * 3600.0
"""What is younger is left: longer than a conversion takes, and than it takes somebody to
repeat one that was killed, which goes on with the packs it left."""
TRACE_S = 30 * 24 * 3600.0
"""Traces of an image that is there are left for so long: somebody may make a profile of them."""

_OBJECT = re.compile(
    r"packs/([0-9a-f]{2})/\1[0-9a-f]{62}|(indexes|bootstraps|profiles|hot)/[0-9a-f]{64}"
)


@dataclass(frozen=True, slots=True)
class Garbage:
    """Something that no image needs; size in bytes."""

    name: str
    size: int
    age_s: float


@dataclass(slots=True)
class Collection:
    """What a collection found."""

    old: list[Garbage] = field(default_factory=list)
    """What it removes, by name."""
    young: list[Garbage] = field(default_factory=list)
    """What it leaves, because it may still be needed."""
    images: list[bytes] = field(default_factory=list)
    """Raw digests of the chunk indexes of the images that keep the rest, sorted."""


def collect(backend: Backend, grace_s: float, now_s: float, *, delete: bool) -> Collection:
    """Find what no image needs; with ``delete`` remove what is older than ``grace_s``.

    Unfinished files are among it; files that bootfs never wrote are not.  May be ended
    at any moment and begun again.

    Raises:
        IntegrityError, FormatError: a manifest or chunk index is damaged; nothing was removed.
        NotFound, UsageError, AccessDenied: there is no store, or it cannot be changed.

    """
    check_is_store(backend)
    roots = Roots(backend)
    # Most of the reading before anybody has to wait.
    roots.read()
    if not delete:
        return _find(backend, roots, grace_s, now_s)
    with backend.hold(alone=True):
        roots.read()
        found = _find(backend, roots, grace_s, now_s)
        backend.remove(garbage.name for garbage in found.old)
    return found


def _find(backend: Backend, roots: Roots, grace_s: float, now_s: float) -> Collection:
    names = list(backend.iter_names(""))
    objects = [name for name in names if _OBJECT.fullmatch(name)]
    traces = {name: image for name in names if (image := image_of_trace(name)) is not None}
    needed = roots.needed() | _used_by_profiles(backend, roots.images, objects)
    found = Collection(images=sorted(roots.images))
    for name in [*objects, *traces, *backend.iter_unfinished()]:
        if name in needed:
            continue
        try:
            garbage = Garbage(name, backend.size(name), backend.age_s(name, now_s))
        except PackNotFound:
            # Unfinished, and finished by now.
            continue
        is_of_image = traces.get(name) in roots.images
        limit_s = max(grace_s, TRACE_S) if is_of_image else grace_s
        (found.old if garbage.age_s >= limit_s else found.young).append(garbage)
    return found


def _used_by_profiles(backend: Backend, images: Iterable[bytes], names: list[str]) -> set[str]:
    """Return the names of the profiles of images, and of the hot packs that they name.

    A document that is damaged is of no use to anybody, and goes as the others do that no
    image needs.  What hot packs it names nobody can tell: while it is there all are left.
    """
    used: set[str] = set()
    there = set(names)
    is_certain = True
    for image in images:
        if profiles_name(image) not in there:
            continue
        try:
            profiles = read_profiles(backend, image)
        except UnsupportedVersion:
            used.add(profiles_name(image))
            is_certain = False
        except IntegrityError:
            is_certain = False
        else:
            used.add(profiles_name(image))
            used |= {hot_pack_name(one.hot_pack) for one in profiles if one.hot_pack_size}
    return used if is_certain else used | {name for name in names if name.startswith("hot/")}


def forget(backend: Backend, image: bytes) -> None:
    """Remove an image from a store: its manifest; a collection takes what only it needed.

    And its profiles, which are of no use without it.

    The grace period of that begins now.

    Raises:
        NotFound: there is no store, or no such image in it.
        UsageError, AccessDenied: it cannot be changed.

    """
    check_is_store(backend)
    if not backend.has(manifest_name(image)):
        raise NotFound(f"{backend.location} has no image blake3:{image.hex()}")
    others: set[str] = set()
    for name in backend.iter_names(MANIFESTS):
        other = _read_if_sound(backend, name)
        if other is not None and other[0] != image:
            others |= needed_names(*other)
    own = _read_if_sound(backend, manifest_name(image)) or (image, [])
    for name in sorted(needed_names(image, own[1]) - others):
        backend.refresh(name)
    for name in _hot_packs_if_sound(backend, image):
        backend.refresh(name)
    with backend.hold(alone=True):
        backend.remove((manifest_name(image), profiles_name(image)))


def _hot_packs_if_sound(backend: Backend, image: bytes) -> list[str]:
    """Return the names of an image's hot packs; of damaged profiles none."""
    try:
        profiles = read_profiles(backend, image)
    except (IntegrityError, UnsupportedVersion):
        return []
    return sorted({hot_pack_name(one.hot_pack) for one in profiles if one.hot_pack_size})


def _read_if_sound(backend: Backend, name: str) -> tuple[bytes, Packs] | None:
    """Return what a manifest says; None of a damaged one, which forgetting must not need."""
    try:
        return parse_manifest(backend.fetch(name, 0, backend.size(name)))
    except BootfsError:
        return None
