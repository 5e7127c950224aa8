"""The file ``http`` of credentials: which server is told what, and by which way it is reached.

One line a statement: ``ORIGIN KIND VALUE``; docs/stores/http.md.  Values are secret: no
message has any.
"""

from __future__ import annotations

from binascii import b2a_base64

from store.errors import AccessDenied, UsageError
from store.format.http1 import Endpoint, parse_url

KINDS = ("basic", "bearer", "header", "proxy", "direct")
EVERY = "*"
"""In place of an origin, for ``proxy``: all that have no line of their own."""


class Proxy:
    """A proxy: where it is, the value of Proxy-Authorization or nothing, and who named it."""

    __slots__ = ("authorization", "endpoint", "where")

    def __init__(self, endpoint: Endpoint, authorization: str, where: str) -> None:
        self.endpoint = endpoint
        self.authorization = authorization
        self.where = where


class HttpAccessTable:
    """What a file says: ``fields`` and ``places`` by origin, ``proxies`` by origin or `EVERY`.

    ``fields`` are header fields, each with its line's end; ``places`` the line numbers
    they come from.  A proxy that is None is none on purpose.
    """

    __slots__ = ("fields", "places", "proxies")

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self.places: dict[str, str] = {}
        self.proxies: dict[str, Proxy | None] = {}


def parse_http_access(text: str, path: str) -> HttpAccessTable:
    """Return what the file at ``path`` says.

    Raises:
        AccessDenied: a line is malformed; the message says which.

    """
    table = HttpAccessTable()
    authorized: set[str] = set()
    for number, line in enumerate(text.split("\n"), 1):
        where = f"{path}: line {number}"
        words = line.split(None, 2)
        if not words or words[0].startswith("#"):
            continue
        kind = words[1].lower() if len(words) > 1 else ""
        value = words[2].strip() if len(words) > 2 else ""
        if kind not in KINDS:
            raise AccessDenied(f"{where}: after the origin stands one of {', '.join(KINDS)}")
        key = EVERY if words[0] == EVERY else _origin(words[0], where)
        if bool(value) == (kind == "direct"):
            problem = "something" if value else "nothing"
            raise AccessDenied(f"{where}: {problem} stands after {kind}")
        if kind in ("proxy", "direct"):
            if key in table.proxies:
                raise AccessDenied(f"{where}: a second proxy for the same origin")
            table.proxies[key] = parse_proxy(value, where) if value else None
            continue
        if key == EVERY:
            raise AccessDenied(f"{where}: credentials are for one origin, not for all")
        if kind != "header":
            if key in authorized:
                raise AccessDenied(f"{where}: a second basic or bearer for the same origin")
            authorized.add(key)
        table.fields[key] = table.fields.get(key, "") + _field(kind, value, where)
        before = table.places.get(key)
        table.places[key] = f"{before}, {number}" if before else f"line {number}"
    return table


def parse_proxy(url: str, where: str) -> Proxy:
    """Return the proxy that ``http://[USER:PASSWORD@]HOST:PORT`` names.

    Raises:
        AccessDenied: it is no such URL; the message does not have it.

    """
    scheme, separator, rest = url.partition("://")
    user, at, place = rest.rpartition("@")
    if not separator:
        place = url
    try:
        endpoint = parse_url(f"http://{place}")
    except UsageError:
        endpoint = None
    if endpoint is None or endpoint.path or (separator and scheme.lower() != "http"):
        raise AccessDenied(f"{where}: not a proxy; write http://[USER:PASSWORD@]HOST:PORT")
    authorization = _basic(_unquoted(user)) if at else ""
    return Proxy(endpoint, authorization, where)


def origin(endpoint: Endpoint) -> str:
    """Return scheme, host and port of an endpoint as the table has them."""
    return f"{endpoint.scheme}://{endpoint.authority.lower()}"


def _origin(text: str, where: str) -> str:
    try:
        endpoint = parse_url(text)
    except UsageError:
        endpoint = None
    if endpoint is None or endpoint.path:
        raise AccessDenied(
            f"{where}: begins with no origin; write https://HOST or http://HOST:PORT"
        )
    return origin(endpoint)


def _field(kind: str, value: str, where: str) -> str:
    """Return the header field of a line."""
    if kind == "basic":
        if ":" not in value:
            raise AccessDenied(f"{where}: after basic stands USER:PASSWORD")
        return f"Authorization: {_basic(value)}\r\n"
    if any(c < " " or c > "~" for c in value):
        raise AccessDenied(f"{where}: only visible ASCII characters can be sent after {kind}")
    if kind == "bearer":
        if " " in value:
            raise AccessDenied(f"{where}: a token has no spaces")
        return f"Authorization: Bearer {value}\r\n"
    name, colon, content = value.partition(":")
    is_name = all(c.isalnum() or c in "-_" for c in name)
    if not colon or not name or not is_name or not content.strip():
        raise AccessDenied(f"{where}: after header stands NAME: VALUE")
    if name.lower() in ("host", "range", "content-length", "transfer-encoding", "connection"):
        raise AccessDenied(f"{where}: this header is not the user's to set")
    return f"{name}: {content.strip()}\r\n"


def _basic(credentials: str) -> str:
    """Return the value that RFC 7617 makes of ``USER:PASSWORD``."""
    return f"Basic {b2a_base64(credentials.encode(), newline=False).decode()}"


def _unquoted(text: str) -> str:
    """Return a part of a URL without its percent-encoding; what is none of it stays."""
    first, *others = text.encode().split(b"%")
    for other in others:
        try:
            first += bytes.fromhex(other[:2].decode()) + other[2:]
        except ValueError:
            first += b"%" + other
    return first.decode("utf-8", "replace")
