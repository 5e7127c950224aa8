"""FastCDC with the cuts of the package ``fastcdc`` 1.7.0, where that has no extension.

Its wheels end with Python 3.12; built without a compiler it has only its Python loop, which
cuts 6 MB/s.  The loop here is machine code of x86-64 (``scan.S``), as fast as the extension.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from store.errors import ConvertError

_LIBRARY = Path(__file__).with_name("scan.x86_64.so")


class Cut(NamedTuple):
    """A chunk of the bytes given."""

    offset: int
    length: int


def fastcdc_gear(data: bytes, min_size: int, avg_size: int, max_size: int) -> Iterator[Cut]:
    """Yield the chunks of ``data``, as ``fastcdc_cy`` does; ``avg_size`` is a power of two.

    Raises:
        ConvertError: this machine is no x86-64.

    """
    scan = _library().bootfs_scan
    bits = avg_size.bit_length() - 1
    # The package's names: up to the center the stricter mask holds, so that few chunks are small.
    center = min(max(0, avg_size - min_size - -(-min_size // 2)), max_size)
    masks = ((1 << bits + 1) - 1, (1 << bits - 1) - 1)
    pattern = ctypes.c_uint32()
    place = ctypes.byref(pattern)
    at = 0
    while at < len(data):
        end = min(at + max_size, len(data))
        turn = min(at + center, end)
        pattern.value = 0
        start = min(at + min_size, end)
        cut = scan(data, start, turn, masks[0], place)
        cut = cut or scan(data, max(start, turn), end, masks[1], place) or end
        yield Cut(at, cut - at)
        at = cut


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(_LIBRARY))
    except OSError as error:
        raise ConvertError(
            f"cannot cut chunks on this machine ({error}); convert on an x86-64 machine, "
            "or install a compiler and then the package fastcdc anew"
        ) from error
    library.bootfs_scan.argtypes = [
        *(ctypes.c_char_p, ctypes.c_size_t, ctypes.c_size_t),
        *(ctypes.c_uint32, ctypes.POINTER(ctypes.c_uint32)),
    ]
    library.bootfs_scan.restype = ctypes.c_size_t
    return library
