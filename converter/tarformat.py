"""The fields of tar headers: numbers, PAX records, sparse maps.  Bytes in, values out.

Layouts: POSIX.1-2017 "pax Interchange Format" and GNU tar 1.35's manual,
appendix D ("Tar Internals").  Where they leave room, this reads what Go's
``archive/tar`` reads, since that is what engines unpack layers with.
"""

from __future__ import annotations

import re
from functools import lru_cache
from struct import Struct

# ------  -----  ------------------------------------------------
# offset  size   field
# ------  -----  ------------------------------------------------
#      0    100  name
#    100      8  mode
#    108      8  uid
#    116      8  gid
#    124     12  size
#    136     12  mtime
#    148      8  checksum
#    156      1  typeflag
#    157    100  linkname
#    257      8  magic and version
#    265     64  uname, gname: engines use the numbers alone
#    329      8  devmajor
#    337      8  devminor
#    345    155  prefix (ustar only)
#    500     12
# ------  -----  ------------------------------------------------
HEADER = Struct("<100s8s8s8s12s12s8sc100s8s64x8s8s155s12s")
BLOCK = 512

USTAR_MAGIC = b"ustar\x0000"

_OCTAL = re.compile(rb"[0-7]+\Z")
_DECIMAL = re.compile(rb"-?[0-9]{1,19}\Z")
_SECONDS = re.compile(rb"(-?)([0-9]{1,19})(?:\.([0-9]*))?\Z")


class FieldError(ValueError):
    """A field does not hold what its type allows; the caller knows where it stands."""


# Modes, owners and times repeat; parsing anew takes a fifth of the time of reading a tar.
@lru_cache(maxsize=4096)
def parse_number(field: bytes) -> int:
    """Return the value of a numeric header field: octal digits, or GNU's base 256.

    Raises:
        FieldError: it is neither.

    """
    if field[0] & 0x80:
        value = int.from_bytes(field, "big")
        bits = 8 * len(field)
        # The top bit only marks the encoding; the next one is the sign.
        value &= (1 << (bits - 1)) - 1
        return value - (1 << (bits - 1)) if field[0] & 0x40 else value
    digits = field.strip(b" \0")
    if not digits:
        return 0
    end = digits.find(b"\0")
    if end >= 0:
        digits = digits[:end]
    if not _OCTAL.match(digits):
        raise FieldError(f"{field!r} is not a number")
    return int(digits, 8)


def parse_decimal(value: bytes) -> int:
    """Return the value of a PAX number.

    Raises:
        FieldError: it is not a decimal number of at most 19 digits.

    """
    if not _DECIMAL.match(value):
        raise FieldError(f"{value[:40]!r} is not a decimal number")
    return int(value)


def parse_time_ns(value: bytes) -> int:
    """Return a PAX time in nanoseconds since 1970, exactly; finer digits are cut off.

    Raises:
        FieldError: it is not a decimal number.

    """
    match = _SECONDS.match(value)
    if not match:
        raise FieldError(f"{value[:40]!r} is not a time")
    sign, seconds, fraction = match.groups()
    total = int(seconds) * 1_000_000_000 + int((fraction or b"")[:9].ljust(9, b"0"))
    return -total if sign else total


def parse_pax(data: bytes) -> list[tuple[bytes, bytes]]:
    """Return the records of a PAX extended header, in order.

    Raises:
        FieldError: a record's length is wrong, or it has no ``=``.

    """
    records = []
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        length = data[at:space]
        if space < 0 or not length.isdigit():
            raise FieldError(f"PAX record without a length at {at}")
        end = at + int(length)
        if end > len(data) or end <= space + 1 or data[end - 1] != 0x0A:
            raise FieldError(f"PAX record of {int(length)} bytes at {at} does not end in a newline")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals or not key:
            raise FieldError(f"PAX record without a key at {at}")
        records.append((key, value))
        at = end
    return records


def parse_gnu_sparse(data: bytes) -> list[tuple[int, int]]:
    """Return the (offset, size) pairs of an old GNU sparse header's array.

    Raises:
        FieldError: an entry is not a number.

    """
    pairs = []
    for at in range(0, len(data) - 23, 24):
        if not data[at]:
            break
        pairs.append((parse_number(data[at : at + 12]), parse_number(data[at + 12 : at + 24])))
    return pairs


def pax_sparse_map(records: list[tuple[bytes, bytes]]) -> list[tuple[int, int]]:
    """Return the sparse map that a PAX header carries itself (formats 0.0 and 0.1).

    Raises:
        FieldError: the map is not pairs of numbers.

    """
    numbers: list[int] = []
    expected = b"GNU.sparse.offset"
    for key, value in records:
        if key == b"GNU.sparse.map":
            numbers = [parse_decimal(number) for number in value.split(b",")] if value else []
        elif key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            if key != expected:
                raise FieldError("sparse offsets and sizes do not alternate")
            numbers.append(parse_decimal(value))
            expected = (
                b"GNU.sparse.numbytes" if key == b"GNU.sparse.offset" else b"GNU.sparse.offset"
            )
    if len(numbers) % 2:
        raise FieldError("the sparse map has an offset without a size")
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def check_sparse_map(pairs: list[tuple[int, int]], size: int, stored: int) -> None:
    """Check that a sparse map lies in its file, in order, and accounts for what is stored.

    Raises:
        FieldError: it does not.

    """
    end = 0
    total = 0
    for offset, length in pairs:
        if offset < end or length < 0 or offset + length > size:
            raise FieldError(f"sparse run {offset}+{length} is out of place in {size} bytes")
        end = offset + length
        total += length
    if total != stored:
        raise FieldError(f"the sparse map has {total} bytes, the entry {stored}")
