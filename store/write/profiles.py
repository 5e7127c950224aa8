"""Profiles as they are written: the document, and hot packs.

docs/format.md, "Profiles, version 1" and "Hot pack, version 1".
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator

from zstandard import COMPRESSOBJ_FLUSH_BLOCK, ZstdCompressionParameters, ZstdCompressor

from store.errors import FormatError
from store.format.digest import digest_of
from store.format.profile import (
    BODY_LIMIT,
    CHUNK_LIMIT,
    DOCUMENT_LIMIT,
    HEADER,
    HOT_PACK_LIMIT,
    MAGIC,
    NAME_LIMIT,
    PROFILE,
    PROFILE_LIMIT,
    READ_LIMIT,
    VERSION,
    WINDOW,
    Profile,
)
from store.format.trace import COMMAND_LIMIT, encode_command

LEVEL = 19
"""Written once and fetched at every cold start."""
QUICK_LEVEL = 9
"""Of what was only reckoned, while a conversion waits: 0.7 s for the 33 MB of a Node.js image
where `LEVEL` takes 18 s and is 13 % smaller."""
FLUSH = 128 << 10
"""Plain bytes, at least, after which a reader can have all chunks that end before."""


def encode_profiles(image: bytes, profiles: list[Profile]) -> bytes:
    """Return the document of the image whose chunk index has the raw digest ``image``.

    Raises:
        FormatError: more profiles, or larger ones, than there may be.

    """
    if len(profiles) > PROFILE_LIMIT:
        raise FormatError("profiles", 0, f"{len(profiles)} profiles; {PROFILE_LIMIT} at most")
    body = bytearray()
    for one in profiles:
        name, command = one.name.encode(), encode_command(one.command)
        if (
            not 0 < len(name) <= NAME_LIMIT
            or len(command) > COMMAND_LIMIT
            or len(one.reads) > READ_LIMIT
            or len(one.chunks) > CHUNK_LIMIT
            or one.hot_pack_size > HOT_PACK_LIMIT
        ):
            raise FormatError("profiles", len(body), f"profile {one.name!r} is too large")
        body += PROFILE.pack(
            *(len(name), one.origin, len(command), one.traces, len(one.reads), len(one.chunks)),
            *(one.hot_pack_size, one.hot_pack),
        )
        body += name + command
        body += array("I", [first for first, _ in one.reads]).tobytes()
        body += array("I", [pages for _, pages in one.reads]).tobytes()
        body += one.chunks.tobytes()
    stored = ZstdCompressor(level=19, write_checksum=False, write_content_size=False).compress(
        bytes(body)
    )
    head = HEADER.pack(MAGIC, VERSION, len(profiles), len(body), image, digest_of(stored))
    if len(body) > BODY_LIMIT or len(head) + len(stored) > DOCUMENT_LIMIT:
        raise FormatError("profiles", 0, f"{len(body)} bytes of profiles; remove some")
    return head + stored


def iter_hot_pack(
    chunks: Iterable[int], read: Callable[[int], bytes], level: int = LEVEL
) -> Iterator[bytes]:
    """Yield the bytes of a hot pack of ``chunks``, whose plain bytes ``read`` returns."""
    parameters = ZstdCompressionParameters.from_level(
        level, window_log=WINDOW.bit_length() - 1, write_content_size=False, write_checksum=False
    )
    compressor = ZstdCompressor(compression_params=parameters).compressobj()
    held = 0
    for chunk in chunks:
        plain = read(chunk)
        yield compressor.compress(plain)
        held += len(plain)
        if held >= FLUSH:
            yield compressor.flush(COMPRESSOBJ_FLUSH_BLOCK)
            held = 0
    yield compressor.flush()
