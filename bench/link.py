"""Emulate a slow link in user space: a TCP relay with a rate, a delay and faults on demand.

The kernel's own emulator (`netem`) is a module that many kernels lack; a relay needs none and sits
in front of a registry and a store alike. What it promises, and what not:

* One line each way, shared by all connections as on a real link. A piece of n bytes occupies the
  line for n / rate and arrives rtt / 2 after it left; pieces of several connections interleave.
* The handshake costs one round trip: what either side says first enters the line no earlier than
  one rtt after the connection was accepted. The target is dialled then, too.
* A sender is slowed down once `QUEUE_S` of line time lies ahead of it, as by a router's queue.
* TCP's slow start and packet loss are not emulated.

As a command: `python -m bench.link --listen 127.0.0.1:5001 --to 127.0.0.1:5000 --rate 100M
--rtt 10ms`.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import socket
import struct
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

PIECE = 64 * 1024
"""The largest piece that enters the line at once; on a slow line, what 1 ms of it holds."""

QUEUE_S = 0.02
"""How much line time may be queued ahead before a sender has to wait."""

_BUFFER = 1024 * 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}


class Line:
    """One direction of the link: says when bytes that enter now will arrive, and counts them."""

    def __init__(self, rate: float | None, delay_s: float) -> None:
        """Give a line of `rate` bit/s (None: as fast as it goes) and a one-way delay."""
        self._byte_s = 8 / rate if rate else 0.0
        self._delay_s = delay_s
        self.piece = max(4096, min(PIECE, int(rate / 8 / 1000))) if rate else PIECE
        self._lock = threading.Lock()
        self._free_at = 0.0
        self.bytes = 0

    def enter(self, size: int, not_before: float) -> tuple[float, float]:
        """Put `size` bytes on the line: the time they arrive, and how long the sender must wait."""
        now = time.monotonic()
        with self._lock:
            self._free_at = max(self._free_at, now, not_before) + size * self._byte_s
            self.bytes += size
            return self._free_at + self._delay_s, self._free_at - QUEUE_S - now


class _Faults:
    """What is wrong with the link at the moment; shared by all its threads."""

    def __init__(self) -> None:
        self.refuses = False
        self.flows = threading.Event()
        self.flows.set()
        self.cut_after: int | None = None


class _Pipe:
    """One direction of one connection: a thread that reads, and one that delivers."""

    def __init__(self, connection: _Connection, line: Line, cut_after: int | None) -> None:
        self._connection = connection
        self._line = line
        self._left = cut_after
        self._pieces: deque[tuple[float, bytes]] = deque()
        self._ready = threading.Semaphore(0)

    def run(self, source: socket.socket, target: socket.socket, faults: _Faults) -> None:
        """Start both threads; they end with the connection."""
        for work in (self._collect, self._deliver):
            threading.Thread(target=work, args=(source, target, faults), daemon=True).start()

    def _collect(self, source: socket.socket, _target: socket.socket, faults: _Faults) -> None:
        piece = b"?"
        while piece:
            try:
                piece = source.recv(self._line.piece)
            except OSError:
                piece = b""
            faults.flows.wait()
            arrives, wait_s = self._line.enter(len(piece), self._connection.established)
            self._pieces.append((arrives, piece))
            self._ready.release()
            if piece and wait_s > 0:
                time.sleep(wait_s)

    def _deliver(self, _source: socket.socket, target: socket.socket, faults: _Faults) -> None:
        while True:
            self._ready.acquire()
            arrives, piece = self._pieces.popleft()
            wait_s = arrives - time.monotonic()
            if wait_s > 0:
                time.sleep(wait_s)
            faults.flows.wait()
            if self._left is not None:
                piece = piece[: self._left]
                self._left -= len(piece)
            try:
                target.sendall(piece)
                if not piece:
                    target.shutdown(socket.SHUT_WR)
            except OSError:
                self._connection.reset()
                return
            if self._left == 0:
                self._connection.reset()
                return
            if not piece:
                self._connection.half_closed()
                return


class _Connection:
    """A client's connection and the one dialled for it."""

    def __init__(self, link: Link, client: socket.socket, rtt_s: float) -> None:
        self._link = link
        self._client = client
        self._server: socket.socket | None = None
        self._lock = threading.Lock()
        self._ends_open = 2
        self.established = time.monotonic() + rtt_s

    def open(self, target: tuple[str, int], faults: _Faults) -> None:
        """Dial the target once the handshake's round trip is over, then relay."""
        time.sleep(max(0.0, self.established - time.monotonic()))
        try:
            server = socket.create_connection(target, timeout=10)
        except OSError:
            self.reset()
            return
        server.settimeout(None)
        for end in (self._client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._server = server
        cut_after, faults.cut_after = faults.cut_after, None
        _Pipe(self, self._link.up, None).run(self._client, server, faults)
        _Pipe(self, self._link.down, cut_after).run(server, self._client, faults)

    def half_closed(self) -> None:
        """Note that one direction has ended; close both ends after the second."""
        with self._lock:
            self._ends_open -= 1
            if self._ends_open:
                return
        self._close(reset=False)

    def reset(self) -> None:
        """End the connection so that both sides see it reset."""
        self._close(reset=True)

    def _close(self, *, reset: bool) -> None:
        for end in (self._client, self._server):
            if end is None:
                continue
            with contextlib.suppress(OSError):
                if reset:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                    # A thread blocked in recv holds the socket open past close();
                    # shutdown of the reading half wakes it without sending a FIN.
                    end.shutdown(socket.SHUT_RD)
            end.close()
        self._link.forget(self)


class Link:
    """A relay in front of `target`. Use as a context manager, or call `close`.

    `address` is where clients connect. `up` counts what clients sent, `down` what they were sent;
    `connections` counts the accepted ones.
    """

    def __init__(
        self,
        target: tuple[str, int],
        *,
        rate: float | None = None,
        rtt_s: float = 0.0,
        listen: tuple[str, int] = ("127.0.0.1", 0),
        beside: Link | None = None,
    ) -> None:
        """Listen and relay at `rate` bit/s each way; port 0 takes a free one.

        A link `beside` another shares that one's lines, and with them its rate, delay and byte
        counts: two servers at the far end of one cable.

        Raises:
            OSError: the address cannot be listened on.
        """
        self._target = target
        self._rtt_s: float = beside._rtt_s if beside else rtt_s
        self._faults = _Faults()
        self._open: set[_Connection] = set()
        self._lock = threading.Lock()
        self.up: Line = beside.up if beside else Line(rate, rtt_s / 2)
        self.down: Line = beside.down if beside else Line(rate, rtt_s / 2)
        self.connections = 0
        self._listener = socket.create_server(listen, backlog=256)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    @property
    def host_port(self) -> str:
        """Give the address as HOST:PORT."""
        return f"{self.address[0]}:{self.address[1]}"

    def __enter__(self) -> Link:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening and reset what is still connected."""
        # A thread blocked in accept() is not woken by close() alone.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._listener.close()
        self._faults.flows.set()
        self.reset()

    # Faults

    def stall(self) -> None:
        """Let nothing move in either direction; connections stay open."""
        self._faults.flows.clear()

    def refuse(self) -> None:
        """Reset every connection, and each new one as soon as it is accepted."""
        self._faults.refuses = True
        self.reset()

    def restore(self) -> None:
        """End `stall` and `refuse`."""
        self._faults.refuses = False
        self._faults.flows.set()

    def reset(self) -> None:
        """Reset all connections that are open now."""
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            connection.reset()

    def cut_after(self, size: int) -> None:
        """Reset the next connection once `size` bytes have reached its client."""
        self._faults.cut_after = size

    def forget(self, connection: _Connection) -> None:
        """Drop a connection that has ended."""
        with self._lock:
            self._open.discard(connection)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            connection = _Connection(self, client, self._rtt_s)
            with self._lock:
                self.connections += 1
                self._open.add(connection)
            if self._faults.refuses:
                connection.reset()
                continue
            threading.Thread(
                target=connection.open, args=(self._target, self._faults), daemon=True
            ).start()


def parse_rate(text: str) -> float:
    """Read a rate in bit/s: `100M` is 100,000,000.

    Raises:
        ValueError: it is no positive number with an optional k, M or G.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmg]?)", text.strip().lower())
    if not match or float(match[1]) == 0:
        raise ValueError(f"{text!r} is no rate; write it as 100M or 1G (bit/s)")
    return float(match[1]) * _UNITS[match[2]]


def parse_time(text: str) -> float:
    """Read a time in seconds: `10ms` is 0.01.

    Raises:
        ValueError: it is no number with `ms` or `s`.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s)", text.strip().lower())
    if not match:
        raise ValueError(f"{text!r} is no time; write it as 10ms or 0.5s")
    return float(match[1]) * (0.001 if match[2] == "ms" else 1.0)


def parse_address(text: str) -> tuple[str, int]:
    """Read HOST:PORT.

    Raises:
        ValueError: there is no host or no port.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"{text!r} is no HOST:PORT")
    return host, int(port)


def main(arguments: list[str] | None = None) -> int:
    """Relay until interrupted, then say how much went each way."""
    parser = argparse.ArgumentParser(prog="python -m bench.link", description=main.__doc__)
    parser.add_argument("--listen", type=parse_address, default=("127.0.0.1", 0))
    parser.add_argument("--to", type=parse_address, required=True, metavar="HOST:PORT")
    parser.add_argument("--rate", type=parse_rate, metavar="100M", help="bit/s each way")
    parser.add_argument("--rtt", type=parse_time, default=0.0, metavar="10ms")
    options = parser.parse_args(arguments)
    with Link(options.to, rate=options.rate, rtt_s=options.rtt, listen=options.listen) as link:
        print(f"listening on {link.host_port}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
        print(f"{link.connections} connections, {link.up.bytes} B up, {link.down.bytes} B down")
    return 0


if __name__ == "__main__":
    sys.exit(main())
