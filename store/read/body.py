"""What a chunk's stored bytes hold."""

from __future__ import annotations

from store.format.digest import check_digest
from store.format.packfile import FILTERED


def plain_of(stored: bytes | memoryview, plain_size: int, digest: bytes, where: str) -> bytes:
    """Return the verified plain bytes of a chunk body.

    Raises:
        IntegrityError: the body is not the chunk ``digest`` of ``plain_size`` bytes.

    """
    if len(stored) == plain_size:
        plain = bytes(stored)
    else:
        # Here, since a start from the cache needs no decompressor.
        from store.format.zstdframe import decompress

        if stored[:1] == FILTERED:
            from store.read.branches import unfiltered

            plain = unfiltered(decompress(stored[1:], plain_size, where))
        else:
            plain = decompress(stored, plain_size, where)
    check_digest(plain, digest, where)
    return plain
