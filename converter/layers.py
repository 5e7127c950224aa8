"""Lay the layers of an image over each other, as overlay2 does."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from types import MappingProxyType

from converter.images.view import LayerSource
from converter.layertree import AUFS_PREFIX, LayerTree, is_whiteout
from converter.plainlayer import is_plain, plain_blob, read_layer, verify_plain
from converter.spool import FileBlob, GivenUp, Spool
from converter.tarreader import Budget, iter_entries
from converter.tree import NamedBlob, Node, empty_root
from store.errors import BootfsError


def merge_layers(
    layers: Sequence[LayerSource],
    spool: Spool,
    budget: Budget | None = None,
    advance: Callable[[int], None] = lambda _: None,
    known: Mapping[str, NamedBlob] = MappingProxyType({}),
    keep: Callable[[str, FileBlob, array[int]], None] | None = None,
) -> Node:
    """Return the merged tree of ``layers``, lowest first, as a container would see it.

    Contents refer to the files of ``spool`` and can be read until it is closed.
    Times are those of the layers, also where an engine cannot set them (before
    1970); a directory that no entry describes has that of the first entry in it.
    ``advance`` is told stored bytes as they are read, in another thread.

    Layers in ``known``, by diff id to their plain tars, are not read.  ``keep`` is called in
    the end for each that was, and so is verified: with its diff id, its plain tar, and offset
    and size there of each run of a file's bytes.

    Raises:
        DigestMismatch: a layer's bytes are not what its digest or diff id says.
        SizeMismatch: an entry's data is cut short.
        FormatError: a layer is damaged.
        UnsafePath: an entry leaves the root.
        ConvertError: a layer holds what no engine unpacks, or more than ``budget`` allows.
        StorageFull: the spool's disk has no room for the plain layers.

    """
    if budget is None:
        budget = Budget()
    root = empty_root()
    verified: list[Future[None]] = []
    read: list[tuple[str, FileBlob, array[int]]] = []
    with ThreadPoolExecutor(1, thread_name_prefix="verify") as pool:
        plain = _iter_plain_layers(layers, spool, advance, pool, verified, known)
        try:
            for number, blob in enumerate(plain):
                runs = _merge_layer(root, blob, budget, number)
                if isinstance(blob, FileBlob):
                    read.append((layers[number].diff_id, blob, runs))
            _await(verified)
        except BootfsError:
            # That the bytes were damaged on their way is the better explanation.
            with suppress(GivenUp):
                _await(verified)
            raise
        finally:
            # Here, and not when it is collected: that may be within a thread that begins,
            # and its end waits for a thread.
            plain.close()
            pool.shutdown(wait=False, cancel_futures=True)
    if keep is not None:
        for one in read:
            keep(*one)
    return root


def _merge_layer(root: Node, blob: NamedBlob, budget: Budget, number: int = 0) -> array[int]:
    """Lay a layer over ``root``; return offset and size of each run of a file's bytes in it."""
    layer = LayerTree(blob.name, root, budget, number)
    runs: array[int] = array("Q")
    for entry in iter_entries(blob, budget):
        layer.add(entry)
        for segment in entry.content.segments:
            runs.append(segment.blob_offset)
            runs.append(segment.size)
    _lay_over(root, layer)
    return runs


def _await(verified: list[Future[None]]) -> None:
    for future in verified:
        future.result()


def _iter_plain_layers(
    layers: Sequence[LayerSource],
    spool: Spool,
    advance: Callable[[int], None],
    verifiers: Executor,
    verified: list[Future[None]],
    known: Mapping[str, NamedBlob],
) -> Generator[NamedBlob, None, None]:
    """Yield plain layers in order; while one is in use the next is read.

    Those that lie there plain are yielded before they are verified: what is going on
    in ``verifiers`` is added to ``verified``.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="layer") as pool:
        waiting: deque[Future[NamedBlob]] = deque()
        try:
            for layer in layers:
                if layer.diff_id not in known:
                    layer.stored.want()
            for layer in layers:
                if layer.diff_id in known:
                    waiting.append(pool.submit(known.__getitem__, layer.diff_id))
                elif is_plain(layer):
                    waiting.append(pool.submit(plain_blob, layer))
                    verified.append(verifiers.submit(verify_plain, layer, advance))
                else:
                    waiting.append(pool.submit(read_layer, layer, spool, advance))
                if len(waiting) > 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BaseException:
            # Whatever it was, an interrupt too: it is not to wait for the network.
            for layer in layers:
                layer.stored.abandon()
            raise
        finally:
            for future in waiting:
                future.cancel()


def _lay_over(root: Node, layer: LayerTree) -> None:
    """Change ``root`` into what it is with ``layer`` over it."""
    pairs = [(root, layer.root)]
    while pairs:
        lower, upper = pairs.pop()
        lower.mode = upper.mode
        lower.uid = upper.uid
        lower.gid = upper.gid
        lower.mtime_ns = upper.mtime_ns
        lower.xattrs = upper.xattrs
        for name, node in upper.children.items():
            if name.startswith(AUFS_PREFIX):
                continue
            if is_whiteout(node):
                lower.children.pop(name, None)
            elif not node.is_directory:
                lower.children[name] = node
            else:
                below = lower.children.get(name)
                if below is None or not below.is_directory or node in layer.opaque:
                    # A new directory, since the layer's own may hold whiteouts.
                    below = lower.children[name] = Node(mode=node.mode)
                pairs.append((below, node))
