"""The other side of SFTP: answers as a server makes them, requests as it takes them apart."""

from __future__ import annotations

import struct

from store.format.sftpanswer import Answer, parse_answer, parse_length


def u32(value: int) -> bytes:
    return struct.pack(">I", value)


def u64(value: int) -> bytes:
    return struct.pack(">Q", value)


def text(value: bytes) -> bytes:
    return u32(len(value)) + value


def message(kind: int, number: int, body: bytes = b"") -> bytes:
    return struct.pack(">IBI", 5 + len(body), kind, number) + body


def taken(data: bytes) -> Answer:
    """Take one message apart, which must be all of `data`."""
    size = parse_length(data[:4])
    assert size == len(data) - 4
    return parse_answer(memoryview(data)[4:])


def attributes(
    size: int | None = None,
    owner: tuple[int, int] | None = None,
    mode: int | None = None,
    times: tuple[int, int] | None = None,
    extended: list[tuple[bytes, bytes]] | None = None,
) -> bytes:
    flags, body = 0, b""
    if size is not None:
        flags, body = flags | 1, body + u64(size)
    if owner is not None:
        flags, body = flags | 2, body + u32(owner[0]) + u32(owner[1])
    if mode is not None:
        flags, body = flags | 4, body + u32(mode)
    if times is not None:
        flags, body = flags | 8, body + u32(times[0]) + u32(times[1])
    if extended is not None:
        pairs = b"".join(text(a) + text(b) for a, b in extended)
        flags, body = flags | 1 << 31, body + u32(len(extended)) + pairs
    return u32(flags) + body


def names(entries: list[tuple[bytes, bytes]]) -> bytes:
    """Give the body of a listing; the second of each are encoded attributes."""
    return u32(len(entries)) + b"".join(
        text(name) + text(b"-rw " + name) + about for name, about in entries
    )
