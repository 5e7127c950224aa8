"""``bootfs report``: a container's start as one page of HTML for people.

The page needs no other file and no network, and has no script.  What the container said is
a stranger's: it gets into the page as escaped text and as numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files as package_files
from itertools import pairwise
from pathlib import Path

from converter import RELEASE
from converter.asking import Seen, ask
from converter.containers import open_containers
from converter.firstuse import FetchedFile, read_fetched
from converter.htmlreport import check_report
from converter.htmltable import Bytes, Cell, Code, Span, iter_table, shown_size
from converter.images.placing import write_file
from converter.showing import open_view
from converter.statusfile import shown_name
from converter.statustext import first_reader, present
from converter.waterfall import STEP_NAMES, iter_waterfall, start_of
from store.format.status import HOT_PACK

ROWS = 400
"""Of a table, at most."""


def report_start(name: str, path: Path) -> int:
    """Write the page about the start of container ``name`` in place of what ``path`` was; return 0.

    Raises:
        NotFound: there is no such container, or it has said nothing; or no such directory.
        UsageError: it is of no boot image.
        FormatError: it says what cannot be.
        AccessDenied, StorageFull: the file cannot be written.

    """
    check_report(path, "-o")
    with open_containers() as containers:
        seen = ask(containers, containers.find(name))
    files = read_fetched(open_view(seen.container), seen.status)
    page = "\n".join(iter_page(seen, files)) + "\n"
    write_file(path, [page.encode("utf-8", "backslashreplace")])
    return 0


def iter_page(seen: Seen, files: Sequence[FetchedFile]) -> Iterator[str]:
    """Yield the page; ``files`` are those that came over the network, in order of first use."""
    title = f"Start of {shown_name(seen.container.name.encode())}"
    style = package_files("converter").joinpath("report.css").read_text()
    yield '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{escape(title)}</title>\n<style>\n{style}</style></head>\n<body><main>"
    yield f"<h1>{escape(title)}</h1>"
    image = shown_name(seen.container.image.encode("utf-8", "surrogateescape"))
    yield f'<p class="soft">of <code>{escape(image)}</code>, mode {escape(seen.status.mode)}</p>'
    yield from _iter_tiles(seen)
    yield "<h2>The start</h2>"
    yield from iter_waterfall(seen.status, files)
    yield from _iter_steps(seen)
    yield from _iter_files(seen, files)
    yield from _iter_requests(seen)
    yield (
        f"<footer>bootfs {escape(RELEASE)}. Times begin when bootfs was started in the container; "
        "numbers of bytes have the exact one as their title. The lists hold what came first, as "
        "the container itself counted it.<br>Chunk index <code>"
        f"blake3:{seen.container.chunk_index.hex()}</code></footer>"
    )
    yield "</main></body></html>"


def _iter_tiles(seen: Seen) -> Iterator[str]:
    numbers, steps = seen.status.numbers, seen.status.steps
    begins = f"{1000 * steps['handed']:.0f} ms" if "handed" in steps else "not yet"
    tiles = [
        ("Workload begins", begins, "after bootfs did"),
        ("Fetched", shown_size(numbers["fetched_bytes"]), f"in {numbers['requests']:,} requests"),
        ("Failed", f"{numbers['errors']:,}", "requests, with all their retries"),
        ("Reads that waited", f"{numbers['waits']:,}", f"{seen.status.waits.sum_s:.2f} s in all"),
        ("From the cache", f"{numbers['cache_hits']:,}", "chunks"),
        ("Waiting now", f"{numbers['waiting']:,}", "reads"),
    ]
    yield '<dl class="tiles">'
    for name, value, more in tiles:
        yield f"<div><dt>{name}</dt><dd>{escape(value)}</dd><dd>{escape(more)}</dd></div>"
    yield "</dl>"
    yield f"<p>On this machine: {escape(present(seen))}.</p>"


def _iter_steps(seen: Seen) -> Iterator[str]:
    made = sorted((at, name) for name, at in seen.status.steps.items() if name != "ended")
    if len(made) < 2:
        return
    whole = made[-1][0]
    rows: list[tuple[Cell, ...]] = [
        (STEP_NAMES.get(name, name), f"{1000 * at:.1f} ms", Span(before, at - before, whole))
        for (before, _), (at, name) in pairwise(made)
    ]
    yield "<h2>Steps</h2>"
    yield from iter_table("Up to the workload", ("Step", "Done at", "Time"), rows)


def _iter_requests(seen: Seen) -> Iterator[str]:
    end, requests, _ = start_of(seen.status)
    if not requests:
        yield '<h2>Requests</h2><p class="soft">Nothing was asked of the store.</p>'
        return
    rows: list[tuple[Cell, ...]] = [
        (
            ("hot pack" if one.pack == HOT_PACK else f"pack {one.pack}, {one.offset:,}")
            + (", failed" if one.has_failed else ""),
            Bytes(one.size),
            one.chunks,
            f"{1000 * one.begun_s:.1f} ms",
            f"{1000 * one.took_s:.1f} ms",
            Span(one.begun_s, one.took_s, end),
        )
        for one in sorted(requests, key=lambda one: one.begun_s)[:ROWS]
    ]
    yield "<h2>Requests</h2>"
    caption = f"The first {len(rows):,} of {len(requests):,} ranges asked for in the start"
    head = ("Range", "Size", "Chunks", "Began", "Took", "Time")
    yield from iter_table(caption, head, rows)


def _iter_files(seen: Seen, files: Sequence[FetchedFile]) -> Iterator[str]:
    end, _, _ = start_of(seen.status)
    rows: list[tuple[Cell, ...]] = [
        (
            Code(shown_name(file.path)),
            first_reader(file),
            Bytes(file.fetched),
            f"{1000 * file.first.begun_s:.1f} ms",
            f"{1000 * file.waited_s:.1f} ms",
            Span(file.first.begun_s, file.first.waited_s, end),
        )
        for file in files
        if file.first is not None
    ]
    yield "<h2>First use of files</h2>"
    if not rows:
        yield '<p class="soft">No file that came over the network was read.</p>'
        return
    yield "<p>Files of which bytes came over the network, and the process that read each first. "
    yield "Its name is that which it had then; <code>ld.so</code> is bootfs, about to execute the "
    yield "workload. A ? says that the kernel may have read on by itself.</p>"
    caption = f"The first {len(rows[:ROWS]):,} of {len(rows):,} files, by first use"
    head = ("File", "Process", "Came", "First use", "Waited", "Time")
    yield from iter_table(caption, head, rows[:ROWS])
