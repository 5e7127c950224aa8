"""The conversion, top to bottom: source image, tree, chunks, packs, boot image, commit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from converter.bootimage import (
    ImageFiles,
    build_config,
    build_own_layer,
    check_source,
)
from converter.earlier import Earlier, Kept, read_earlier
from converter.erofswriter import write_bootstrap
from converter.firstprofile import ProfileReport, SourceContents, make_first_profile
from converter.images.rootfs import with_settings
from converter.images.transports import (
    check_destination,
    join_store,
    open_image,
    peek_digest,
    set_apart,
    write_image,
)
from converter.images.view import Layer, LayerSource
from converter.layers import merge_layers
from converter.order import lay_out
from converter.origins import encode_origins
from converter.platforms import Platform
from converter.progress import Progress
from converter.records.directory import Records
from converter.records.known import Known
from converter.reference import Reference
from converter.runtime import RuntimeLayer
from converter.settings import Settings
from converter.spool import Spool
from converter.storing import add_bootstrap, store_region
from converter.structure import check_structure
from store.errors import UsageError
from store.format.chunkindex import encode_chunk_index
from store.format.digest import digest_of
from store.format.erofs import Image
from store.format.names import bootstrap_name, chunk_index_name
from store.format.sshurl import is_ssh_url
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
    source_layer_bytes: list[int]
    """Size of each layer of the source as it was read, lowest first: compressed, or as
    the engine gives it; none where the source need not be read."""
    unread_layers: int
    """Number of those whose bytes were not needed: an earlier conversion had read them."""
    known_bytes: int
    """Bytes of the data region whose chunks were known from earlier conversions."""
    boot_image: BootImageReport
    seconds: float
    unchanged: bool = False
    """Whether the same boot image was there already, so that nothing was done."""
    profile: ProfileReport | None = None
    """None where none was wanted, the store had one, or the image's command tells nothing."""

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
    platform: Platform | None = None,
    *,
    with_ssh: bool = False,
    settings: Settings | None = None,
    force: bool = False,
    makes_profile: bool = False,
    records: Records | None = None,
    read_all: bool = False,
) -> Report:
    """Convert ``source`` into a boot image at ``destination``, its data into ``backend``.

    Of an image index the image for ``platform`` is converted, or without one that for this
    machine.  The boot image can read stores over SSH ``with_ssh``, or where ``blob_store``
    is one.

    Everything is written before the two steps that make it visible, the manifest
    and the boot image: whatever fails before leaves a valid store, with packs at
    most that nothing refers to, and no destination.  ``settings`` are those of a source
    without a config of its own.  Where the boot image is there already, and the store has
    what it needs, nothing is done, unless ``force``.  Where the store has no profile of the
    image yet, ``makes_profile`` has one made of what its command tells; what goes
    wrong with that is in the report.

    What is found out is kept in ``records``, and what is there is not found out again, unless
    ``read_all``.

    Raises:
        UsageError: the boot image would take the place of its source.
        BootfsError: whatever part fails says what and where.

    """
    if destination.is_place_of(source):
        raise UsageError(f"{destination} is SOURCE, which would be lost; give another DEST")
    started = time.monotonic()
    has_ssh = with_ssh or any(is_ssh_url(url) for url in blob_store.split("|"))
    kept = Kept(level, blob_store, backend, has_ssh)
    backend.check()
    set_apart(destination, backend)
    with Spool(advance=progress.advance) as spool:
        earlier = None if force else read_earlier(destination, spool)
        if earlier is None:
            check_destination(destination)
        progress.step("open")
        peeked = peek_digest(source) if earlier is not None and platform is None else ""
        if earlier is not None and earlier.is_of(str(source), peeked, kept):
            return _unchanged(earlier, [], destination, kept, progress, started)
        image = open_image(source, spool, platform)
        if settings:
            image = with_settings(image, settings)
        check_source(image)
        if earlier is not None:
            if earlier.is_of(image.name, image.manifest_digest, kept):
                return _unchanged(earlier, image.layers, destination, kept, progress, started)
            check_destination(destination)
        known = Known(records, image.layers, spool, read_all=read_all)
        to_read = [layer.size for layer in image.layers if layer.diff_id not in known.layers]
        progress.step("read", sum(to_read))
        tree = merge_layers(
            image.layers,
            spool,
            advance=progress.advance,
            known=known.layers,
            keep=known.keep_layer,
        )
        region = lay_out(tree)
        # Only for a source that can be converted: this may go over the network.
        progress.step("runtime")
        shared = [_as_layer(layer) for layer in kept.shared()]
        backend.create()
        progress.step("store", region.size)
        stored = store_region(region, backend, level, progress.advance, known)
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
        layers = [*shared, own]
        config = build_config(image, layers, digest, level)
        joined = join_store(destination, config, layers, backend, digest)
        commit(backend, digest, list(zip(index.pack_digests, index.pack_sizes, strict=True)))
        image_digest = joined.write() if joined else write_image(destination, config, layers)
        known.keep_image(region, index)
        profile = None
        if makes_profile:
            progress.step("profile")
            # What nobody has read of the source is nearer in the store, some megabytes of it.
            at_hand = SourceContents(region.extents, bootstrap.data_start)
            profile = make_first_profile(
                backend,
                digest,
                index,
                bootstrap.plain,
                image.config.get("config") or {},
                None if known.unread else at_hand,
            )
    progress.end()
    return Report(
        chunks=index.chunk_count,
        new_chunks=stored.new_chunks,
        plain_bytes=region.size,
        stored_bytes=stored.referenced_bytes,
        new_stored_bytes=stored.new_bytes,
        source_layer_bytes=[layer.size for layer in image.layers],
        unread_layers=known.unread,
        known_bytes=known.bytes,
        boot_image=BootImageReport(
            str(destination), image_digest, own.size, sum(layer.size for layer in shared)
        ),
        seconds=round(time.monotonic() - started, 3),
        profile=profile,
    )


def _as_layer(shared: RuntimeLayer) -> Layer:
    return Layer(
        plain=shared.plain_path,
        stored=shared.stored_path,
        diff_id=shared.diff_id,
        digest=shared.digest,
        size=shared.size,
    )


def _unchanged(
    earlier: Earlier,
    layers: Sequence[LayerSource],
    destination: Reference,
    kept: Kept,
    progress: Progress,
    started: float,
) -> Report:
    progress.end()
    index = earlier.view.index
    return Report(
        chunks=index.chunk_count,
        new_chunks=0,
        plain_bytes=index.data_size,
        stored_bytes=sum(index.stored_sizes),
        new_stored_bytes=0,
        source_layer_bytes=[layer.size for layer in layers],
        unread_layers=len(layers),
        known_bytes=index.data_size,
        boot_image=BootImageReport(
            str(destination),
            earlier.digest,
            earlier.own_layer_size(),
            sum(layer.size for layer in kept.shared()),
        ),
        seconds=round(time.monotonic() - started, 3),
        unchanged=True,
    )
