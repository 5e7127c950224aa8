"""Connecting to a server: its name looked up, by a proxy or straight, plain or TLS.

`_socket` instead of `socket` saves the `enum` and `selectors` imports.
"""

from __future__ import annotations

import _socket
from _thread import allocate_lock, start_new_thread
from time import monotonic

from store.format.http1 import Endpoint
from store.read.source import lookups

LOOKUP_LIMIT_S = 2.0
"""The C library asks a silent name server again after 5 s; a lookup of its own is sooner there."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from store.format.httpaccess import Proxy
    from store.interfaces import Access

    Address = tuple[
        int, int, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
    ]
    """What a socket is made of and connected to."""

    class Stream(Protocol):
        """What a connection needs of a plain or a TLS socket."""

        def settimeout(self, seconds: float | None, /) -> None:
            """Limit each call that follows."""

        def sendall(self, data: bytes, /) -> None:
            """Send all of ``data``."""

        def recv_into(self, buffer: memoryview, /) -> int:
            """Receive into ``buffer``; return how many bytes, 0 at the end."""

        def close(self) -> None:
            """Close it."""


def connect(
    endpoint: Endpoint,
    limit_s: float,
    authorities: str,
    access: Access | None,
    proxy: Proxy | None,
) -> Stream:
    """Return a connected stream, by ``proxy`` where there is one, TLS where the scheme says so.

    All of it, with all addresses that the name has, takes ``limit_s`` at most.

    Raises:
        OSError: as the socket calls do (a failed name resolution is one too).
        AccessDenied, Unreachable: the proxy does not connect.

    """
    deadline = monotonic() + limit_s
    problem: OSError = OSError("the name has no address")
    near = proxy.endpoint if proxy is not None else endpoint
    for family, kind, protocol, _, address in _addresses(near, limit_s):
        raw = _socket.socket(family, kind, protocol)
        try:
            raw.settimeout(max(deadline - monotonic(), 0.001))
            raw.connect(address)
            raw.setsockopt(_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1)
        except OSError as error:
            raw.close()
            problem = error
            continue
        if endpoint.scheme == "https":
            from store.read.tls import wrap

            if proxy is not None:
                from store.read.proxy import tunnel

                try:
                    tunnel(raw, endpoint, proxy, deadline)
                except BaseException:
                    raw.close()
                    raise
            raw.settimeout(max(deadline - monotonic(), 0.001))
            return wrap(raw, endpoint.host, authorities, access)
        return raw
    raise problem


def _addresses(endpoint: Endpoint, limit_s: float) -> list[Address]:
    """Return what `_socket.getaddrinfo` does, within ``limit_s``.

    The C library waits for a name server as long as /etc/resolv.conf says, by default
    10 s for each: in a thread of its own, which ends by itself when nobody waits any more.

    Raises:
        OSError: there is none, or none came in time.

    """
    found: list[Address] = []
    problems: list[OSError] = []
    done = allocate_lock()
    done.acquire()

    def look_up(flags: int) -> None:
        try:
            # As bytes: a text would be taken for an international name, and its codec imported.
            host = endpoint.host.encode("ascii")
            kind = _socket.SOCK_STREAM
            found.extend(_socket.getaddrinfo(host, endpoint.port, 0, kind, 0, flags))
        except OSError as error:
            problems.append(error)
        finally:
            done.release()

    if ":" in endpoint.host or not endpoint.host.strip("0123456789."):
        # An address: nobody has to be asked.
        look_up(_socket.AI_NUMERICHOST)
    else:
        if not lookups.acquire(timeout=limit_s):
            raise TimeoutError("no name can be looked up yet")
        lookups.release()
        try:
            start_new_thread(look_up, (0,))
        except RuntimeError:
            # The container may have no more threads (--pids-limit).
            look_up(0)
    if not done.acquire(timeout=min(limit_s, LOOKUP_LIMIT_S)):
        raise TimeoutError("no name server answers")
    if problems:
        raise problems[0]
    return found
