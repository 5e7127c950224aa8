"""CRC-32C, the checksum EROFS keeps of its superblock.

Small inputs only: a block takes some 0.3 ms.  The table is made at first use,
since most boots let the kernel do this check and never come here.
"""

from __future__ import annotations

_POLYNOMIAL = 0x82F63B78
_table: list[int] = []


def _make_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)  # noqa: PLW2901
        table.append(value)
    return table


def update_crc32c(crc: int, data: bytes) -> int:
    """Return the register ``crc`` moved on over ``data``, inverted neither before nor after.

    The kernel's ``crc32c()`` is the same function; start it with 0xFFFFFFFF.
    """
    if not _table:
        _table.extend(_make_table())
    table = _table
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc
