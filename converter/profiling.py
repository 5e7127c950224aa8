"""``bootfs profile``: what starts of an image read, kept in its store (docs/profiles.md)."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from converter.bootview import BootView, read_boot_image
from converter.images.transports import open_image
from converter.pagenames import Touched, touched_files
from converter.progress import shown_progress
from converter.reference import Reference, parse_reference
from converter.spool import Spool
from converter.tables import iter_table
from converter.traces import read_traces
from store.errors import NotFound, UsageError
from store.format.chunkindex import ChunkIndex
from store.format.profile import ORIGINS, Profile
from store.format.shownurl import shown
from store.format.trace import Trace
from store.interfaces import Objects
from store.write.backends import open_backend
from store.write.profilebuild import build_profile, check_name, merge_profiles
from store.write.profilestore import add_profile, has_damage, read_profiles, remove_profiles
from store.write.served import is_served, open_objects

READ_LIMIT_S = 60.0
RECORDING = ORIGINS.index("recording")


@dataclass(frozen=True, slots=True)
class Opened:
    """A boot image, and the store of its profiles."""

    view: BootView
    store: str

    @property
    def image(self) -> bytes:
        """Raw digest of the chunk index."""
        return self.view.config.chunk_index

    def open_objects(self) -> Objects:
        """Return the store to be read, the first of several mirrors; the caller closes it."""
        return open_objects(self.store.partition("|")[0], READ_LIMIT_S)


def open_profiled(reference: Reference, store: str | None) -> Opened:
    """Return a boot image and the URL of its store: ``store``, or what its boot config names.

    Raises:
        UsageError: it is no boot image, or names no store.
        NotFound, FormatError, IntegrityError: there is no such image, or it is damaged.

    """
    with Spool() as spool:
        view = read_boot_image(open_image(reference, spool), spool)
    url = os.fsdecode(view.config.blob_store) if store is None else store
    if not url:
        raise UsageError(f"{reference}: the image names no store; give --store URL")
    return Opened(view, url)


def writable_store(url: str) -> str:
    """Return the URL of a store that can be written.

    Raises:
        UsageError: it cannot, or these are several.

    """
    if "|" in url:
        raise UsageError(
            f"{shown(url)}: profiles are written to one store; give one of the mirrors by --store"
        )
    if is_served(url):
        raise UsageError(
            f"{shown(url)}: a web server cannot be written to; give the store that it serves by "
            "--store"
        )
    return url


def list_profiles(image: str, store: str | None, *, as_json: bool) -> int:
    """Show which profiles the store has of a boot image; return 0.

    Raises:
        BootfsError: image or store cannot be read.

    """
    opened = open_profiled(parse_reference(image), store)
    with closing(opened.open_objects()) as objects:
        profiles = read_profiles(objects, opened.image)
    facts = [describe(one, opened.view.index) for one in profiles]
    if as_json:
        print(json.dumps(facts))
    elif facts:
        columns = ("traces", "reads", "chunks", "plain", "stored", "hot_pack", "origin", "name")
        rows = [(*(fact[name] for name in columns), _command(fact)) for fact in facts]
        head = (*(name.replace("_", " ") for name in columns), "command")
        print("\n".join(iter_table(head, rows)))
    else:
        print(f"no profiles of {opened.view.name} in {shown(opened.store)}")
    return 0


def describe(profile: Profile, index: ChunkIndex) -> dict[str, Any]:
    """Return what a profile is; sizes are bytes, those of the chunks plain and in packs."""
    chunks = [chunk for chunk in profile.chunks if chunk < index.chunk_count]
    words = [word.decode("utf-8", "backslashreplace") for word in profile.command]
    return {
        "name": profile.name,
        "command": words,
        "origin": ORIGINS[profile.origin],
        "traces": profile.traces,
        "reads": len(profile.reads),
        "chunks": len(chunks),
        "plain": sum(index.plain_sizes[chunk] for chunk in chunks),
        "stored": sum(index.stored_sizes[chunk] for chunk in chunks),
        "hot_pack": profile.hot_pack_size,
        "hot_pack_digest": f"sha256:{profile.hot_pack.hex()}" if profile.hot_pack_size else "",
    }


def show_profile(image: str, name: str | None, store: str | None, *, as_json: bool) -> int:
    """Show which files a profile reads, in order; return 0.

    Raises:
        NotFound: the store has no such profile.
        UsageError: it has several, and none is named.
        BootfsError: image or store cannot be read.

    """
    opened = open_profiled(parse_reference(image), store)
    with closing(opened.open_objects()) as objects:
        profiles = read_profiles(objects, opened.image)
    profile = _only(profiles, name, opened)
    files = touched_files(opened.view, profile.reads)
    facts = describe(profile, opened.view.index)
    if as_json:
        print(json.dumps(facts | {"files": [_file_json(file) for file in files]}))
    else:
        print("\n".join(_iter_shown(facts, files)))
    return 0


def _only(profiles: list[Profile], name: str | None, opened: Opened) -> Profile:
    names = ", ".join(one.name for one in profiles) or "none"
    found = [one for one in profiles if name is None or one.name == name]
    if not found:
        what = "no profile" if name is None else f"no profile {name!r}"
        raise NotFound(f"{shown(opened.store)} has {what} of {opened.view.name}: {names}")
    if len(found) > 1:
        raise UsageError(f"{opened.view.name} has several profiles, give --name: {names}")
    return found[0]


def _iter_shown(facts: dict[str, Any], files: list[Touched]) -> Iterator[str]:
    yield f"{facts['name']}: {_command(facts)}"
    yield (
        f"{facts['reads']:,} reads from {facts['traces']:,} starts ({facts['origin']}); "
        f"{facts['chunks']:,} chunks, {facts['plain']:,} bytes, {facts['stored']:,} in packs, "
        f"{facts['hot_pack']:,} in the hot pack"
    )
    yield ""
    rows = [(file.size, file.read, _printable(_text(file.path))) for file in files]
    yield from iter_table(("size", "read", "file"), rows)


def _command(facts: dict[str, Any]) -> str:
    return _printable(shlex.join(facts["command"]))


def _file_json(file: Touched) -> dict[str, object]:
    return {"path": _text(file.path), "size": file.size, "read": file.read}


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def _printable(text: str) -> str:
    shown_text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in shown_text)


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
                f"{fact['name']}: {fact['reads']:,} reads of {fact['traces']:,} starts, "
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
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}-{number}"
    return name


def remove(image: str, names: Sequence[str], store: str | None, *, removes_all: bool) -> int:
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
        print(f"removed: {', '.join(gone) or 'nothing'}")
    return 0


def _warn(message: str) -> None:
    print(f"bootfs: {message}", file=sys.stderr)
