"""Turn one layer into a verified plain tar that can be read at any place.

Every byte read is verified: the stored bytes against the layer's digest, the
plain ones against its diff id.  Plain layers are read where they lie; others are
decompressed into the spool.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from converter.decompress import compression_of, iter_plain
from converter.images.view import LayerSource
from converter.spool import FileBlob, Spool
from store.errors import DigestMismatch, FormatError

# A thread hashes and writes what another decompresses.  Pieces are handed over in
# this size, since each costs a lock, and this many are in memory at once.
_PIECE = 1 << 20
_IN_FLIGHT = 4

# Hashing beside a thread that parses, each piece waits for the interpreter: few and large.
_VERIFIED_PIECE = 4 << 20


def read_layer(
    layer: LayerSource, spool: Spool, advance: Callable[[int], None] = lambda _: None
) -> FileBlob:
    """Return a layer's plain tar, verified, from the spool or where it lies already.

    ``advance`` is told stored bytes as they are read.

    Raises:
        DigestMismatch: the bytes are not what the layer's digest or diff id says.
        FormatError: the compressed stream is damaged though its digest is right, or
            the layer states no digest.
        SizeMismatch: the file that holds the layer became shorter.
        StorageFull: the spool's disk is full.

    """
    if is_plain(layer):
        verify_plain(layer, advance)
        return plain_blob(layer)
    name = _name_of(layer)
    stored = layer.stored
    hashed = _Hashed(stored, advance)
    with spool.writing(name) as file:
        plain = hashlib.sha256()

        def consume(piece: bytes) -> None:
            file.write(piece)
            plain.update(piece)

        try:
            _consume_behind(consume, _gather(iter_plain(iter(hashed), name)))
        except FormatError:
            # That the bytes were damaged on their way is the better explanation.
            if layer.digest:
                _check_digest(f"{name}, as stored", layer.digest, hashed.finish())
            raise
        if layer.digest:
            _check_digest(f"{name}, as stored", layer.digest, hashed.finish())
        _check_digest(f"{name}, decompressed", layer.diff_id, f"sha256:{plain.hexdigest()}")
    return file.blob


def is_plain(layer: LayerSource) -> bool:
    """Whether a layer lies there uncompressed, and need not be copied."""
    return compression_of(layer.stored.pread(0, min(4, layer.stored.size))) == "none"


def plain_blob(layer: LayerSource) -> FileBlob:
    """Return a plain layer where it lies, not verified."""
    return layer.stored.part(_name_of(layer), 0, layer.stored.size)


def verify_plain(layer: LayerSource, advance: Callable[[int], None]) -> None:
    """Return when a plain layer is what its diff id says; ``advance`` as in `read_layer`.

    Raises:
        DigestMismatch: it is not.
        SizeMismatch: the file that holds the layer became shorter.

    """
    _check_digest(
        _name_of(layer), layer.diff_id, _Hashed(layer.stored, advance, _VERIFIED_PIECE).finish()
    )


def _name_of(layer: LayerSource) -> str:
    return layer.name or f"layer {layer.diff_id}"


class _Hashed:
    """The pieces of a blob, hashed as they go by."""

    def __init__(self, blob: FileBlob, advance: Callable[[int], None], piece: int = _PIECE) -> None:
        self._advance = advance
        self._pieces = blob.iter_pieces(piece)
        self._digest = hashlib.sha256()

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self._digest.update(piece)
            self._advance(len(piece))
            yield piece

    def finish(self) -> str:
        """Read what is left and return the digest of the whole blob."""
        for _ in self:
            pass
        return f"sha256:{self._digest.hexdigest()}"


def _check_digest(where: str, expected: str, actual: str) -> None:
    if actual != expected:
        raise DigestMismatch(where, expected, actual)


def _gather(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the same bytes in pieces of at least `_PIECE`, but for the last."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= _PIECE:
            yield b"".join(held)
            held.clear()
            size = 0
    if held:
        yield b"".join(held)


def _consume_behind(consume: Callable[[bytes], None], pieces: Iterator[bytes]) -> None:
    """Call ``consume`` with each piece, in order, in a thread that runs behind the producer."""
    with ThreadPoolExecutor(1, thread_name_prefix="spool") as pool:
        waiting: deque[Future[None]] = deque()
        for piece in pieces:
            waiting.append(pool.submit(consume, piece))
            if len(waiting) >= _IN_FLIGHT:
                waiting.popleft().result()
        while waiting:
            waiting.popleft().result()
