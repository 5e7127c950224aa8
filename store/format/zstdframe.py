"""Zstd frames as every object of a store holds them: one frame, its plain size kept elsewhere.

A frame of ours does not state its content's size (docs/format.md, "Compressed
bytes").  One that states another than expected is refused before anything is
allocated: zstandard believes the frame and not the caller's limit, and a frame
of a few bytes can claim terabytes.
"""

from __future__ import annotations

from zstandard import ZstdDecompressor, ZstdError, frame_content_size

from store.errors import IntegrityError

UNSTATED = -1


def decompress(stored: bytes | memoryview, plain_size: int, where: str) -> bytes:
    """Return the ``plain_size`` bytes that the frame ``stored`` holds; never allocates more.

    Raises:
        IntegrityError: it is no frame, or one of more or fewer bytes; ``where``
            names the object in the message.

    """
    try:
        stated = frame_content_size(stored)
        if stated not in (UNSTATED, plain_size):
            raise IntegrityError(
                f"{where}: a frame of {stated} plain bytes, expected {plain_size}; it is damaged"
            )
        plain: bytes = ZstdDecompressor().decompress(stored, max_output_size=plain_size)
    except ZstdError as error:
        raise IntegrityError(f"{where}: does not decompress: {error}; it is damaged") from None
    if len(plain) != plain_size:
        raise IntegrityError(
            f"{where}: {len(plain)} plain bytes, expected {plain_size}; it is damaged"
        )
    return plain
