"""What networks, servers and stores do wrong: one line a fault."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from tests.support.relay import Exchange, Fault

Act = Callable[[Exchange], None]


def silent(exchange: Exchange) -> None:
    while exchange.keep_silent(60):
        pass


def trickle(exchange: Exchange) -> None:
    """Send the right head at once, and the body at 1 byte/s."""
    head, body = exchange.fetched()
    exchange.send(head)
    for at in range(len(body)):
        exchange.send(body[at : at + 1])
        if not exchange.keep_silent(1):
            return


def reset_midway(exchange: Exchange) -> None:
    head, body = exchange.fetched()
    exchange.send(head + body[: len(body) // 2])
    exchange.reset()


def short(exchange: Exchange) -> None:
    head, body = exchange.fetched()
    exchange.send(head + body[: len(body) // 2])


def long(exchange: Exchange) -> None:
    head, body = exchange.fetched()
    head = re.sub(rb"(?i)(content-length: )\d+", rb"\g<1>%d" % (len(body) + 1000), head)
    exchange.send(head + body + bytes(1000))


def another_range(exchange: Exchange) -> None:
    head, body = exchange.fetched()
    found = re.search(rb"bytes (\d+)-(\d+)/", head)
    if not found:
        exchange.send(head + body)  # that there is no profile, which is asked for whole
        return
    moved = b"bytes %d-%d/" % (int(found[1]) + 1, int(found[2]) + 1)
    exchange.send(head.replace(found[0], moved) + body)


def whole_object(exchange: Exchange) -> None:
    head, body = exchange.fetched()
    total = re.search(rb"bytes \d+-\d+/(\d+)", head)
    if not total:
        exchange.send(head + body)
        return
    fields = b"HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n" % total[1]
    exchange.send(fields + body)


def lie(exchange: Exchange) -> None:
    """Send as many bytes as were wanted, each third of them another."""
    head, body = exchange.fetched()
    wrong = bytearray(body)
    wrong[::3] = bytes(byte ^ 0x5A for byte in wrong[::3])
    exchange.send(head + wrong)


def zeros(exchange: Exchange) -> None:
    head, body = exchange.fetched()
    exchange.send(head + bytes(len(body)))


def answer(status: str, *fields: str) -> Act:
    lines = [f"HTTP/1.1 {status}", *fields, "Content-Length: 0", "", ""]
    return lambda exchange: exchange.send("\r\n".join(lines).encode())


def redirect(exchange: Exchange) -> None:
    path = exchange.head.split(b" ")[1]
    exchange.send(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: %s\r\n\r\n" % path)


def not_http(exchange: Exchange) -> None:
    exchange.send(b"\x16\x03\x01\x02\x00\r\n\r\n")


@dataclass(frozen=True)
class Scenario:
    """A fault, and whether a read gets through it."""

    act: Act | None = None
    times: int = 1 << 30
    lasts_s: float = 0.0
    """How long it lasts; 0 for as long as the read does."""
    recovers: bool | None = False
    """Whether a read gets the right bytes while it lasts; None where either may be."""
    is_retried: bool = False
    """Asking again helps as soon as it is over; anything else is EIO at once."""
    is_long_left: bool = False
    """The mirror wants to be left alone for longer than a test can wait."""
    is_down: bool = False
    tls: str = ""
    """Over TLS: ``untrusted``, or ``none`` for no TLS at all."""
    name_server: str = ""
    """By name: what is wrong with the name server."""

    def recovers_within(self, limit_s: float) -> bool | None:
        """Whether a read of so long a limit gets the right bytes."""
        return self.lasts_s < limit_s * 0.8 if self.lasts_s else self.recovers

    def fault(self) -> Fault:
        """Return the fault, not begun."""
        return Fault(self.act, self.times, is_down=self.is_down, cuts=bool(self.name_server))


FOREVER_BUSY = answer("429 Too Many Requests", "Retry-After: 3600")
SCENARIOS = {
    "drop of 12 s": Scenario(is_down=True, lasts_s=12),
    "drop of 6 s": Scenario(is_down=True, lasts_s=6),
    "drop of 2 s": Scenario(is_down=True, lasts_s=2),
    "drop for ever": Scenario(is_down=True),
    "silence for ever": Scenario(silent, is_retried=True),
    "1 byte/s": Scenario(trickle, is_retried=True),
    "resets in bodies, 3": Scenario(reset_midway, times=3, recovers=True),
    "resets in bodies, for ever": Scenario(reset_midway, is_retried=True),
    "short bodies, 3": Scenario(short, times=3, recovers=True),
    "short bodies, for ever": Scenario(short, is_retried=True),
    "long bodies": Scenario(long),
    "wrong Content-Range": Scenario(another_range),
    "200 for a range": Scenario(whole_object),
    "404": Scenario(answer("404 Not Found")),
    "403": Scenario(answer("403 Forbidden")),
    "429, Retry-After 1 s": Scenario(
        answer("429 Too Many Requests", "Retry-After: 1"), times=1, recovers=True
    ),
    "429, Retry-After 1 h": Scenario(FOREVER_BUSY, is_long_left=True),
    "500, 3 times": Scenario(answer("500 Oops"), times=3, recovers=True),
    "500 for ever": Scenario(answer("500 Oops"), is_retried=True),
    "503, 3 times": Scenario(answer("503 Busy"), times=3, recovers=True),
    "503 for ever": Scenario(answer("503 Busy"), is_retried=True),
    "redirect loop": Scenario(redirect),
    "no HTTP": Scenario(not_http),
    "wrong bytes, once": Scenario(lie, times=1, recovers=True),
    "wrong bytes, for ever": Scenario(lie),
    "zeros": Scenario(zeros),
    "TLS: certificate not trusted": Scenario(tls="untrusted"),
    "TLS: none": Scenario(tls="none"),
    "DNS: no answer": Scenario(name_server="silent"),
    "DNS: failure": Scenario(name_server="failed"),
    "DNS: no such name": Scenario(name_server="no name"),
    "DNS: no answer, 1 s": Scenario(name_server="silent", lasts_s=1),
}
