"""The conversion, top to bottom: source image, tree, chunks, packs, boot image, commit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from converter.bootimage import check_source
from converter.earlier import Earlier, Kept, read_earlier
from converter.firstprofile import ProfileReport
from converter.images.rootfs import with_settings
from converter.images.transports import (
    check_destination,
    join_store,
    open_image,
    peek_digest,
    set_apart,
    write_image,
    write_joined_images,
)
from converter.images.view import LayerSource
from converter.making import Made, add_first_profile, make_boot_image
from converter.platforms import OWN_OR_ONLY, Listed, Platform
from converter.progress import Progress
from converter.records.directory import Records
from converter.reference import Reference
from converter.settings import Settings
from converter.sourceconfig import architecture_of
from converter.spool import Spool
from store.errors import UsageError
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
    platform: Platform | Listed | None = None,
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
    kept = Kept(level, blob_store, backend, with_ssh or has_ssh_url(blob_store))
    backend.check()
    set_apart(destination, backend)
    with Spool(advance=progress.advance) as spool:
        there = platform.platform if isinstance(platform, Listed) else platform or OWN_OR_ONLY
        earlier = None if force else read_earlier(destination, spool, there)
        # One of several is not what would come of it.
        earlier = earlier if earlier is not None and earlier.image.is_only else None
        if earlier is None:
            check_destination(destination)
        progress.step("open")
        peeked = peek_digest(source) if earlier is not None and platform is None else ""
        if earlier is not None and earlier.is_of(str(source), peeked, kept):
            return report_unchanged(earlier, [], destination, kept, progress, started)
        image = open_image(source, spool, platform)
        if settings:
            image = with_settings(image, settings)
        check_source(image)
        if earlier is not None:
            if earlier.is_of(image.name, image.manifest_digest, kept):
                return report_unchanged(earlier, image.layers, destination, kept, progress, started)
            check_destination(destination)
        made = make_boot_image(image, kept, spool, progress, records, read_all=read_all)
        joined = join_store(destination, made.config, made.layers, backend, made.chunk_index)
        commit(backend, made.chunk_index, made.packs)
        digest = (
            write_joined_images([joined])
            if joined
            else write_image(destination, made.config, made.layers)
        )
        profile = add_first_profile(made, backend, progress) if makes_profile else None
    progress.end()
    return report_of(made, str(destination), digest, started, profile)


def report_of(
    made: Made, reference: str, digest: str, started: float, profile: ProfileReport | None
) -> Report:
    """Return what is to be said of a boot image that was written; ``started`` is monotonic."""
    stored = made.stored
    return Report(
        chunks=stored.index.chunk_count,
        new_chunks=stored.new_chunks,
        plain_bytes=made.region_size,
        stored_bytes=stored.referenced_bytes,
        new_stored_bytes=stored.new_bytes,
        source_layer_bytes=made.source_layer_sizes,
        unread_layers=made.unread_layers,
        known_bytes=made.known_size,
        boot_image=BootImageReport(reference, digest, made.own_size, made.shared_size),
        seconds=round(time.monotonic() - started, 3),
        profile=profile,
    )


def has_ssh_url(blob_store: str) -> bool:
    """Whether a store that containers are to read, or a mirror of it, is read over SSH."""
    return any(is_ssh_url(url) for url in blob_store.split("|"))


def report_unchanged(
    earlier: Earlier,
    layers: Sequence[LayerSource],
    destination: Reference,
    kept: Kept,
    progress: Progress,
    started: float,
) -> Report:
    """Return what is to be said of a boot image that was there already."""
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
            sum(layer.size for layer in kept.shared(architecture_of(earlier.view.image_config))),
        ),
        seconds=round(time.monotonic() - started, 3),
        unchanged=True,
    )
