"""When a workload is ready: what ``bootfs trace --until`` waits for."""

from __future__ import annotations

import http.client
import re
import socket
from dataclasses import dataclass

from store.errors import UsageError

_CONNECT_S = 1.0
_ANSWER_S = 10.0
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
_SECONDS = re.compile(r"[0-9]{1,6}(\.[0-9]{1,3})?", re.ASCII)
_HTTP = re.compile(r"(?::?([0-9]{1,5}))?(/[!-~]*)", re.ASCII)

EXIT, LOG, PORT, HTTP, SECONDS = "exit", "log", "port", "http", "seconds"


@dataclass(frozen=True, slots=True)
class Condition:
    """What a workload is to do, of one ``kind``; only that kind's other fields count."""

    kind: str = EXIT
    text: str = ""
    """What is to stand in its output, or the path that is to be answered."""
    port: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        return {
            EXIT: "exit",
            LOG: f"log:{self.text}",
            PORT: f"port:{self.port}",
            HTTP: f"http::{self.port}{self.text}",
            SECONDS: f"{self.seconds:g} s",
        }[self.kind]

    @property
    def needs_address(self) -> bool:
        """Whether the container is asked over the network."""
        return self.kind in (PORT, HTTP)

    def is_answered(self, address: str) -> bool:
        """Whether the container at ``address`` answers as wanted, within some seconds."""
        try:
            if self.kind == PORT:
                socket.create_connection((address, self.port), _CONNECT_S).close()
                return True
            connection = http.client.HTTPConnection(address, self.port, timeout=_ANSWER_S)
            try:
                connection.request("GET", self.text, headers={"Connection": "close"})
                return connection.getresponse().status == http.client.OK
            finally:
                connection.close()
        except (OSError, http.client.HTTPException):
            return False


def parse_condition(text: str) -> Condition:
    """Return what ``exit``, ``log:TEXT``, ``port:N``, ``http:[:PORT]/PATH`` or a number ask for.

    Raises:
        UsageError: it is none of them.

    """
    kind, _, rest = text.partition(":")
    if text == EXIT:
        return Condition()
    if kind == LOG and rest:
        return Condition(LOG, rest)
    if kind == PORT and _PORT.fullmatch(rest) and 0 < int(rest) < 1 << 16:
        return Condition(PORT, port=int(rest))
    match = _HTTP.fullmatch(rest) if kind == HTTP else None
    if match is not None and 0 < int(match[1] or 80) < 1 << 16:
        return Condition(HTTP, match[2], int(match[1] or 80))
    if _SECONDS.fullmatch(text):
        return Condition(SECONDS, seconds=float(text))
    raise UsageError(
        f"--until {text}: give log:TEXT, port:N, http:/PATH, http::PORT/PATH, a number of "
        "seconds, or exit"
    )
