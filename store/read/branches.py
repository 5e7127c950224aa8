"""The branch filter as machine code where there is some for this machine, and else as Python.

What it does says `store.format.branches`.
"""

from __future__ import annotations

import os
import sys

from store.format.branches import turn_slowly

_FUNCFLAG_CDECL = 1

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Turn = Callable[[bytearray, int], int]


def _bind() -> Turn:
    """Return the machine code as a function; it runs without the interpreter's lock.

    Raises:
        OSError: it cannot be loaded, as on a machine of another kind.
        ImportError: this Python was built without ctypes.

    """
    import _ctypes

    # What comes out of the boot path's file has no place; what does not lies beside it.
    own = globals().get("__file__")
    directory = os.path.dirname(own) if own else f"{sys.path[0]}/store/read"
    library = _ctypes.dlopen(f"{directory}/branchcode.x86_64.so", 0)

    class Int(_ctypes._SimpleCData):  # type: ignore[type-arg]  # generic in stubs alone
        _type_ = "i"

    class Byte(_ctypes._SimpleCData):  # type: ignore[type-arg]  # generic in stubs alone
        _type_ = "B"

    class First(_ctypes.Array):  # type: ignore[type-arg]  # generic in stubs alone
        _type_ = Byte
        _length_ = 1

    class Function(_ctypes.CFuncPtr):
        _flags_ = _FUNCFLAG_CDECL
        _restype_ = Int

    call = Function(_ctypes.dlsym(library, "bootfs_branches"))

    def turn(data: bytearray, sign: int) -> int:
        if not data:
            return 0
        turned: int = call(First.from_buffer(data), len(data), sign)
        return turned

    return turn


try:
    turn = _bind()
except (OSError, ImportError):
    turn = turn_slowly


def filtered(plain: bytes) -> tuple[bytes, int]:
    """Return ``plain`` filtered, and how many displacements were turned into places."""
    data = bytearray(plain)
    turned = turn(data, 1)
    return bytes(data), turned


def unfiltered(data: bytes) -> bytes:
    """Return the bytes that `filtered` was given."""
    plain = bytearray(data)
    turn(plain, -1)
    return bytes(plain)
