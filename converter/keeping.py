"""Commands that keep a store: verify it, forget an image, collect what none needs."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict

from converter.bootview import read_boot_image, refuse_root
from converter.images.transports import forget_image_in, open_image
from converter.progress import Progress, shown_progress
from converter.reference import Reference, parse_reference
from converter.spool import Spool
from store.errors import UsageError
from store.format.shownurl import shown
from store.interfaces import Backend, Listing
from store.write.backends import is_in_registry, open_backend
from store.write.checking import Problem, StoreCheck
from store.write.collecting import Garbage, collect
from store.write.hostsource import READ_LIMIT_S
from store.write.repairing import iter_repaired
from store.write.served import ImagesOf, is_served, open_objects

_CHUNK_INDEX = re.compile(r"blake3:([0-9a-f]{64})")
_DURATION = re.compile(r"(\d{1,9})([smhd]?)", re.ASCII)
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(text: str) -> float:
    """Return the seconds of ``90``, ``90s``, ``30m``, ``36h``, ``7d``.

    Raises:
        ArgumentTypeError: it is none of these.

    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; write 90s, 30m, 36h or 7d")
    return float(match[1]) * _SECONDS[match[2]]


def _warn(message: str) -> None:
    print(f"bootfs: {message}", file=sys.stderr)


def _open_writable(url: str) -> Backend:
    if is_served(url):
        raise UsageError(
            f"{shown(url)}: a web server cannot be written to; give the directory it serves"
        )
    return open_backend(url, _warn)


def _open_listing(url: str, images: Sequence[str]) -> Listing:
    """Return the store at ``url``, or of it what ``images`` need: references or digests."""
    if images:
        digests = sorted({_parse_image(image) for image in images})
        return ImagesOf(open_objects(url, READ_LIMIT_S), digests)
    if is_served(url):
        raise UsageError(
            f"{shown(url)}: a web server does not say what a store holds; name images of it with "
            "--image IMAGE, or give the directory it serves"
        )
    return open_backend(url, _warn)


def _parse_image(image: str) -> bytes:
    """Return the chunk index digest of a boot image, which ``blake3:…`` is already."""
    return _parse_named(image)[0]


def _parse_named(image: str) -> tuple[bytes, tuple[Reference, str] | None]:
    """Return the chunk index digest, and of a boot image its reference and own digest."""
    match = _CHUNK_INDEX.fullmatch(image)
    if match is None and image.startswith("blake3:"):
        raise UsageError(
            f"{image}: no digest of a chunk index; that is blake3: and 64 digits from 0 to f, as "
            "bootfs inspect shows it"
        )
    if match:
        return bytes.fromhex(match[1]), None
    reference = parse_reference(image)
    refuse_root(reference)
    with Spool() as spool:
        view = open_image(reference, spool)
        chunk_index = read_boot_image(view, spool).config.chunk_index
    return chunk_index, (reference, view.manifest_digest)


def check_whole_store(
    url: str,
    images: Sequence[str],
    mirror_url: str | None,
    progress_wish: str | None,
    *,
    as_json: bool,
) -> int:
    """Verify the store at ``url``, repair it where a mirror is given; return the problems left.

    Of a store that cannot be listed, or where some are named, what ``images`` need.

    Raises:
        NotFound, UsageError, AccessDenied: there is no store, or none that can be listed,
            or it lacks one of the images.
        Unreachable, AccessDenied: the mirror cannot be read.

    """
    with ExitStack() as stack:
        repairs = None if mirror_url is None else _open_writable(url)
        if repairs is not None:
            stack.enter_context(closing(repairs))
        check = StoreCheck(stack.enter_context(closing(_open_listing(url, images))))
        progress = stack.enter_context(shown_progress(progress_wish))
        found: list[tuple[Problem, str | None]] = []
        if mirror_url is None or repairs is None:
            outcomes: Iterator[tuple[Problem, str | None]] = (
                (problem, None) for problem in _iter_found(check, progress)
            )
        else:
            mirror = stack.enter_context(closing(open_objects(mirror_url, READ_LIMIT_S)))
            outcomes = iter(iter_repaired(repairs, mirror, lambda: _iter_found(check, progress)))
        for problem, left in outcomes:
            found.append((problem, left))
            if not as_json:
                progress.make_room()
                print(problem)
                if left is not None:
                    print(f"  not repaired: {left}" if left else f"  repaired from {mirror_url}")
        progress.end()
    # Of a name that was repaired and is no better the last outcome counts.
    outcome = {problem.name: left for problem, left in found}
    problems = sum(left != "" for left in outcome.values())
    counts = {kind: len(digests) for kind, digests in check.inventory.objects.items()}
    if as_json:
        listed = [
            {"name": problem.name, "what": problem.what, "repaired": left == "", "left": left or ""}
            for problem, left in found
        ]
        print(json.dumps({**counts, "problems": listed}))
    else:
        print(_checked_line(counts, len(outcome), problems, is_repair=repairs is not None))
    return problems


def _iter_found(check: StoreCheck, progress: Progress) -> Iterator[Problem]:
    progress.step("check", check.take_stock())
    yield from check.iter_problems(progress.advance)


def _checked_line(counts: dict[str, int], found: int, left: int, *, is_repair: bool) -> str:
    """Return the last line of a check."""
    line = f"{counts['packs']} packs, {counts['manifests']} images checked, {found} problems"
    if is_repair:
        return f"{line}, {found - left} repaired"
    return f"{line}; --repair URL gets objects from a store that has them whole" if found else line


def forget_image(url: str, image: str) -> int:
    """Remove an image, named by reference or digest, from the store at ``url``; return 0.

    Raises:
        NotFound: there is no store, no such boot image, or it is not in the store.
        UsageError: the image is no boot image, or has tags beside the one that is given.
        BootfsError: it cannot be read, or the store not be changed.

    """
    with closing(_open_writable(url)) as backend:
        digest, named = _parse_named(image)
        done = forget_image_in(backend, digest, named)
    frees = (
        "the registry's garbage collector frees what only it needed"
        if is_in_registry(url)
        else f"bootfs collect {url} --delete frees what only it needed, after the grace period"
    )
    print(f"{done}; {frees}")
    return 0


def collect_store(url: str, grace_s: float, *, delete: bool, as_json: bool) -> int:
    """Say what no image of the store at ``url`` needs, or remove it; return 0.

    Raises:
        NotFound, UsageError: there is no store, or one that is not collected from outside.
        IntegrityError, FormatError: it is damaged so that nothing can be collected.
        AccessDenied: it cannot be changed.

    """
    if delete and is_in_registry(url):
        raise UsageError(
            f"{shown(url)}: what no image needs the registry frees by itself: "
            "run its garbage collector; bootfs forget takes images out"
        )
    with closing(_open_writable(url)) as backend:
        found = collect(backend, grace_s, time.time(), delete=delete)
    if as_json:
        answer = {
            "deleted": delete,
            "images": [f"blake3:{image.hex()}" for image in found.images],
            "old": _as_json(found.old),
            "young": _as_json(found.young),
        }
        print(json.dumps(answer))
        return 0
    for garbage in found.old:
        print(f"{garbage.name}: {garbage.size} bytes, {garbage.age_s / 3600:.1f} hours old")
    size = sum(garbage.size for garbage in found.old) / 1e6
    done = "removed" if delete else "to remove with --delete"
    kept = f"; {len(found.young)} left, younger than the grace period" if found.young else ""
    print(f"{len(found.old)} objects, {size:.1f} MB {done}{kept}")
    return 0


def _as_json(garbage: list[Garbage]) -> list[dict[str, object]]:
    return [asdict(one) for one in garbage]
