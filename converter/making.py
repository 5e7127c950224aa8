"""One boot image and its data, made and in the store, but visible nowhere yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from converter.bootimage import ImageFiles, build_config, build_own_layer
from converter.earlier import Kept
from converter.erofswriter import write_bootstrap
from converter.firstprofile import (
    ProfileReport,
    SourceContents,
    make_first_profile,
    make_profile_of_stored,
)
from converter.images.view import ImageView, JsonObject, Layer
from converter.layers import merge_layers
from converter.order import lay_out
from converter.origins import encode_origins
from converter.progress import Progress
from converter.records.directory import Records
from converter.records.known import Known
from converter.runtime import RuntimeLayer
from converter.sourceconfig import architecture_of
from converter.spool import Spool
from converter.storing import Stored, add_bootstrap, store_region
from converter.structure import check_structure
from converter.tree import Node
from store.format.chunkindex import encode_chunk_index
from store.format.digest import digest_of
from store.format.erofs import Image
from store.format.names import bootstrap_name, chunk_index_name
from store.interfaces import Backend
from store.write.roots import Packs


@dataclass(frozen=True, slots=True)
class AtHand:
    """What there is of an image while the spool of its source is open, much of it in memory."""

    bootstrap: bytes
    extents: Mapping[Node, int] | None
    """As of `Region`; None where not all of the source was read."""
    data_start: int


@dataclass(frozen=True, slots=True)
class Made:
    """A boot image to be committed and written; sizes are bytes."""

    config: JsonObject
    layers: list[Layer]
    """The last is its own, those below are shared."""
    chunk_index: bytes
    """Raw digest."""
    packs: Packs
    region_size: int
    stored: Stored
    source_layer_sizes: list[int]
    unread_layers: int
    """Number of the source's layers whose bytes were not needed."""
    known_size: int
    """Bytes of the data region that were not cut again."""
    settings: JsonObject
    """Those of containers, as the source's config has them."""
    at_hand: AtHand | None
    """None where that is not kept; what is wanted of it is then read from the store."""

    @property
    def own_size(self) -> int:
        """Size of its own layer."""
        return self.layers[-1].size

    @property
    def shared_size(self) -> int:
        """Size of the other layers."""
        return sum(layer.size for layer in self.layers[:-1])


def make_boot_image(
    image: ImageView,
    kept: Kept,
    spool: Spool,
    progress: Progress,
    records: Records | None = None,
    *,
    read_all: bool = False,
) -> Made:
    """Return the boot image of a source image that has been checked, its data in the store.

    Whatever fails leaves packs at most that nothing refers to.  ``records`` are used and kept
    as `convert` says.

    Raises:
        BootfsError: whatever part fails says what and where.

    """
    backend, level = kept.backend, kept.level
    known = Known(records, image.layers, spool, read_all=read_all)
    to_read = [layer.size for layer in image.layers if layer.diff_id not in known.layers]
    progress.step("read", sum(to_read))
    tree = merge_layers(
        image.layers, spool, advance=progress.advance, known=known.layers, keep=known.keep_layer
    )
    region = lay_out(tree)
    # Only for a source that can be converted: this may go over the network.
    progress.step("runtime")
    shared = [_as_layer(layer) for layer in kept.shared(architecture_of(image.config))]
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
    files = ImageFiles(bootstrap.plain, encoded, digest, encode_origins(region.extents))
    layers = [*shared, build_own_layer(image, tree, files, kept.blob_store)]
    # Now and not with the last step: else of an index every tree would be held until then.
    # A record promises nothing; whether the store has a chunk is asked anew each time.
    known.keep_image(region, index)
    return Made(
        config=build_config(image, layers, digest, level),
        layers=layers,
        chunk_index=digest,
        packs=list(zip(index.pack_digests, index.pack_sizes, strict=True)),
        region_size=region.size,
        stored=stored,
        source_layer_sizes=[layer.size for layer in image.layers],
        unread_layers=known.unread,
        known_size=known.bytes,
        settings=image.config.get("config") or {},
        # What nobody has read of the source is nearer in the store, some megabytes of it.
        at_hand=AtHand(
            bootstrap.plain, None if known.unread else region.extents, bootstrap.data_start
        ),
    )


def add_first_profile(made: Made, backend: Backend, progress: Progress) -> ProfileReport | None:
    """Add the first profile of an image that was committed; see `make_first_profile`."""
    progress.step("profile")
    index, hand = made.stored.index, made.at_hand
    if hand is None:
        return make_profile_of_stored(backend, made.chunk_index, index, made.settings)
    source = None if hand.extents is None else SourceContents(hand.extents, hand.data_start)
    return make_first_profile(
        backend, made.chunk_index, index, hand.bootstrap, made.settings, source
    )


def _as_layer(shared: RuntimeLayer) -> Layer:
    return Layer(
        plain=shared.plain_path,
        stored=shared.stored_path,
        diff_id=shared.diff_id,
        digest=shared.digest,
        size=shared.size,
    )
