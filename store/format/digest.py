"""Digests: BLAKE3 of plain bytes for what bootfs verifies, SHA-256 for names of packs.

A pack can be a blob of a registry, so it is named as one (SHA-256).  A chunk is
verified at every read, so it is named by the faster function (docs/format.md,
"Digests").
"""

from __future__ import annotations

from blake3 import blake3

from store.errors import DigestMismatch

DIGEST_SIZE = 32
"""Bytes of a raw digest, of either function."""


def digest_of(data: bytes | memoryview) -> bytes:
    """Return the raw BLAKE3 digest of ``data``."""
    return blake3(data).digest()


def printable(raw: bytes) -> str:
    """Return a raw BLAKE3 digest as ``blake3:hex``, the form of logs and errors."""
    return "blake3:" + raw.hex()


def check_digest(data: bytes | memoryview, expected: bytes, where: str) -> None:
    """Return when the BLAKE3 digest of ``data`` is ``expected``.

    Raises:
        DigestMismatch: it is another; ``where`` names the object in the message.

    """
    actual = blake3(data).digest()
    if actual != expected:
        raise DigestMismatch(where, printable(expected), printable(actual))
