"""``bootfs diff``: what changed between two boot images, and what that costs to transfer."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack, closing
from dataclasses import asdict

from converter.bootview import BootView, open_boot_images
from converter.comparing import Change, TreeDiff
from converter.restoring import restore_config
from converter.sharing import stored_chunks
from converter.spool import Spool
from store.write.hostsource import READ_LIMIT_S, open_host_source

_OF_LAYERS = ("config", "created", "docker_version", "history", "rootfs")
"""Fields of a config that say how and when an image was made."""
_OF_THE_BUILD = ("Image",)
"""The same among the settings of containers."""


def diff_images(first: str, second: str, store: str | None, *, as_json: bool) -> bool:
    """Show the changes from one boot image to another; return whether there are any.

    Where the chunk indexes alone cannot tell whether a file's bytes are the same, because
    they were cut differently, ``store`` is read; without it the file is listed as one
    that may have changed.

    Raises:
        NotFound: there is no such image, or the store lacks something of it.
        UsageError: one of them is no boot image.
        IntegrityError, FormatError: one of them is damaged, or what the store has of it.
        RemoteError, AccessDenied, StorageFull: as they say.

    """
    with ExitStack() as stack:
        spool = stack.enter_context(Spool())
        old, new = open_boot_images((first, second), spool)
        readers = None
        if store is not None:
            source = stack.enter_context(closing(open_host_source(store, READ_LIMIT_S, _warn)))
            readers = (
                stack.enter_context(closing(old.open_reader(source))),
                stack.enter_context(closing(new.open_reader(source))),
            )
        settings = changed_settings(old, new)
        diff = TreeDiff(old, new, readers)
        changes = []
        for change in diff.iter_changes():
            changes.append(change)
            if not as_json:
                print(change)
    transfer = describe_transfer(old, new)
    if as_json:
        shown = [_as_json(change) for change in changes]
        print(json.dumps({"changes": shown, "settings": settings, "transfer": transfer}))
    else:
        for name in settings:
            print(f"~ setting {name}")
        print(_summary(changes, settings, transfer))
    return bool(changes or settings)


def changed_settings(old: BootView, new: BootView) -> list[str]:
    """Return the names of what differs in the images' configs, but for history and times.

    Raises:
        FormatError: an image's labels are damaged.

    """
    before, after = restore_config(old), restore_config(new)
    names = []
    for left, right, ignored in (
        (before, after, _OF_LAYERS),
        (before["config"], after["config"], _OF_THE_BUILD),
    ):
        names += sorted(
            name
            for name in left.keys() | right.keys()
            # What is empty and what is missing mean the same to engines.
            if name not in ignored and (left.get(name) or None) != (right.get(name) or None)
        )
    return names


def describe_transfer(old: BootView, new: BootView) -> dict[str, int]:
    """Return what a machine that has all of ``old`` must fetch for all of ``new``, in bytes."""
    held = stored_chunks(old.index)
    wanted = stored_chunks(new.index)
    missing = [size for digest, size in wanted.items() if digest not in held]
    return {
        "chunks": len(wanted),
        "stored": sum(wanted.values()),
        "new_chunks": len(missing),
        "new_stored": sum(missing),
        "own_layer_plain": new.own_layer_size,
    }


def _as_json(change: Change) -> dict[str, object]:
    return asdict(change) | {"path": change.path.decode("utf-8", "surrogateescape")}


def _summary(changes: list[Change], settings: list[str], transfer: dict[str, int]) -> str:
    counts = dict.fromkeys(("added", "removed", "changed", "undecided"), 0)
    for change in changes:
        counts[change.kind] += 1
    parts = [f"{counts[kind]:,} {kind}" for kind in ("added", "removed", "changed")]
    if counts["undecided"]:
        parts.append(f"{counts['undecided']:,} undecided (--store URL compares their bytes)")
    if settings:
        parts.append(f"{len(settings)} settings changed")
    return (
        f"{', '.join(parts)}; {transfer['new_chunks']:,} of {transfer['chunks']:,} chunks, "
        f"{transfer['new_stored']:,} of {transfer['stored']:,} stored bytes to transfer"
    )


def _warn(message: str) -> None:
    print(f"bootfs: {message}", file=sys.stderr)
