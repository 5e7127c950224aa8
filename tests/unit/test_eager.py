"""Everything filled by several threads, each chunk fetched once."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from random import Random

from boot.lease import eager
from boot.lease.earlier import iter_files
from boot.lease.skeleton import iter_directories
from store.format.erofs import Image
from store.read.local import DirectorySource
from tests.support.stores import StoredImage, WatchedSource
from tests.support.trees import make_directory, make_file

SIZE = 700_000
FILES = 30
MEMORY = 6 << 20
SPARE = 3
"""Chunks at the ends of what threads write may be wanted again late."""


def test_nobody_runs_so_far_ahead_that_something_is_fetched_twice(tmp_path: Path) -> None:
    files = {f"f{n:02}": make_file(Random(n).randbytes(SIZE)) for n in range(FILES)}
    image = StoredImage(make_directory(**files), tmp_path / "s")
    # Who writes the first files waits for the first of their chunks.
    first = image.index.offsets[image.index.place_chunks[0]]
    held = threading.Event()

    def before(_: str, offset: int, size: int) -> None:
        if offset <= first < offset + size:
            threading.Timer(0.5, held.set).start()
            assert held.wait(20)

    source = WatchedSource(DirectorySource(str(image.path)), before)
    reader = image.open_reader(source, memory_limit=MEMORY)
    root = tmp_path / "root"
    root.mkdir()
    tree = Image(image.plain_bootstrap)
    filling = eager.Filling(reader, None, os.fsencode(root))
    for path, inode in iter_files(tree, list(iter_directories(tree, tree.root_nid, set()))):
        filling.make_file(b"", path.lstrip(b"/"), path.lstrip(b"/"), inode)
    filling.run()
    for n in range(FILES):
        assert (root / f"f{n:02}").read_bytes() == Random(n).randbytes(SIZE)
    assert reader.chunks.counters.fetched_chunks <= image.index.chunk_count + SPARE
    reader.close()
