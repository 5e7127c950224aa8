"""The conversion, top to bottom: source image, tree, chunks, packs, boot image, commit."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

from converter.bootimage import (
    ImageFiles,
    build_config,
    build_own_layer,
    check_source,
)
from converter.erofswriter import write_bootstrap
from converter.images.transports import check_destination, open_image, write_image
from converter.images.view import Layer
from converter.layers import merge_layers
from converter.order import lay_out
from converter.origins import encode_origins
from converter.progress import Progress
from converter.reference import Reference
from converter.runtime import open_runtime
from converter.spool import Spool
from converter.storing import add_bootstrap, store_region
from converter.structure import check_structure
from store.format.chunkindex import encode_chunk_index
from store.format.digest import digest_of
from store.format.erofs import Image
from store.format.names import bootstrap_name, chunk_index_name
from store.interfaces import Backend
from store.write.roots import commit

DEFAULT_LEVEL = 5
"""zstd level: 3 % smaller than level 3; level 9 is 3 % smaller still and takes twice as long."""


@dataclass(frozen=True, slots=True)
class BootImageReport:
    """What was written to the destination; sizes are gzipped bytes."""

    reference: str
    digest: str
    own_layer_bytes: int
    runtime_layer_bytes: int


@dataclass(frozen=True, slots=True)
class Report:
    """What a conversion did; sizes are bytes."""

    chunks: int
    new_chunks: int
    plain_bytes: int
    """Size of the data region: every file once, padded to blocks, holes included."""
    stored_bytes: int
    """Stored size of all chunks of the image, also of those the store had."""
    new_stored_bytes: int
    """Size of the packs that were written."""
    boot_image: BootImageReport
    seconds: float

    def as_json(self) -> dict[str, object]:
        """Return the report as what ``--json`` prints."""
        return asdict(self)


def convert(
    source: Reference,
    destination: Reference,
    backend: Backend,
    level: int,
    blob_store: str,
    progress: Progress,
) -> Report:
    """Convert ``source`` into a boot image at ``destination``, its data into ``backend``.

    Everything is written before the two steps that make it visible, the manifest
    and the boot image: whatever fails before leaves a valid store, with packs at
    most that nothing refers to, and no destination.

    Raises:
        BootfsError: whatever part fails says what and where.

    """
    started = time.monotonic()
    check_destination(destination)
    backend.check()
    with Spool(advance=progress.advance) as spool:
        progress.step("open")
        image = open_image(source, spool)
        check_source(image)
        progress.step("read", sum(layer.size for layer in image.layers))
        tree = merge_layers(image.layers, spool, advance=progress.advance)
        region = lay_out(tree)
        # Only for a source that can be converted: this may go over the network.
        progress.step("runtime")
        runtime = open_runtime()
        backend.create()
        progress.step("store", region.size)
        stored = store_region(region, backend, level, progress.advance)
        index = stored.index

        progress.step("bootstrap")
        bootstrap = write_bootstrap(tree, region.extents, region.size)
        add_bootstrap(index, bootstrap.plain, bootstrap.data_start)
        check_structure(Image(bootstrap.plain), index)
        encoded = encode_chunk_index(index)
        digest = digest_of(encoded)
        backend.write(chunk_index_name(digest), iter((encoded,)))
        backend.write(bootstrap_name(digest), iter((bootstrap.plain,)))

        progress.step("image")
        origins = encode_origins(region.extents)
        files = ImageFiles(bootstrap.plain, encoded, digest, origins)
        own = build_own_layer(image, tree, files, blob_store)
    shared = Layer(
        plain=runtime.plain_path,
        stored=runtime.stored_path,
        diff_id=runtime.diff_id,
        digest=runtime.digest,
        size=runtime.size,
    )
    config = build_config(image, [shared, own], digest, level)
    commit(backend, digest, list(zip(index.pack_digests, index.pack_sizes, strict=True)))
    image_digest = write_image(destination, config, [shared, own])
    progress.end()
    return Report(
        chunks=index.chunk_count,
        new_chunks=stored.new_chunks,
        plain_bytes=region.size,
        stored_bytes=stored.referenced_bytes,
        new_stored_bytes=stored.new_bytes,
        boot_image=BootImageReport(str(destination), image_digest, own.size, shared.size),
        seconds=round(time.monotonic() - started, 3),
    )
