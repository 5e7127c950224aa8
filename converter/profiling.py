"""``bootfs profile add`` and ``remove``: what starts of an image read, kept in its store.

docs/profiles.md is for those who use it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

from converter.platforms import Platform
from converter.profileplace import open_profiled, writable_store
from converter.profileviews import describe, printable
from converter.progress import shown_progress
from converter.reference import parse_reference
from converter.traces import Found, choose_traces, read_traces
from store.errors import NotFound, UsageError
from store.format.chunkindex import ChunkIndex
from store.format.profile import ORIGINS, Profile
from store.format.shownurl import shown
from store.format.trace import Trace
from store.interfaces import Backend
from store.write.backends import open_backend
from store.write.profilebuild import NO_PROFILE, build_profile, check_name, merge_profiles
from store.write.profilestore import add_profile, has_damage, read_profiles, remove_profiles
from store.write.roots import check_is_store
from store.write.tracestore import read_stored_traces, remove_traces

RECORDING = ORIGINS.index("recording")


@dataclass(frozen=True, slots=True)
class TraceSources:
    """Where traces are taken from."""

    paths: Sequence[str] = ()
    """Files, and directories of them."""
    container: str | None = None
    """One of the local engine."""
    from_store: bool = False
    """What containers have sent to the store."""
    newest: int | None = None
    """How many of each command, at most; None: all."""


def add_profiles(
    image: str,
    sources: TraceSources,
    name: str | None,
    store: str | None,
    platform: Platform | None,
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
    if not sources.paths and sources.container is None and not sources.from_store:
        raise UsageError("profile add: give --trace FILE, --from CONTAINER or --from-store")
    if name is not None:
        check_name(name)
    opened = open_profiled(parse_reference(image), store, platform)
    url = writable_store(opened.store)
    index = opened.view.index
    done: list[Profile] = []
    with closing(open_backend(url)) as backend, shown_progress(progress_wish) as progress:
        found = choose_traces(
            _find_traces(sources, opened.image, backend),
            sources.newest,
            _warn,
        )
        traces = [one.trace for one in found]
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
        # What has come to the store meanwhile is not among them, and stays.
        remove_traces(backend, [one.stored for one in found if one.stored], _warn)
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


def _find_traces(sources: TraceSources, image: bytes, backend: Backend) -> list[Found]:
    """Return all traces of an image that sources have; of what is none of it a line is said.

    Raises:
        NotFound: there is no such file, container or store, or nothing of the image in it.
        FormatError, IntegrityError: a file that is named is no trace, or of another image.

    """
    found = read_traces(sources.paths, image, _warn)
    if sources.container is not None:
        from converter.images.recorded import read_container_traces

        found += read_container_traces(sources.container, image, _warn)
    if sources.from_store:
        check_is_store(backend)
        where = shown(backend.location)
        stored = read_stored_traces(backend, image, _warn)
        if not stored:
            raise NotFound(
                f"{where}: no trace of this image, blake3:{image.hex()}; containers that may "
                "write to it send theirs with BOOTFS_RECORD=1"
            )
        found += [Found(f"{where}/{name}", trace, name) for name, trace in stored]
    return found


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
    image: str,
    names: Sequence[str],
    store: str | None,
    platform: Platform | None,
    *,
    removes_all: bool,
) -> int:
    """Remove profiles that are named, or all of a boot image; return 0.

    Raises:
        UsageError: neither names nor all are given, or both.
        NotFound: there is no such profile, image or store.
        BootfsError: the image cannot be read, or the store not be written.

    """
    if bool(names) == removes_all:
        raise UsageError("profile remove: give --name NAME or --all")
    opened = open_profiled(parse_reference(image), store, platform)
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
    print(f"bootfs: {printable(message)}", file=sys.stderr)
