"""Gzip bytes that are the same on every machine.

The digest of a layer is taken over its gzip bytes, and zlib, zlib-ng and the
distributions' patched builds each compress differently.  libdeflate, in the
version that the PyPI package ``deflate`` carries, does not depend on the host.
"""

from __future__ import annotations

import deflate

# 9 is the last level before libdeflate's "near-optimal" search, which takes
# four times as long for 3 % fewer bytes.
_LEVEL = 9


def gzip_deterministic(data: bytes, level: int = _LEVEL) -> bytes:
    """Return ``data`` as one gzip member without time or file name.

    The same data gives the same bytes everywhere: mtime is 0 and the
    operating-system byte is 255 (unknown), RFC 1952 section 2.3.  ``level`` is
    libdeflate's, 1 to 12.
    """
    return bytes(deflate.gzip_compress(data, level))
