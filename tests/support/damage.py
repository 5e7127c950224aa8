"""Damage done to encoded objects, for tests that want it refused."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy


def damaged(data: bytes) -> SearchStrategy[bytes]:
    """Give copies of ``data`` with flipped bits, cut, lengthened, overwritten or spliced."""

    @st.composite
    def damage(draw: DrawFn) -> bytes:
        found = bytearray(data)
        for _ in range(draw(st.integers(1, 3))):
            kind = draw(st.sampled_from(("flip", "cut", "insert", "remove", "overwrite")))
            at = draw(st.integers(0, max(len(found) - 1, 0)))
            if kind == "flip" and found:
                found[at] ^= 1 << draw(st.integers(0, 7))
            elif kind == "cut":
                del found[at:]
            elif kind == "insert":
                found[at:at] = draw(st.binary(min_size=1, max_size=40))
            elif kind == "remove":
                del found[at : at + draw(st.integers(1, 40))]
            else:
                value = draw(st.sampled_from((b"\0" * 8, b"\xff" * 8, b"\x7f" * 4, b"\x01")))
                found[at : at + len(value)] = value
        return bytes(found)

    return damage()
