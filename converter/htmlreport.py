"""``bootfs convert --report``: what became of an image, as one page of HTML for people.

The page needs no other file and no network, has no script, and is the same bytes for the
same image, store and outcome.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from importlib.resources import files as package_files
from pathlib import Path

from converter import RELEASE
from converter.bootview import read_boot_image
from converter.contents import read_files
from converter.convert import Report
from converter.htmlsections import (
    Facts,
    iter_directories,
    iter_history,
    iter_layers,
    iter_parts,
    iter_sharing,
    iter_tiles,
)
from converter.images.placing import write_file
from converter.images.transports import open_image
from converter.reference import Reference
from converter.sharing import count_repeats, read_sharing
from converter.spool import Spool, os_errors_at
from store.errors import NotFound, UsageError
from store.interfaces import Backend


def check_report(path: Path, option: str = "--report") -> None:
    """Return when nothing that can be seen now keeps a report from being written to ``path``.

    ``option`` is the one that names it, for messages.

    Raises:
        NotFound: the directory that it would be in does not exist.
        UsageError: it is a directory.

    """
    with os_errors_at(path, "cannot be written"):
        if path.is_dir():
            raise UsageError(f"{option} {path}: a directory; name a file")
        if not path.parent.is_dir():
            raise NotFound(f"{option} {path}: {path.parent} is not a directory; make it first")


def write_report(path: Path, report: Report, destination: Reference, backend: Backend) -> None:
    """Write the page about a conversion that has just been made, in place of what ``path`` was.

    Raises:
        NotFound, AccessDenied, StorageFull: the file cannot be written.
        BootfsError: the boot image or the store cannot be read again.

    """
    with Spool() as spool:
        view = read_boot_image(open_image(destination, spool), spool)
    facts = Facts(
        report,
        view,
        read_files(view),
        count_repeats(view.index),
        read_sharing(backend, view.config.chunk_index, view.index),
    )
    page = "\n".join(_iter_page(facts)) + "\n"
    write_file(path, [page.encode("utf-8", "backslashreplace")])


def _iter_page(facts: Facts) -> Iterator[str]:
    title = f"Conversion of {facts.view.labels.get('source.reference', 'an image')}"
    style = package_files("converter").joinpath("report.css").read_text()
    yield '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{escape(title)}</title>\n<style>\n{style}</style></head>\n<body><main>"
    yield f"<h1>{escape(title)}</h1>"
    yield f'<p class="soft">to <code>{escape(facts.report.boot_image.reference)}</code></p>'
    if facts.report.unchanged:
        yield "<p>The same boot image was there already, and the store had all of it.</p>"
    yield from iter_tiles(facts)
    yield from iter_parts(facts)
    yield from iter_layers(facts)
    yield from iter_directories(facts)
    yield from iter_sharing(facts)
    yield from iter_history(facts.view)
    yield (
        f"<footer>bootfs {escape(RELEASE)}. Stored bytes of a chunk that serves several files are "
        "divided among them. A megabyte is 1,000,000 bytes; numbers of bytes have the exact one "
        "as their title.<br>Source <code>"
        f"{escape(facts.view.labels.get('source.digest', ''))}</code><br>Chunk index <code>"
        f"blake3:{facts.view.config.chunk_index.hex()}</code></footer>"
    )
    yield "</main></body></html>"
