"""``bootfs status``: how containers of boot images do, for people, programs and Prometheus."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from converter.asking import Seen, ask
from converter.bootview import BootView, read_boot_image
from converter.containers import Container, Containers, open_containers
from converter.firstuse import FetchedFile, read_fetched
from converter.images.placing import write_file
from converter.images.transports import open_image
from converter.prometheus import iter_metrics
from converter.reference import parse_reference
from converter.spool import Spool
from converter.statusfile import shown_name
from converter.statustext import (
    as_facts,
    first_reader,
    iter_lines,
    one_line,
    plain_size,
    read_facts,
)
from converter.tables import iter_table
from store.errors import NotFound
from store.format.status import HOT_PACK

FOLLOW_S = 1.0
"""Pause between two lines of a container that is followed."""


def show_status(names: Sequence[str], *, has_files: bool, follows: bool, as_json: bool) -> int:
    """Print how each container does, all that run where none is named; return 0.

    With ``has_files`` the files that came over the network for it.  With ``follows`` a line
    each second until all of them have ended.

    Raises:
        NotFound: there is no such container, or it has said nothing.
        UsageError: it is of no boot image.
        FormatError: it says what cannot be.

    """
    with open_containers() as containers:
        while True:
            found = _find(containers, names)
            seen = [ask(containers, one) for one in found] if names else _ask_all(containers, found)
            if has_files:
                _print_files(seen, as_json=as_json)
            else:
                for one in seen:
                    print(_shown(one, follows=follows, as_json=as_json), flush=True)
            if not seen and not as_json:
                print("no container of a boot image runs")
            if not follows or not any(one.container.is_running for one in seen):
                return 0
            time.sleep(FOLLOW_S)


def write_metrics(path: Path, names: Sequence[str]) -> int:
    """Write metrics of containers, all that run where none is named, to ``path``; return 0.

    Whoever reads the file meanwhile sees what it was before.

    Raises:
        NotFound, AccessDenied, StorageFull: the file cannot be written.
        BootfsError: as `show_status`; the file is as before.

    """
    with open_containers() as containers:
        found = _find(containers, names)
        seen = [ask(containers, one) for one in found] if names else _ask_all(containers, found)
    write_file(path, [("\n".join(iter_metrics(seen)) + "\n").encode()])
    return 0


def _find(containers: Containers, names: Sequence[str]) -> list[Container]:
    if names:
        return [containers.find(name) for name in names]
    return list(containers.iter_running())


def _ask_all(containers: Containers, found: Sequence[Container]) -> list[Seen]:
    """Return what those of ``found`` say that have anything to say: some are booting still."""
    seen = []
    for one in found:
        with suppress(NotFound):
            seen.append(ask(containers, one))
    return seen


def open_view(container: Container) -> BootView:
    """Return the boot image of a container, from the engine and not from the container.

    Raises:
        ImageNotFound: the engine has it no more.
        FormatError, IntegrityError: it is damaged.

    """
    reference = parse_reference(f"docker-daemon:{container.image_id}")
    with Spool() as spool:
        return read_boot_image(open_image(reference, spool), spool)


def _shown(seen: Seen, *, follows: bool, as_json: bool) -> str:
    if as_json:
        return json.dumps(as_facts(seen))
    return one_line(seen) if follows else "\n".join(iter_lines(seen))


def _print_files(seen: Sequence[Seen], *, as_json: bool) -> None:
    for one in seen:
        files = read_fetched(open_view(one.container), one.status)
        if as_json:
            shown = [_file_facts(file) for file in files]
            print(json.dumps({"container": one.container.name, "files": shown}))
        else:
            print("\n".join(_iter_file_lines(one, files)))


def _file_facts(file: FetchedFile) -> dict[str, Any]:
    return {
        "path": shown_name(file.path),
        "size": file.plain,
        "fetched": file.fetched,
        "waited_s": file.waited_s,
        "reads": file.reads,
        "may_be_ahead": file.first is not None and file.is_ahead,
        "first_read": None if file.first is None else read_facts(file.first),
    }


def _iter_file_lines(seen: Seen, files: Sequence[FetchedFile]) -> Iterator[str]:
    rows = [
        (
            f"{file.first.begun_s:.3f}",
            f"{1000 * file.waited_s:.1f}",
            file.fetched,
            first_reader(file),
            shown_name(file.path),
        )
        for file in files
        if file.first is not None
    ]
    yield from iter_table(("at s", "waited ms", "bytes", "first reader", "file"), rows)
    numbers, others = seen.status.numbers, [file for file in files if file.first is None]
    yield (
        f"{len(rows):,} files that were read; {len(others):,} that came with them or ahead, "
        f"{plain_size(sum(file.fetched for file in others))}: --json lists them"
    )
    if any(request.pack == HOT_PACK for request in seen.status.requests):
        yield "not listed is what came in the hot pack of the start's profile, and no other way"
    unlisted = numbers["requests"] + numbers["errors"] - numbers["listed_requests"]
    if unlisted > 0 or numbers["unlisted_reads"]:
        yield (
            f"not listed are the last {max(unlisted, 0):,} requests and the last "
            f"{numbers['unlisted_reads']:,} reads that waited: the first ones fill the lists"
        )
