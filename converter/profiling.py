"""``bootfs profile add`` and ``remove``: what starts of an image read, kept in its store.

docs/profiles.md is for those who use it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import closing

from converter.profileplace import open_profiled, writable_store
from converter.profileviews import describe, printable
from converter.progress import shown_progress
from converter.reference import parse_reference
from converter.traces import read_traces
from store.errors import NotFound, UsageError
from store.format.chunkindex import ChunkIndex
from store.format.profile import ORIGINS, Profile
from store.format.shownurl import shown
from store.format.trace import Trace
from store.write.backends import open_backend
from store.write.profilebuild import NO_PROFILE, build_profile, check_name, merge_profiles
from store.write.profilestore import add_profile, has_damage, read_profiles, remove_profiles

RECORDING = ORIGINS.index("recording")


def add_profiles(
    image: str,
    paths: Sequence[str],
    container: str | None,
    name: str | None,
    store: str | None,
    progress_wish: str | None,
    *,
    replaces: bool,
    as_json: bool,
) -> int:
    """Add profiles made of traces, of each command one, or all in one that is named; return 0.

    Raises:
        UsageError: no trace is named, or the store cannot be written.
        NotFound: there is no such trace, image or store, or it has not the image.
        IntegrityError: a trace is of another image, or what the store has is damaged.
        StorageFull, AccessDenied, RemoteError: as they say.

    """
    if not paths and container is None:
        raise UsageError("profile add: give --trace FILE or --from CONTAINER")
    if name is not None:
        check_name(name)
    opened = open_profiled(parse_reference(image), store)
    url = writable_store(opened.store)
    traces = read_traces(paths, opened.image)
    if container is not None:
        from converter.images.recorded import read_container_traces

        traces += read_container_traces(container, opened.image, _warn)
    if not any(trace.reads for trace in traces):
        raise NotFound(
            "nothing was recorded: no read is in the traces; start the container with "
            "BOOTFS_RECORD=1, in mode erofs"
        )
    traces = [trace for trace in traces if trace.reads]
    index = opened.view.index
    done: list[Profile] = []
    with closing(open_backend(url)) as backend, shown_progress(progress_wish) as progress:
        is_mended = replaces and has_damage(backend, opened.image)
        known = [] if is_mended else read_profiles(backend, opened.image)
        for profile in profiles_of(index, traces, name, known):
            size = sum(index.plain_sizes[chunk] for chunk in profile.chunks)
            progress.step(f"hot pack of {profile.name}", size)
            whole = add_profile(
                backend,
                opened.image,
                index,
                profile,
                replaces=replaces,
                advance=progress.advance,
            )
            done.append(whole)
        progress.end()
    if is_mended:
        _warn(f"{shown(url)}: the profiles of the image were damaged, and are replaced")
    facts = [describe(one, index) for one in done]
    if as_json:
        print(json.dumps(facts))
    else:
        for fact in facts:
            print(
                f"{printable(fact['name'])}: {fact['reads']:,} reads of {fact['traces']:,} starts, "
                f"{fact['chunks']:,} chunks, {fact['plain'] / 1e6:.1f} MB; "
                f"hot pack of {fact['hot_pack'] / 1e6:.1f} MB"
            )
    return 0


def profiles_of(
    index: ChunkIndex,
    traces: Sequence[Trace],
    name: str | None,
    known: Sequence[Profile],
    origin: int = RECORDING,
) -> list[Profile]:
    """Return the profiles that traces make: with ``name`` one, else one for each command.

    One for a command that a profile of ``known`` is for has its name; else it is called as
    the program is, with a number behind where another command has that name.

    Raises:
        UsageError: ``name`` is none, or a command has no program's name.

    """
    if name is not None:
        first, *others = (
            build_profile(index, name, trace.command, [trace], origin) for trace in traces
        )
        for other in others:
            first = merge_profiles(index, first, other)
        return [first]
    names = {tuple(one.command): one.name for one in known}
    taken = {one.name for one in known}
    by_command: dict[tuple[bytes, ...], list[Trace]] = {}
    for trace in traces:
        by_command.setdefault(tuple(trace.command), []).append(trace)
    profiles = []
    for command, same in by_command.items():
        called = names.get(command) or _free_name(command, taken)
        taken.add(called)
        profiles.append(build_profile(index, called, list(command), same, origin))
    return profiles


def _free_name(command: tuple[bytes, ...], taken: set[str]) -> str:
    program = command[0].rpartition(b"/")[2].decode("utf-8", "replace") if command else ""
    if not program:
        raise UsageError("a trace does not say which program it is of; give --name NAME")
    # So short that a number fits behind.
    base = program.encode()[:48].decode("utf-8", "ignore")
    base = "".join(c if c.isprintable() else "?" for c in base)
    if base == NO_PROFILE:
        base += "-1"
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}-{number}"
    return name


def remove_from_store(
    image: str, names: Sequence[str], store: str | None, *, removes_all: bool
) -> int:
    """Remove profiles that are named, or all of a boot image; return 0.

    Raises:
        UsageError: neither names nor all are given, or both.
        NotFound: there is no such profile, image or store.
        BootfsError: the image cannot be read, or the store not be written.

    """
    if bool(names) == removes_all:
        raise UsageError("profile remove: give --name NAME or --all")
    opened = open_profiled(parse_reference(image), store)
    url = writable_store(opened.store)
    with closing(open_backend(url)) as backend:
        was_damaged = has_damage(backend, opened.image)
        gone = remove_profiles(backend, opened.image, None if removes_all else names)
    if was_damaged:
        print(f"the profiles of {opened.view.name} were damaged, and are removed, all of them")
    else:
        print(f"removed: {', '.join(map(printable, gone)) or 'nothing'}")
    return 0


def _warn(message: str) -> None:
    print(f"bootfs: {message}", file=sys.stderr)
