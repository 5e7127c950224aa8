"""The way to an https server through a proxy (RFC 9110, 9.3.6)."""

from __future__ import annotations

import _socket
from time import monotonic

from store.errors import AccessDenied, Unreachable
from store.format.http1 import HEAD_LIMIT, Endpoint, parse_head
from store.format.httpaccess import Proxy


def tunnel(raw: _socket.socket, endpoint: Endpoint, proxy: Proxy, deadline: float) -> None:
    """Have ``proxy`` connect ``raw``, a connection to it, with ``endpoint`` by ``deadline``.

    Raises:
        AccessDenied: it will not.
        Unreachable: it cannot.
        OSError: as socket calls do, TimeoutError among them.

    """
    place = endpoint.address
    who = f"Proxy-Authorization: {proxy.authorization}\r\n" if proxy.authorization else ""
    raw.sendall(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n{who}\r\n".encode("ascii"))
    received = b""
    while b"\r\n\r\n" not in received:
        # One by one: what follows the head is the server's, and TLS's to read.
        raw.settimeout(max(deadline - monotonic(), 0.001))
        piece = raw.recv(1)
        if not piece:
            raise Unreachable(f"proxy {proxy.endpoint} closed the connection to {endpoint}")
        received += piece
        if len(received) > HEAD_LIMIT:
            raise Unreachable(f"proxy {proxy.endpoint}: response head is endless")
    status = parse_head(received.partition(b"\r\n\r\n")[0]).status
    if status == 407:
        raise AccessDenied(
            f"{endpoint}: 407; the proxy named in {proxy.where} wants other credentials"
        )
    if status in (401, 403, 405):
        raise AccessDenied(f"{endpoint}: {status}; proxy {proxy.endpoint} refuses to connect to it")
    if not 200 <= status < 300:
        raise Unreachable(f"{endpoint}: proxy {proxy.endpoint} cannot connect to it: {status}")
