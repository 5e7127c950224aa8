"""``bootfs inspect``: what a boot image was made of, what is in it, what it shares."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from typing import Any

from converter.bootimages import open_boot_images
from converter.bootview import BootView
from converter.contents import by_directory, by_layer, read_files
from converter.platforms import Platform
from converter.sharing import Sharing, check_listable, count_repeats, read_sharing
from converter.spool import Spool
from converter.tables import iter_table
from store.write.backends import open_backend
from store.write.roots import check_is_store

TABLES = ("source_layers", "source_history", "layers", "directories", "repeats", "sharing")
"""Facts that are shown as tables below the others."""
STEP_LIMIT = 60
"""Of a step of the source's history, the characters that a table shows."""
_AMOUNT = ("files", "plain", "stored")
"""The fields of `Amount`, as columns."""


def inspect_image(
    image: str, store: str | None, depth: int, platform: Platform | None = None, *, as_json: bool
) -> int:
    """Show what is known of a boot image, and with ``store`` what it shares there; return 0.

    Of an image index, that for ``platform``, or without one that for this machine.

    Directories are shown down to ``depth`` names below the root.

    Raises:
        NotFound: there is no such image or store.
        UsageError: it is no boot image, or the store cannot be listed.
        FormatError, IntegrityError: it is damaged, or another image of the store.

    """
    with Spool() as spool:
        (view,) = open_boot_images((image,), spool, platform, measures=True)
    facts = describe(view)
    facts |= describe_contents(view, depth)
    if store is not None:
        check_listable(store)
        with closing(open_backend(store)) as backend:
            check_is_store(backend)
            sharing = read_sharing(backend, view.config.chunk_index, view.index)
        facts["sharing"] = describe_sharing(sharing)
    if as_json:
        print(json.dumps(facts))
    else:
        print("\n".join(_iter_lines(facts)))
    return 0


def describe(view: BootView) -> dict[str, Any]:
    """Return what a boot image says of itself; sizes are bytes."""
    index = view.index
    labels = view.labels
    return {
        "reference": view.name,
        "release": view.config.release.decode("utf-8", "replace"),
        "source": labels.get("source.reference", ""),
        "source_digest": labels.get("source.digest", ""),
        "source_layers": view.noted("source.layers") or [],
        "source_history": view.noted("source.history") or [],
        "entrypoint": [a.decode("utf-8", "replace") for a in view.config.entrypoint],
        "blob_store": view.config.blob_store.decode("utf-8", "replace"),
        "volumes": [v.decode("utf-8", "replace") for v in view.config.volumes],
        "chunk_index": f"blake3:{view.config.chunk_index.hex()}",
        "chunks": index.chunk_count,
        "packs": len(index.pack_digests),
        "plain_bytes": index.data_size,
        "stored_bytes": sum(index.stored_sizes),
        "bootstrap_bytes": index.bootstrap_size,
        "own_layer_plain_bytes": view.own_layer_size,
        "runtime_layer_plain_bytes": view.runtime_layer_size,
    }


def describe_contents(view: BootView, depth: int) -> dict[str, Any]:
    """Return what is in a boot image, by layer of origin, by directory, and more than once.

    Raises:
        FormatError, IntegrityError: it is damaged.

    """
    files = read_files(view)
    return {
        "files": len(files),
        "layers": [
            {
                "number": layer.number,
                "diff_id": layer.diff_id,
                "created_by": layer.created_by,
                **asdict(layer.amount),
            }
            for layer in by_layer(files, view)
        ],
        "directories": [
            {"path": path.decode("utf-8", "surrogateescape"), **asdict(amount)}
            for path, amount in by_directory(files, depth).items()
        ],
        "repeats": asdict(count_repeats(view.index)),
    }


def describe_sharing(sharing: Sharing) -> dict[str, Any]:
    """Return what an image shares with the others of a store; sizes are bytes in it."""
    return {
        "chunks": sharing.shared.chunks,
        "stored": sharing.shared.stored,
        "images": [
            {"chunk_index": f"blake3:{image.hex()}", **asdict(overlap)}
            for image, overlap in sharing.images.items()
        ],
    }


def _iter_lines(facts: dict[str, Any]) -> Iterator[str]:
    plain = {name: value for name, value in facts.items() if name not in TABLES}
    width = max(map(len, plain))
    for name, value in plain.items():
        shown = json.dumps(value) if isinstance(value, list | dict) else value
        yield f"{name.replace('_', ' '):<{width}}  {shown}"
    yield ""
    if facts["layers"]:
        rows: list[tuple[str | int, ...]] = [
            (row["number"], *_amount(row), row["diff_id"][:19], _shortened(row["created_by"]))
            for row in facts["layers"]
        ]
        yield from iter_table(("layer", *_AMOUNT, "diff id", "made by"), rows)
    else:
        yield "layers: the image does not say which file is of which; convert it again"
    yield ""
    yield from iter_table(
        (*_AMOUNT, "directory"),
        [(*_amount(row), _printable(row["path"])) for row in facts["directories"]],
    )
    yield ""
    repeats = facts["repeats"]
    yield (
        f"{repeats['chunks']:,} chunks serve {repeats['places']:,} places of the image, "
        f"{repeats['stored_saved']:,} bytes are not stored twice"
    )
    if "sharing" in facts:
        yield from _iter_sharing_lines(facts["sharing"], facts)


def _iter_sharing_lines(sharing: dict[str, Any], facts: dict[str, Any]) -> Iterator[str]:
    yield (
        f"{sharing['chunks']:,} of {facts['chunks']:,} chunks, {sharing['stored']:,} of "
        f"{facts['stored_bytes']:,} stored bytes, are shared with other images of the store"
    )
    if sharing["images"]:
        yield ""
        yield from iter_table(
            ("chunks", "stored", "image"),
            [(row["chunks"], row["stored"], row["chunk_index"]) for row in sharing["images"]],
        )


def _amount(row: dict[str, Any]) -> tuple[int, ...]:
    return tuple(row[name] for name in _AMOUNT)


def _printable(path: str) -> str:
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _shortened(step: str) -> str:
    step = " ".join(step.split())
    return step if len(step) <= STEP_LIMIT else f"{step[: STEP_LIMIT - 1]}…"
