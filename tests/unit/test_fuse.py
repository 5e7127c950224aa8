"""Requests that are not as the kernel makes them."""

from __future__ import annotations

import os
import socket
from errno import EINVAL

import pytest

from boot.fuse import GETATTR, IN_HEADER, INIT, OUT_HEADER, READ, OneFile


@pytest.mark.parametrize("opcode", [INIT, READ])
@pytest.mark.parametrize("size", [0, 15])
def test_a_request_that_is_too_short_is_refused_and_the_next_answered(
    opcode: int, size: int
) -> None:
    ours, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, kernel:
        file = OneFile(ours.fileno(), b"image.erofs", 1, lambda offset, size: [b""], print)
        for unique, kind, body in ((7, opcode, bytes(size)), (8, GETATTR, bytes(16))):
            head = IN_HEADER.pack(IN_HEADER.size + len(body), kind, unique, 2, 0, 0, 0, 0, 0)
            file._answer(head + body)
        assert OUT_HEADER.unpack(os.read(kernel.fileno(), 1 << 20)) == (16, -EINVAL, 7)
        assert OUT_HEADER.unpack_from(os.read(kernel.fileno(), 1 << 20))[1:] == (0, 8)
