"""The sections of a conversion's page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from converter.bootview import BootView
from converter.contents import Amount, HeldFile, by_directory, by_layer
from converter.convert import Report
from converter.htmltable import Bytes, Cell, Code, Share, iter_table, percent, shown_size
from converter.sharing import Repeats, Sharing

DIRECTORIES = 40
"""Rows of a table of directories; the smallest are left out."""
FILES = 20
IMAGES = 20
DEPTH = 3
_AMOUNT = ("Stored", "Share", "Plain", "Files")


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a page says."""

    report: Report
    view: BootView
    files: list[HeldFile]
    repeats: Repeats
    sharing: Sharing


def iter_tiles(facts: Facts) -> Iterator[str]:
    """Yield the figures of the whole image."""
    report, boot = facts.report, facts.report.boot_image
    source = sum(report.source_layer_bytes)
    layers = len(report.source_layer_bytes)
    plain = sum(file.plain for file in facts.files)
    tiles = [
        *([("Source as read", source, f"in {layers:,} layer{'s' * (layers != 1)}")] * bool(layers)),
        ("File data", plain, f"in {len(facts.files):,} files"),
        ("In the store", report.stored_bytes, f"in {report.chunks:,} chunks"),
        ("Written to the store", report.new_stored_bytes, f"{report.new_chunks:,} new chunks"),
        (
            "Shared with other images",
            facts.sharing.shared.stored,
            f"{percent(facts.sharing.shared.stored, report.stored_bytes)} of the stored bytes",
        ),
        (
            "Boot image, own layer",
            boot.own_layer_bytes,
            f"and {shown_size(boot.runtime_layer_bytes)} that all boot images share",
        ),
    ]
    yield '<dl class="tiles">'
    for name, size, more in tiles:
        yield (
            f'<div><dt>{name}</dt><dd title="{size:,} bytes">{shown_size(size)}</dd>'
            f"<dd>{more}</dd></div>"
        )
    yield "</dl>"


def iter_parts(facts: Facts) -> Iterator[str]:
    """Yield the bar of what the store had to take and what it had."""
    whole = facts.report.stored_bytes
    # Packs have tables, too: what was written may be a little more than its chunks.
    new = min(facts.report.new_stored_bytes, whole)
    shared = min(facts.sharing.shared.stored, whole - new)
    parts = [
        ("new", "written by this conversion", new),
        ("shared", "found, of other images", shared),
        ("own", "found, of this image alone", whole - new - shared),
    ]
    yield "<h2>What the store had to take</h2>"
    yield '<div class="parts" aria-hidden="true">'
    for name, _, size in parts:
        if size:
            yield f'<span class="{name}" style="width:{100 * size / whole:.2f}%"></span>'
    yield '</div><ul class="key">'
    for name, what, size in parts:
        yield (
            f'<li><i class="{name}" aria-hidden="true"></i>{what}: '
            f"{shown_size(size)}, {percent(size, whole)}</li>"
        )
    yield "</ul>"


def iter_layers(facts: Facts) -> Iterator[str]:
    """Yield what of each layer of the source the image shows.

    Raises:
        FormatError: the image's labels are damaged.

    """
    layers = by_layer(facts.files, facts.view)
    if not layers:
        return
    sizes = facts.report.source_layer_bytes
    whole = facts.report.stored_bytes
    yield "<h2>By layer of the source</h2>"
    yield "<p>Which layer the bytes of each file came from, lowest first. A layer whose files "
    yield "upper layers replaced or removed has fewer here than it had in the source.</p>"
    rows: list[tuple[Cell, ...]] = [
        (
            f"{layer.number + 1}. {' '.join(layer.created_by.split()) or layer.diff_id[:19]}",
            *_amount(layer.amount, whole),
            Bytes(sizes[layer.number]) if len(sizes) == len(layers) else "",
        )
        for layer in layers
    ]
    head = ("Layer", *_AMOUNT, "As read")
    yield from iter_table("Layers of the source image", head, rows)


def iter_directories(facts: Facts) -> Iterator[str]:
    """Yield what is in each directory, and the largest files."""
    whole = facts.report.stored_bytes
    yield "<h2>By directory</h2>"
    amounts = by_directory(facts.files, 1)
    head = ("Directory", *_AMOUNT)
    yield from iter_table(
        "Directories of the root, with all below them", head, _rows(amounts, whole)
    )
    deeper = _largest(by_directory(facts.files, DEPTH))
    yield f"<details><summary>The largest directories, {DEPTH} names deep</summary>"
    yield from iter_table(f"The {len(deeper)} largest directories", head, _rows(deeper, whole))
    yield "</details>"
    largest = sorted(facts.files, key=lambda file: (-file.stored, file.path))[:FILES]
    yield "<details><summary>The largest files</summary>"
    rows: list[tuple[Cell, ...]] = [
        (Code(_shown(f.path)), Bytes(f.stored), Share(f.stored, whole), Bytes(f.plain))
        for f in largest
    ]
    yield from iter_table(
        f"The {len(rows)} files with the most stored bytes",
        ("File", "Stored", "Share", "Plain"),
        rows,
    )
    yield "</details>"


def _largest(amounts: dict[bytes, Amount]) -> dict[bytes, Amount]:
    ranked = sorted(amounts, key=lambda path: (-amounts[path].stored, path))[:DIRECTORIES]
    return {path: amount for path, amount in amounts.items() if path in ranked}


def _rows(amounts: dict[bytes, Amount], whole: int) -> list[tuple[Cell, ...]]:
    return [(Code(_shown(path)), *_amount(amount, whole)) for path, amount in amounts.items()]


def iter_sharing(facts: Facts) -> Iterator[str]:
    """Yield what serves more than once, in the image and in the store."""
    repeats, sharing = facts.repeats, facts.sharing
    whole = facts.report.stored_bytes
    yield "<h2>Shared chunks</h2>"
    yield (
        f"<p>In the image, {repeats.chunks:,} chunks serve {repeats.places:,} places, so that "
        f"{shown_size(repeats.plain_saved)} of files take no room of their own. With other "
        f"images of the store it shares {sharing.shared.chunks:,} of {facts.report.chunks:,} "
        "chunks.</p>"
    )
    if not sharing.images:
        yield '<p class="soft">The store holds no other image.</p>'
        return
    rows: list[tuple[Cell, ...]] = [
        (
            Code(f"blake3:{image.hex()[:16]}…"),
            Bytes(overlap.stored),
            Share(overlap.stored, whole),
            overlap.chunks,
        )
        for image, overlap in list(sharing.images.items())[:IMAGES]
    ]
    which = "Other" if len(rows) == len(sharing.images) else f"The {len(rows)} of all other"
    yield from iter_table(
        f"{which} images of the store that share the most with it, by chunk index",
        ("Image", "Stored", "Share", "Chunks"),
        rows,
    )


def iter_history(view: BootView) -> Iterator[str]:
    """Yield the steps that made the source.

    Raises:
        FormatError: the image's labels are damaged.

    """
    history = view.noted("source.history")
    steps = (
        [step for step in history if isinstance(step, dict)] if isinstance(history, list) else []
    )
    if not steps:
        return
    yield "<h2>History of the source</h2>"
    rows: list[tuple[Cell, ...]] = [
        (
            Code(" ".join(str(step.get("created_by") or step.get("comment") or "").split())),
            str(step.get("created") or "")[:10],
            "" if step.get("empty_layer") else "a layer",
        )
        for step in steps
    ]
    yield from iter_table("Steps, first to last", ("Step", "Made", "Left"), rows)


def _amount(amount: Amount, whole: int) -> tuple[Cell, ...]:
    share = Share(amount.stored, whole)
    return Bytes(amount.stored), share, Bytes(amount.plain), amount.files


def _shown(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")
