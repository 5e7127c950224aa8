"""Everything that servers and networks do wrong: the right bytes in time, or the right error."""

import _socket
import gc
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from random import Random

import pytest

from store.errors import (
    AccessDenied,
    BootfsError,
    PackNotFound,
    RemoteProtocolError,
    SizeMismatch,
    TimedOut,
)
from store.read import connection, dialling, retry
from store.read.remote import HttpSource
from tests.support.scripted import Script, ScriptedServer, partial, response

DATA = Random(1).randbytes(5000)
GOOD = partial(DATA, 10, 100)
WANTED = DATA[10:110]
LIMIT_S = 1.0
MARGIN_S = 1.0
"""For a machine that is busy with other things."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(retry, "LONGEST_WAIT_S", 0.05)
    monkeypatch.setattr(connection, "STALL_LIMIT_S", 0.3)
    yield
    # A socket that nobody closed is a warning, and so an error, here and not later.
    gc.collect()


@contextmanager
def played(
    *scripts: Script, limit_s: float = LIMIT_S
) -> Iterator[tuple[HttpSource, ScriptedServer]]:
    with ScriptedServer(*scripts) as server, closing(HttpSource(server.url, limit_s)) as source:
        yield source, server


def fetch(source: HttpSource) -> bytes:
    started = time.monotonic()
    try:
        return source.fetch("name", 10, 100)
    finally:
        assert time.monotonic() - started < LIMIT_S + MARGIN_S


ALWAYS_GOOD = ("request", GOOD) * 20

RECOVERS: dict[str, list[Script]] = {
    "all is well": [ALWAYS_GOOD],
    "500 then well": [("request", response("500 Oops")), ALWAYS_GOOD],
    "502 with a body then well": [("request", response("502 Bad", b"<html>")), ALWAYS_GOOD],
    "503 then well": [("request", response("503 Busy", retry_after="0")), ALWAYS_GOOD],
    "503 with a date": [
        ("request", response("503 Busy", retry_after="Fri, 31 Dec 1999 23:59:59 GMT")),
        ALWAYS_GOOD,
    ],
    "503 with nonsense": [("request", response("503 Busy", retry_after="\xb2")), ALWAYS_GOOD],
    "429 then well": [("request", response("429 Slow down")), ALWAYS_GOOD],
    "408 then well": [("request", response("408 Late")), ALWAYS_GOOD],
    "short body then well": [("request", GOOD[:-20], "close"), ALWAYS_GOOD],
    "reset in the body then well": [("request", GOOD[:-20], "reset"), ALWAYS_GOOD],
    "reset before the head": [("request", "reset"), ALWAYS_GOOD],
    "closed before the head": [("request", "close"), ALWAYS_GOOD],
    "closed in the head": [("request", GOOD[:20], "close"), ALWAYS_GOOD],
    "closed at once": [("close",), ALWAYS_GOOD],
    "stall in the body then well": [("request", GOOD[:-20], 5.0), ALWAYS_GOOD],
    "stall in the head then well": [("request", GOOD[:10], 5.0), ALWAYS_GOOD],
    "head in pieces": [("request", *[GOOD[n : n + 1] for n in range(len(GOOD))], "request")],
    "early hints": [("request", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + GOOD)],
    "continue in pieces": [("request", b"HTTP/1.1 100 Continue\r\n", 0.05, b"\r\n", 0.05, GOOD)],
    "no keep-alive": [("request", GOOD.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))],
    "HTTP/1.0": [("request", GOOD.replace(b"HTTP/1.1", b"HTTP/1.0"), "close")],
    "redirect to another path": [
        ("request", response("302 Found", location="/other/name?x=1"), "close"),
        ("request", GOOD),
    ],
    "307 without closing": [
        ("request", response("307 Moved", location="elsewhere"), 0.2),
        ("request", GOOD),
    ],
}


@pytest.mark.parametrize("case", RECOVERS)
def test_what_passes_is_survived(case: str) -> None:
    with played(*RECOVERS[case]) as (source, _):
        assert fetch(source) == WANTED
        assert fetch(source) == WANTED


whole = response("200 OK", DATA)
REFUSED: dict[str, tuple[Script, type[BootfsError]]] = {
    "404": (("request", response("404 Not Found")), PackNotFound),
    "410": (("request", response("410 Gone")), PackNotFound),
    "401": (("request", response("401 Who")), AccessDenied),
    "403": (("request", response("403 No")), AccessDenied),
    "418": (("request", response("418 Teapot")), RemoteProtocolError),
    "204": (("request", response("204 Nothing")), RemoteProtocolError),
    "101": (("request", response("101 Switching")), RemoteProtocolError),
    "304": (("request", response("304 Not Modified")), RemoteProtocolError),
    "416": (
        ("request", response("416 Range", content_range="bytes */50")),
        SizeMismatch,
    ),
    "206 that ends early": (("request", partial(DATA[:60], 10, 100)), SizeMismatch),
    "200 with all": (("request", whole), RemoteProtocolError),
    "another range": (("request", partial(DATA, 11, 100)), RemoteProtocolError),
    "a longer range": (("request", partial(DATA, 10, 101)), RemoteProtocolError),
    "a shorter range": (("request", partial(DATA, 10, 99)), RemoteProtocolError),
    "no Content-Range": (("request", response(body=WANTED)), RemoteProtocolError),
    "no Content-Length": (
        ("request", response(body=WANTED, content_length=None, content_range="bytes 10-109/5000")),
        RemoteProtocolError,
    ),
    "two Content-Lengths": (
        ("request", GOOD.replace(b"\r\n", b"\r\nContent-Length: 99\r\n", 1)),
        RemoteProtocolError,
    ),
    "a long body": (("request", GOOD + b"more"), RemoteProtocolError),
    "chunked": (
        (
            "request",
            response(
                content_length=None,
                content_range="bytes 10-109/5000",
                transfer_encoding="chunked",
                body=b"64\r\n" + WANTED + b"\r\n0\r\n\r\n",
            ),
        ),
        RemoteProtocolError,
    ),
    "gzip": (
        ("request", GOOD.replace(b"\r\n", b"\r\nContent-Encoding: gzip\r\n", 1)),
        RemoteProtocolError,
    ),
    "multipart": (
        ("request", response(body=WANTED, content_type="multipart/byteranges; boundary=x")),
        RemoteProtocolError,
    ),
    "not HTTP": (("request", b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), RemoteProtocolError),
    "binary": (("request", bytes(range(256)) + b"\r\n\r\n"), RemoteProtocolError),
    "a malformed field": (
        ("request", b"HTTP/1.1 206 x\r\nwhat is this\r\n\r\n"),
        RemoteProtocolError,
    ),
    "an endless head": (
        ("request", b"HTTP/1.1 206 x\r\n", *[b"X: " + b"x" * 1000 + b"\r\n"] * 100),
        RemoteProtocolError,
    ),
    "a redirect to nowhere": (("request", response("302 Found")), RemoteProtocolError),
    "a redirect to ftp": (
        ("request", response("302 Found", location="ftp://x/")),
        RemoteProtocolError,
    ),
    "a redirect with spaces": (
        ("request", response("302 Found", location="/a b\xff")),
        RemoteProtocolError,
    ),
    "a redirect loop": (
        ("request", response("302 Found", location="/name"), "close"),
        RemoteProtocolError,
    ),
    "500 for ever": (("request", response("500 Oops"), "close"), TimedOut),
    "503 for an hour": (("request", response("503 Busy", retry_after="3600"), "close"), TimedOut),
    "503 for ages": (("request", response("503 Busy", retry_after="9" * 400)), TimedOut),
    "silence": (("request", 60.0), TimedOut),
    "a body that stalls": (("request", GOOD[:-1], 60.0), TimedOut),
    "closed again and again": (("request", "close"), TimedOut),
    "reset again and again": (("request", "reset"), TimedOut),
    "a body that trickles": (("request", GOOD[:-90], *[b"x", 0.1] * 90), TimedOut),
    "a head that trickles": (
        ("request", *[step for b in GOOD for step in (bytes([b]), 0.1)]),
        TimedOut,
    ),
    "hints without end": (
        ("request", *[b"HTTP/1.1 103 Hint\r\n\r\n", 0.05] * 100),
        TimedOut,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_pass_is_an_error_in_time(case: str) -> None:
    script, error = REFUSED[case]
    with played(script) as (source, _), pytest.raises(error):
        fetch(source)


def test_what_cannot_help_is_not_asked_again() -> None:
    for case in ("404", "403", "another range", "200 with all", "not HTTP"):
        with played(REFUSED[case][0]) as (source, server):
            with pytest.raises(BootfsError):
                fetch(source)
            assert server.connections == 1


def test_the_whole_object_is_taken_where_it_was_asked_for() -> None:
    with played(("request", whole)) as (source, _):
        assert source.fetch("name", 0, len(DATA)) == DATA
    with played(("request", whole)) as (source, _), pytest.raises(SizeMismatch):
        source.fetch("name", 0, len(DATA) + 1)


def test_a_connection_closed_while_idle_costs_no_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 100.0)
    for end in ("close", "reset"):
        with played(("request", GOOD, end), ALWAYS_GOOD) as (source, server):
            assert fetch(source) == WANTED
            time.sleep(0.05)
            assert fetch(source) == WANTED
            assert server.connections == 2


def test_a_connection_dialled_and_closed_before_its_first_use_costs_no_retry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 100.0)
    for end in ("close", "reset"):
        with played((0.02, end), ALWAYS_GOOD) as (source, server):
            source.dial()
            time.sleep(0.1)
            assert fetch(source) == WANTED
            assert server.connections == 2


def test_bytes_behind_a_response_spoil_their_connection_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 100.0)
    script = ("request", GOOD, 0.1, b"garbage\r\n\r\n", "request", 5.0)
    with played(script, ALWAYS_GOOD) as (source, server):
        assert fetch(source) == WANTED
        time.sleep(0.3)
        assert fetch(source) == WANTED
        assert server.connections == 2


def test_a_redirect_to_another_host_takes_the_range_along() -> None:
    with ScriptedServer(("request", GOOD)) as other:
        target = f"{other.url}/blob?signature=1"
        script = ("request", response("307 Elsewhere", location=target), "close")
        with played(script) as (source, server):
            assert fetch(source) == WANTED
            assert fetch(source) == WANTED
        assert server.connections == other.connections == 2
        assert other.requests[0].startswith(b"GET /blob?signature=1 HTTP/1.1\r\n")
        assert b"\r\nRange: bytes=10-109\r\n" in other.requests[0]
        assert f"\r\nHost: 127.0.0.1:{other.port}\r\n".encode() in other.requests[0]


def test_after_the_last_redirect_that_is_followed_no_connection_is_opened() -> None:
    script = ("request", response("302 Found", location="/again"), "close")
    with played(script) as (source, server):
        with pytest.raises(RemoteProtocolError, match="more than 5 redirects"):
            fetch(source)
        assert server.connections == len(server.requests) == 1 + 5


def test_nobody_listening_is_an_error_that_names_the_address() -> None:
    with ScriptedServer(("close",)) as server:
        url = server.url
    started = time.monotonic()
    with pytest.raises(TimedOut, match=f"cannot connect to {url}"):
        HttpSource(url, 0.2).fetch("name", 0, 1)
    assert time.monotonic() - started < 0.2 + MARGIN_S
    HttpSource(url, 0.2).dial()


@pytest.mark.parametrize("host", ["no-such-host.invalid", "x" * 64, "a..b"])
def test_a_name_without_an_address_is_an_error(host: str) -> None:
    with pytest.raises(TimedOut, match=r"cannot connect|no name server"):
        HttpSource(f"http://{host}", 0.2).fetch("name", 0, 1)


def test_a_name_server_that_is_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = threading.Event()

    class Silent:
        """The socket module, where looking up a name takes as long as the C library lets it."""

        def __getattr__(self, name: str) -> object:
            return getattr(_socket, name)

        def getaddrinfo(self, *_: object) -> object:
            ended.wait(30)
            raise OSError("no answer")

    monkeypatch.setattr(dialling, "_socket", Silent())
    started = time.monotonic()
    with pytest.raises(TimedOut, match="no name server answers"):
        HttpSource("http://store.example", 0.3).fetch("name", 0, 1)
    assert time.monotonic() - started < 0.3 + MARGIN_S
    ended.set()


def test_a_name_is_looked_up_without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with ScriptedServer(("request", GOOD)) as server:
        for host in ("localhost", "127.0.0.1"):
            with closing(HttpSource(f"http://{host}:{server.port}", 1)) as source:
                assert fetch(source) == WANTED
                monkeypatch.setattr(dialling, "start_new_thread", refuse)


def test_connections_are_shared_among_threads_and_kept_to_a_number() -> None:
    with played(("request", 0.05, GOOD) * 50, limit_s=10) as (source, server):
        barrier = threading.Barrier(30)

        def work(_: int) -> None:
            barrier.wait()
            for _ in range(5):
                assert source.fetch("name", 10, 100) == WANTED

        with ThreadPoolExecutor(30) as pool:
            list(pool.map(work, range(30)))
        assert server.connections <= 30 * 2
        seen = server.connections
        for _ in range(5):
            source.fetch("name", 10, 100)
        assert server.connections == seen


def test_bytes_that_came_before_a_failure_may_be_shown_again() -> None:
    shown: list[bytes] = []
    with played(("request", GOOD[:-20], 0.1, "close"), ALWAYS_GOOD) as (source, _):
        assert source.fetch("name", 10, 100, lambda body: shown.append(bytes(body))) == WANTED
    assert shown[-1] == WANTED
    assert all(WANTED.startswith(body) for body in shown)
