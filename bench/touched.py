"""Find out what a start touches of an image.

A start with a cache keeps what the kernel asked for of `image.erofs` (docs/format.md, "Cache"):
the pages that the workload touched, and what the kernel reads ahead of it. The chunks that hold
those are what no lazy start can do without.
"""

from __future__ import annotations

from pathlib import Path

from bench.floor import Touched, touched_chunks
from bench.images import Image
from bench.node import Node
from bench.ways import Place
from bench.ways.engine import boot_options
from store.format.chunkindex import BLOCK, ChunkIndex, parse_chunk_index
from store.read.order import ENTRY

VOLUME = "bench-touched"


def measure_touched(place: Place, image: Image) -> Touched:
    """Start an image once from nothing, with a cache, and look what it read."""
    name = place.boots.add(image)
    node = place.node
    node.forget_images()
    node.docker("volume", "create", VOLUME)
    try:
        web = place.far.nginx.url
        options = [*boot_options(web, "erofs"), "-v", f"{VOLUME}:/.bootfs/cache"]
        node.run_until_ready(f"{place.far.registry.host_port}/{name}", options=options)
        index, reads = read_start(place.boots.store, cache_directory(node))
    finally:
        node.docker("volume", "rm", "-f", VOLUME)
    chunks = touched_chunks(index, reads)
    stored = sum(index.stored_sizes[chunk] for chunk in chunks)
    own = place.boots.conversions[image.name].own_layer_bytes
    return Touched(len(chunks), stored, own)


def cache_directory(node: Node) -> Path:
    """Return the directory that the only image in the volume has there.

    Raises:
        ValueError: there is none, or more than one.
    """
    asked = node.docker("volume", "inspect", "--format", "{{.Mountpoint}}", VOLUME)
    (reads,) = Path(asked.stdout.strip()).glob("v2/*/reads")
    return reads.parent


def read_start(store: Path, cached: Path) -> tuple[ChunkIndex, list[tuple[int, int]]]:
    """Return an image's chunk index, and offset and size of each read that its cache knows of."""
    index = parse_chunk_index((store / "indexes" / cached.name).read_bytes())
    entries = ENTRY.iter_unpack((cached / "reads").read_bytes())
    return index, [(first * BLOCK, pages * BLOCK) for first, pages in entries]
