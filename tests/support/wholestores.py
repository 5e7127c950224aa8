"""What a store must be, whatever was done to it: whole, and no more than is needed."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

from store.format.names import STORE_MARK
from store.write.backends.directory import DirectoryBackend
from store.write.checking import Problem, StoreCheck
from store.write.roots import Roots

LONG_AGO = 1_000_000_000


def problems_of(store: Path) -> list[Problem]:
    """Return all that `bootfs check --store` says of a store."""
    with closing(DirectoryBackend(str(store))) as backend:
        check = StoreCheck(backend)
        check.take_stock()
        return list(check.iter_problems(lambda _: None))


def files_of(store: Path) -> set[str]:
    """Return the names of all files of a store."""
    return {str(path.relative_to(store)) for path in store.rglob("*") if path.is_file()}


def needed_files(store: Path) -> set[str]:
    """Return the names of the files that the images of a store need, and of its mark."""
    with closing(DirectoryBackend(str(store))) as backend:
        roots = Roots(backend)
        roots.read()
        return roots.needed() | {STORE_MARK}


def make_old(store: Path) -> None:
    """Make every file of a store as old as files get."""
    for name in files_of(store):
        os.utime(store / name, (LONG_AGO, LONG_AGO))


def make_orphans(store: Path) -> None:
    """Leave of all images of a store what conversions leave that were killed long ago."""
    for manifest in store.glob("manifests/*"):
        manifest.unlink()
    make_old(store)
