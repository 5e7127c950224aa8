"""Programs and shared objects of a few hundred bytes, as far as who loads them looks."""

from __future__ import annotations

import struct
from collections.abc import Sequence

X86_64, AARCH64 = 62, 183


def make_elf(
    *,
    interpreter: bytes = b"",
    needed: Sequence[bytes] = (),
    rpath: bytes = b"",
    runpath: bytes = b"",
    machine: int = X86_64,
    text: int = 0,
    constants: int = 0,
    data: int = 0,
) -> bytes:
    """Return an ELF file: tables, then segments of code, constants and data of these sizes.

    Each begins at a page of its own; addresses are offsets.
    """
    strings = bytearray(b"\0")

    def put(text: bytes) -> int:
        at = len(strings)
        strings.extend(text + b"\0")
        return at

    tags = [(1, put(name)) for name in needed]
    tags += [(15, put(rpath))] if rpath else []
    tags += [(29, put(runpath))] if runpath else []
    count = 2 + bool(interpreter) + bool(text) + bool(constants) + bool(data)
    interpreter_at = 64 + 56 * count
    strings_at = interpreter_at + len(interpreter) + 1
    dynamic_at = -(-(strings_at + len(strings)) // 8) * 8
    tags += [(5, strings_at), (0, 0)]
    dynamic = b"".join(struct.pack("<qQ", *tag) for tag in tags)
    end = dynamic_at + len(dynamic)
    headers = [_header(1, 4, 0, end), _header(2, 6, dynamic_at, len(dynamic))]
    if interpreter:
        headers.append(_header(3, 4, interpreter_at, len(interpreter) + 1))
    at = _page(end)
    for flags, size in ((5, text), (4, constants), (6, data)):
        if size:
            headers.append(_header(1, flags, at, size))
            at += _page(size)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head = ident + struct.pack(
        "<HHIQQQIHHHHHH", 3, machine, 1, _page(end), 64, 0, 0, 64, 56, count, 64, 0, 0
    )
    body = head + b"".join(headers) + interpreter + b"\0" + strings
    body = body.ljust(dynamic_at, b"\0") + dynamic
    return body.ljust(at if text or constants or data else end, b"\0")


def _header(kind: int, flags: int, offset: int, size: int) -> bytes:
    return struct.pack("<IIQQQQQQ", kind, flags, offset, offset, offset, size, size, 4096)


def _page(size: int) -> int:
    return -(-size // 4096) * 4096


def make_ld_cache(paths: dict[bytes, bytes]) -> bytes:
    """Return an ``ld.so.cache`` of these libraries."""
    head = 48 + 24 * len(paths)
    strings = b""
    entries = b""
    for name, path in paths.items():
        at = head + len(strings)
        entries += struct.pack("<iIIIQ", 0x303, at, at + len(name) + 1, 0, 0)
        strings += name + b"\0" + path + b"\0"
    counts = struct.pack("<IIB3xI12x", len(paths), len(strings), 2, 0)
    return b"glibc-ld.so.cache1.1" + counts + entries + strings
