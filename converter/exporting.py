"""``bootfs export``: a boot image turned back into an ordinary one, of a single layer."""

from __future__ import annotations

import json
import sys
from contextlib import closing

from converter.boottree import read_tree
from converter.bootview import open_boot_images
from converter.images.layerfile import spool_layer
from converter.images.transports import check_destination, write_image
from converter.layertar import iter_layer
from converter.progress import iter_counted, shown_progress
from converter.reference import DOCKER_ARCHIVE, DOCKER_DAEMON, parse_reference
from converter.restoring import restore_config
from converter.spool import Spool
from store.write.hostsource import READ_LIMIT_S, open_host_source

_PLAIN = (DOCKER_DAEMON, DOCKER_ARCHIVE)
"""Destinations that take layers plain: nothing need be compressed for them."""


def export_image(
    image: str,
    destination: str,
    store: str,
    progress_wish: str | None,
    *,
    sparse: bool,
    as_json: bool,
) -> int:
    """Write an ordinary image with the tree and the settings of a boot image; return 0.

    With ``sparse`` holes of files stay holes, else they become zeros; see `iter_layer`.

    All of the image's chunks are fetched from ``store``, each verified.  Nothing is
    visible at the destination until all of it is there.

    Raises:
        NotFound: there is no such image, or the store lacks something of it.
        UsageError: it is no boot image, or something is at the destination already.
        IntegrityError, FormatError: the image is damaged, or what the store has of it.
        UnsupportedEntry: the tree holds what no layer can.
        RemoteError, AccessDenied, StorageFull: as they say.

    """
    target = parse_reference(destination)
    check_destination(target)
    with (
        shown_progress(progress_wish) as progress,
        closing(open_host_source(store, READ_LIMIT_S, _warn)) as source,
        Spool() as spool,
    ):
        progress.step("open")
        (view,) = open_boot_images((image,), spool)
        config = restore_config(view)
        with closing(view.open_reader(source)) as reader:
            tree = read_tree(view.open_tree(reader), reader)
            progress.step("read", view.index.data_size)
            pieces = iter_counted(iter_layer(tree, sparse=sparse), progress)
            layer = spool_layer(pieces, spool, compress=target.transport not in _PLAIN)
        progress.step("image")
        digest = write_image(target, config, [layer])
        progress.end()
    if as_json:
        print(json.dumps({"reference": str(target), "digest": digest, "layer": layer.size}))
    else:
        print(f"{target}: {layer.size / 1e6:.1f} MB in one layer, {digest}")
    return 0


def _warn(message: str) -> None:
    print(f"bootfs: {message}", file=sys.stderr)
