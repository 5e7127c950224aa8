"""``bootfs profile list`` and ``show``: what profiles a store has of a boot image."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from converter.pagenames import Touched, touched_files
from converter.platforms import Platform
from converter.profileplace import Opened, open_profiled
from converter.reference import parse_reference
from converter.tables import iter_table
from store.errors import NotFound, UsageError
from store.format.chunkindex import ChunkIndex
from store.format.profile import ORIGINS, Profile
from store.format.shownurl import shown
from store.write.profilestore import read_profiles

COMMAND_LIMIT = 60
"""Of a command, the characters that a table shows."""


def list_profiles(
    image: str, store: str | None, platform: Platform | None, *, as_json: bool
) -> int:
    """Show which profiles the store has of a boot image; return 0.

    Raises:
        BootfsError: image or store cannot be read.

    """
    opened = open_profiled(parse_reference(image), store, platform)
    with closing(opened.open_objects()) as objects:
        profiles = read_profiles(objects, opened.image)
    facts = [describe(one, opened.view.index) for one in profiles]
    if as_json:
        print(json.dumps(facts))
    elif facts:
        columns = ("traces", "reads", "chunks", "plain", "stored", "hot_pack", "origin")
        rows = [
            (*(fact[name] for name in columns), printable(fact["name"]), _shortened(_command(fact)))
            for fact in facts
        ]
        head = (*(name.replace("_", " ") for name in columns), "name", "command")
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


def show_profile(
    image: str, name: str | None, store: str | None, platform: Platform | None, *, as_json: bool
) -> int:
    """Show which files a profile reads, in order; return 0.

    Raises:
        NotFound: the store has no such profile.
        UsageError: it has several, and none is named.
        BootfsError: image or store cannot be read.

    """
    opened = open_profiled(parse_reference(image), store, platform)
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
    names = ", ".join(printable(one.name) for one in profiles) or "none"
    found = [one for one in profiles if name is None or one.name == name]
    if not found:
        what = "no profile" if name is None else f"no profile {name!r}"
        raise NotFound(f"{shown(opened.store)} has {what} of {opened.view.name}: {names}")
    if len(found) > 1:
        raise UsageError(f"{opened.view.name} has several profiles, give --name: {names}")
    return found[0]


def _iter_shown(facts: dict[str, Any], files: list[Touched]) -> Iterator[str]:
    yield f"{printable(facts['name'])}: {_command(facts)}"
    yield (
        f"{facts['reads']:,} reads from {facts['traces']:,} starts ({facts['origin']}); "
        f"{facts['chunks']:,} chunks, {facts['plain']:,} bytes, {facts['stored']:,} in packs, "
        f"{facts['hot_pack']:,} in the hot pack"
    )
    yield ""
    rows = [(file.size, file.read, printable(_text(file.path))) for file in files]
    yield from iter_table(("size", "read", "file"), rows)


def _command(facts: dict[str, Any]) -> str:
    return printable(shlex.join(facts["command"]))


def _shortened(command: str) -> str:
    return command if len(command) <= COMMAND_LIMIT else f"{command[: COMMAND_LIMIT - 1]}…"


def _file_json(file: Touched) -> dict[str, object]:
    return {"path": _text(file.path), "size": file.size, "read": file.read}


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def printable(text: str) -> str:
    """Return a text without what would do something to a terminal."""
    shown_text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in shown_text)
