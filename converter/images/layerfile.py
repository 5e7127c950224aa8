"""A layer as large as an image, written to disk piece by piece."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from converter.images.gzipping import gzip_deterministic
from converter.images.view import OCI_LAYER_GZIP, Layer
from converter.spool import FileBlob, Spool

OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
MEMBER = 8 << 20
"""Plain bytes of one gzip member: a file may have any number (RFC 1952, section 2.2), and
each costs some 20 bytes and the 32 KiB that it does not look back to."""
_LEVEL = 6
"""libdeflate's: level 9 takes 2.7 times as long for 1 % fewer bytes."""


def spool_layer(pieces: Iterable[bytes], spool: Spool, *, compress: bool) -> Layer:
    """Return the layer of a tar that comes in pieces; its files last as long as ``spool``.

    The same tar gives the same layer anywhere.  Without ``compress`` it is stored plain.

    Raises:
        StorageFull: the spool's disk is full.

    """
    plain, diff_id = spool_tar(pieces, spool, "layer")
    if not compress:
        return Layer(plain.path, plain.path, diff_id, diff_id, plain.size, OCI_LAYER)
    members = (gzip_deterministic(piece, _LEVEL) for piece in plain.iter_pieces(MEMBER))
    stored, digest = spool_tar(members, spool, "compressed layer")
    return Layer(plain.path, stored.path, diff_id, digest, stored.size, OCI_LAYER_GZIP)


def spool_tar(pieces: Iterable[bytes], spool: Spool, name: str) -> tuple[FileBlob, str]:
    """Return the bytes that come in pieces as a blob, and their digest.

    Raises:
        StorageFull: the spool's disk is full.

    """
    digest = hashlib.sha256()
    with spool.writing(name) as file:
        for piece in _gather(pieces):
            digest.update(piece)
            file.write(piece)
    return file.blob, f"sha256:{digest.hexdigest()}"


def _gather(pieces: Iterable[bytes], least: int = 1 << 18) -> Iterator[bytes]:
    """Yield the same bytes in fewer pieces: a tar has many of a few bytes."""
    held = bytearray()
    for piece in pieces:
        held += piece
        if len(held) >= least:
            yield bytes(held)
            held.clear()
    if held:
        yield bytes(held)
