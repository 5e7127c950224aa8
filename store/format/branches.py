"""The branch filter: x86-64 code in a form that compresses better, and back.

Code names other places by their distance, so that one function, called from two places, is
two numbers.  Made absolute they are one, and a compressor finds it again: code takes 8 to 14 %
less (docs/decisions/0019-branch-filter.md).  It is a guess what is code: any bytes come back
as they were.

From the first byte on, at each byte: a call or jump (`CALL`), the second byte of
a long conditional jump (`JUMP`), or an opcode whose operand is relative to the
instruction pointer (`OPERAND`) is followed by a displacement of four bytes.  One of less than
`REACH` either way has its own offset added, in 26 bits with sign, and the search goes on behind
it; with a longer one it goes on at that one's last byte, and everywhere else with the next byte.
So what has decided is never changed afterwards, and the way back finds the same displacements.
"""

from __future__ import annotations

REACH = 1 << 25
CALL, JUMP, OPERAND = 1, 2, 3

_OPERANDS = (
    *b"\x01\x03\x0b\x10\x11\x23\x28\x29\x2b\x2e\x2f\x33\x38\x39\x3b\x54\x57\x58\x59\x5c\x5e",
    *b"\x63\x6e\x6f\x7e\x7f\x80\x81\x83\x85\x88\x89\x8a\x8b\x8d\xb6\xb7\xbe\xc1\xc6\xc7\xd6",
    *b"\xf6\xf7\xff",
)
KINDS = bytes(
    CALL if byte in b"\xe8\xe9" else JUMP if byte == 0x0F else OPERAND * (byte in _OPERANDS)
    for byte in range(256)
)
"""What each byte may begin; 0: nothing."""


def turn_slowly(data: bytearray, sign: int) -> int:
    """Turn displacements in ``data`` into places (``sign`` 1) or back (-1); return how many."""
    at = turned = 0
    while at <= len(data) - 6:
        kind = KINDS[data[at]]
        at += 1
        if not kind:
            continue
        field = at
        if kind != CALL:
            field += 1
            second = data[at]
            if (second & 0xF0 != 0x80) if kind == JUMP else (second & 0xC7 != 0x05):
                continue
        value = int.from_bytes(data[field : field + 4], "little", signed=True) + REACH
        # What was looked at stays as it is: the next displacement begins behind it.
        at = field + 3
        if 0 <= value < 2 * REACH:
            value = (value + sign * field) % (2 * REACH) - REACH
            data[field : field + 4] = value.to_bytes(4, "little", signed=True)
            turned += 1
            at = field + 4
    return turned
