"""The link emulator keeps what the benchmarks assume of it: rate, delay, counts, faults."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from bench.link import Link, parse_address, parse_rate, parse_time


@pytest.fixture
def source() -> Iterator[tuple[str, int]]:
    """Serve: each connection names a number of bytes in a line, and gets that many."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(client: socket.socket) -> None:
        # The reset of a link is what some tests are about.
        with contextlib.suppress(OSError), client, client.makefile("rb") as lines:
            for line in lines:
                client.sendall(b"x" * int(line))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(client,), daemon=True).start()

    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()
    listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    listener.close()


def fetch(address: tuple[str, int], size: int) -> bytes:
    with socket.create_connection(address, timeout=10) as client:
        client.sendall(b"%d\n" % size)
        got = b""
        while len(got) < size:
            piece = client.recv(1 << 20)
            if not piece:
                break
            got += piece
        return got


def test_one_byte_costs_two_round_trips_and_no_less(source: tuple[str, int]) -> None:
    with Link(source, rtt_s=0.04) as link:
        begun = time.monotonic()
        assert fetch(link.address, 1) == b"x"
        assert 0.08 <= time.monotonic() - begun < 0.4


def test_connections_share_the_rate_of_one_line(source: tuple[str, int]) -> None:
    size = 500_000
    with Link(source, rate=40e6) as link:
        begun = time.monotonic()
        readers = [threading.Thread(target=fetch, args=(link.address, size)) for _ in range(4)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        took = time.monotonic() - begun
        assert link.connections == 4
        assert link.down.bytes == 4 * size
        assert link.up.bytes == 4 * len(b"500000\n")
    assert took >= 4 * size * 8 / 40e6 - 0.03
    assert took < 2.0


def test_links_beside_each_other_share_one_line(source: tuple[str, int]) -> None:
    with Link(source, rate=40e6, rtt_s=0.01) as first, Link(source, beside=first) as second:
        begun = time.monotonic()
        for link in (first, second):
            assert len(fetch(link.address, 1000)) == 1000
        assert time.monotonic() - begun >= 4 * 0.01
        assert first.down.bytes == 2000
        assert second.connections == 1


def test_what_is_cut_arrives_up_to_the_cut_and_then_resets(source: tuple[str, int]) -> None:
    with Link(source) as link, socket.create_connection(link.address, timeout=10) as client:
        link.cut_after(1000)
        client.sendall(b"5000\n")
        got = b""
        with pytest.raises(ConnectionResetError):
            while piece := client.recv(4096):
                got += piece
        assert len(got) <= 1000
        assert len(fetch(link.address, 5000)) == 5000


def test_a_stalled_link_moves_nothing_until_restored(source: tuple[str, int]) -> None:
    with Link(source) as link, socket.create_connection(link.address, timeout=10) as client:
        client.sendall(b"1\n")
        assert client.recv(1) == b"x"
        link.stall()
        client.sendall(b"1\n")
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            client.recv(1)
        link.restore()
        client.settimeout(10)
        assert client.recv(1) == b"x"


def test_a_refusing_link_resets_old_and_new_connections(source: tuple[str, int]) -> None:
    with Link(source) as link, socket.create_connection(link.address, timeout=10) as client:
        client.sendall(b"1\n")
        assert client.recv(1) == b"x"
        link.refuse()
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            fetch(link.address, 1)
        link.restore()
        assert fetch(link.address, 1) == b"x"


def test_a_dead_target_is_a_reset() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        target = unused.getsockname()
    with Link(target) as link, pytest.raises((ConnectionResetError, BrokenPipeError)):
        fetch(link.address, 1)


@pytest.mark.parametrize(("text", "rate"), [("100M", 1e8), ("1g", 1e9), ("2.5k", 2500), ("8", 8)])
def test_rates(text: str, rate: float) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize(("text", "seconds"), [("10ms", 0.01), ("0.5s", 0.5)])
def test_times(text: str, seconds: float) -> None:
    assert parse_time(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "0", "-1M", "1T", "M", "1 000"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no rate"):
        parse_rate(text)


@pytest.mark.parametrize("text", ["10", "ms", "-1s", "1m"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no time"):
        parse_time(text)


@pytest.mark.parametrize("text", ["host", ":80", "host:", "host:http"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        parse_address(text)
