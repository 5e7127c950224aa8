"""``/etc/ld.so.cache``: which library has which path, as the dynamic loader of glibc reads it.

Layout: glibc's ``sysdeps/generic/dl-cache.h``, format ``glibc-ld.so.cache1.1``, which may
stand behind one of the old format.
"""

from __future__ import annotations

from struct import Struct

_MAGIC = b"glibc-ld.so.cache1.1"
# magic, number of entries, size of the strings, flags, where extensions are
_HEADER = Struct("<20sIIB3xI12x")
# flags, name, path (both offsets from the header), version of the system, hardware
_ENTRY = Struct("<iIIIQ")
_KIND = 0xFF
_ELF_LIBC6 = 3
_PATH_LIMIT = 4096
ENTRIES_LIMIT = 20_000
LIMIT = 4 << 20
"""Of a larger file nothing is read."""


def parse_ld_cache(data: bytes) -> dict[bytes, bytes]:
    """Return the path of each library; of several the one for any processor.

    What is damaged is left out: the loader would look elsewhere too.
    """
    start = data.find(_MAGIC)
    if start < 0 or len(data) - start < _HEADER.size:
        return {}
    _, count, *_ = _HEADER.unpack_from(data, start)
    entries = data[start + _HEADER.size :][: min(count, ENTRIES_LIMIT) * _ENTRY.size]
    entries = entries[: len(entries) - len(entries) % _ENTRY.size]
    found: dict[bytes, bytes] = {}
    for flags, name_at, path_at, _, hardware in _ENTRY.iter_unpack(entries):
        # Those for other processors than the least (hwcap) lie in places of their own.
        if hardware or flags & _KIND not in (1, _ELF_LIBC6):
            continue
        name, path = _text(data, start + name_at), _text(data, start + path_at)
        if name and path.startswith(b"/"):
            found.setdefault(name, path)
    return found


def _text(data: bytes, at: int) -> bytes:
    end = data.find(b"\0", at, at + _PATH_LIMIT)
    return data[at:end] if end > at else b""
