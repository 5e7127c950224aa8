"""HTTP/1.1 as far as ranged reads of immutable objects need it (RFC 9110, RFC 9112).

Bytes in, values out; the sockets are store/read/remote.py's.
"""

from __future__ import annotations

from store.errors import RemoteProtocolError, UsageError
from store.format.shownurl import shown

HEAD_LIMIT = 64 << 10
"""A response head longer than this is refused."""


class Endpoint:
    """Where a URL points: ``scheme``, ``host``, ``port``, and ``path`` without a last slash."""

    __slots__ = ("host", "path", "port", "scheme")

    def __init__(self, scheme: str, host: str, port: int, path: str) -> None:
        self.scheme = scheme
        self.host = host
        self.port = port
        self.path = path

    @property
    def authority(self) -> str:
        """Value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = 443 if self.scheme == "https" else 80
        return host if self.port == default else f"{host}:{self.port}"

    @property
    def address(self) -> str:
        """Host and port, as a proxy is told them."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


class ResponseHead:
    """Status and header fields of a response; field names are lower case."""

    __slots__ = ("fields", "status")

    def __init__(self, status: int, fields: dict[str, str]) -> None:
        self.status = status
        self.fields = fields

    @property
    def content_length(self) -> int | None:
        """Size of the body in bytes, None when the head does not say."""
        value = self.fields.get("content-length")
        if value is None:
            return None
        if not (value.isascii() and value.isdigit() and len(value) < 20):
            raise RemoteProtocolError(f"Content-Length is {value!r}, not a size")
        return int(value)

    @property
    def keeps_alive(self) -> bool:
        """Whether another request may follow on the connection."""
        return "close" not in self.fields.get("connection", "").lower()


def parse_url(url: str) -> Endpoint:
    """Return where an ``http`` or ``https`` URL points.

    Raises:
        UsageError: not such a URL, or one with a part that a store's URL cannot have.

    """
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in ("http", "https"):
        raise UsageError(f"{shown(url)}: not a store URL; give http://, https:// or a directory")
    authority, _, path = rest.partition("/")
    if "@" in authority or "?" in rest or "#" in rest:
        raise UsageError(f"{shown(url)}: a store URL has no user name, query or fragment")
    if any(c <= " " or c > "~" for c in rest):
        raise UsageError(
            f"{shown(url)!r}: a URL has only visible ASCII characters; percent-encode others"
        )
    host, separator, port = authority.rpartition(":")
    if not separator or port.endswith("]"):
        host, port = authority, "443" if scheme == "https" else "80"
    host = host.strip("[]")
    if not host or not port.isdigit() or len(port) > 5 or not 0 < int(port) < 65536:
        raise UsageError(f"{shown(url)}: no host, or a port that is none")
    return Endpoint(scheme, host, int(port), ("/" + path).rstrip("/"))


def encode_request(
    endpoint: Endpoint, target: str, offset: int, size: int, fields: str = ""
) -> bytes:
    """Return a GET request for ``size`` > 0 bytes from ``offset`` of the object at ``target``.

    ``fields`` are further header fields, each with its line's end.
    """
    return (
        f"GET {target} HTTP/1.1\r\nHost: {endpoint.authority}\r\n"
        f"Range: bytes={offset}-{offset + size - 1}\r\n"
        f"User-Agent: bootfs\r\nAccept-Encoding: identity\r\n{fields}\r\n"
    ).encode("ascii")


def parse_head(head: bytes) -> ResponseHead:
    """Return status and fields of a response, from its bytes up to the empty line.

    Raises:
        RemoteProtocolError: not an HTTP/1 response.

    """
    lines = head.decode("latin-1").split("\r\n")
    version, _, rest = lines[0].partition(" ")
    status, _, _ = rest.partition(" ")
    is_status = status.isascii() and status.isdigit() and len(status) == 3
    if not version.startswith("HTTP/1.") or not is_status:
        raise RemoteProtocolError(f"answer begins with {lines[0][:60]!r}, not with HTTP/1.1")
    fields: dict[str, str] = {}
    for line in lines[1:]:
        if not line:
            continue
        name, separator, value = line.partition(":")
        if not separator or not name or name != name.strip():
            raise RemoteProtocolError(f"header field {line[:60]!r} is malformed")
        name, value = name.lower(), value.strip()
        # RFC 9110, 5.3: lines of one name are a list.  Two sizes are then none.
        fields[name] = f"{fields[name]}, {value}" if name in fields else value
    return ResponseHead(int(status), fields)


def check_content_range(head: ResponseHead, offset: int, size: int) -> None:
    """Return when a 206 response carries exactly the bytes asked for.

    Raises:
        RemoteProtocolError: it carries others.

    """
    value = head.fields.get("content-range", "")
    wanted = f"bytes {offset}-{offset + size - 1}"
    if value.partition("/")[0].strip().lower() != wanted or head.content_length != size:
        raise RemoteProtocolError(
            f"asked for {wanted}, got {value!r} with {head.content_length} bytes"
        )


def check_plain_body(head: ResponseHead) -> None:
    """Return when the body is the object's bytes, as many as Content-Length says.

    Raises:
        RemoteProtocolError: they are encoded, or sent in pieces of their own sizes.

    """
    for name in ("transfer-encoding", "content-encoding"):
        value = head.fields.get(name, "identity")
        if value.lower() != "identity":
            raise RemoteProtocolError(
                f"{name} is {value!r}; a store needs a server that sends files as they are"
            )


def object_size(head: ResponseHead) -> int | None:
    """Return the size of the whole object, where a 206 or 416 response says it."""
    size = head.fields.get("content-range", "").rpartition("/")[2].strip()
    return int(size) if size.isascii() and size.isdigit() and len(size) < 20 else None


def resolve_redirect(endpoint: Endpoint, target: str, location: str) -> tuple[str, Endpoint]:
    """Return request target and server that a Location header names, seen from ``target``.

    Raises:
        RemoteProtocolError: it names nothing that can be followed; also http from https.

    """
    if not location or any(c <= " " or c > "~" for c in location):
        raise RemoteProtocolError(f"redirected to {location[:60]!r}, which is no URL")
    location = location.partition("#")[0]
    if location.startswith("//"):
        location = f"{endpoint.scheme}:{location}"
    if location.startswith("/"):
        return location, endpoint
    scheme, separator, rest = location.partition("://")
    if not separator or "/" in scheme or "?" in scheme:
        return f"{target.partition('?')[0].rpartition('/')[0]}/{location}", endpoint
    authority, _, path = rest.partition("/")
    try:
        found = parse_url(f"{scheme}://{authority}")
    except UsageError as error:
        raise RemoteProtocolError(f"redirected to what cannot be followed: {error}") from None
    if endpoint.scheme == "https" and found.scheme != "https":
        raise RemoteProtocolError(f"redirected from https to {found}; refused")
    return f"/{path}", found
