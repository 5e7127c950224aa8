import pytest

from store.errors import RemoteProtocolError, UsageError
from store.format.http1 import (
    Endpoint,
    check_content_range,
    check_plain_body,
    encode_request,
    object_size,
    parse_head,
    parse_url,
    resolve_redirect,
)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://host", ("http", "host", 80, "")),
        ("https://host/", ("https", "host", 443, "")),
        ("HTTP://host:8080/a/b/", ("http", "host", 8080, "/a/b")),
        ("http://[::1]", ("http", "::1", 80, "")),
        ("http://[::1]:81/x", ("http", "::1", 81, "/x")),
        ("http://1.2.3.4:5/%20", ("http", "1.2.3.4", 5, "/%20")),
    ],
)
def test_urls_are_understood(url: str, expected: tuple[str, str, int, str]) -> None:
    found = parse_url(url)
    assert (found.scheme, found.host, found.port, found.path) == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host",
        "ftp://host",
        "http://",
        "http:///path",
        "http://:80",
        "http://host:",
        "http://host:0",
        "http://host:65536",
        "http://host:" + "1" * 5000,
        "http://host:8a",
        "http://host:\u00b2",
        "http://user@host",
        "http://host?query",
        "http://host/a?b",
        "http://host/a#b",
        "http://host/a b",
        "http://host/\r\nX: y",
        "http://h\u00f6st",
        "http://host:-1",
    ],
)
def test_what_is_no_store_url_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        parse_url(url)


def test_the_host_header_leaves_default_ports_out() -> None:
    assert parse_url("http://host:80").authority == "host"
    assert parse_url("https://host:80").authority == "host:80"
    assert parse_url("http://[::1]:81").authority == "[::1]:81"


def test_a_request_asks_for_its_range() -> None:
    message = encode_request(Endpoint("http", "host", 80, "/x"), "/x/name", 10, 5)
    assert message.startswith(b"GET /x/name HTTP/1.1\r\nHost: host\r\nRange: bytes=10-14\r\n")
    assert message.endswith(b"\r\n\r\n")


def test_heads_are_parsed() -> None:
    head = parse_head(b"HTTP/1.1 206 Partial\r\nContent-Length:  5 \r\nX: a\r\nx: b")
    assert (head.status, head.content_length, head.keeps_alive) == (206, 5, True)
    assert head.fields["x"] == "a, b"
    assert not parse_head(b"HTTP/1.1 200\r\nConnection: Close").keeps_alive


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/2 200",
        b"HTTP/1.1",
        b"HTTP/1.1 20",
        b"HTTP/1.1 2000",
        b"HTTP/1.1 \xb2\xb2\xb2 x",
        b"ICY 200 OK",
        b"HTTP/1.1 200 OK\r\nno colon",
        b"HTTP/1.1 200 OK\r\n: x",
        b"HTTP/1.1 200 OK\r\nname : x",
        b"HTTP/1.1 200 OK\r\n folded: x",
    ],
)
def test_what_is_no_http_is_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_head(data)


@pytest.mark.parametrize("value", ["-1", "", "5, 5", "\u00b2", "9" * 20, "0x5", "5 "])
def test_sizes_that_are_none_are_refused(value: str) -> None:
    head = parse_head(b"HTTP/1.1 200 OK")
    head.fields["content-length"] = value
    with pytest.raises(RemoteProtocolError):
        _ = head.content_length


@pytest.mark.parametrize(
    ("content_range", "length", "is_right"),
    [
        ("bytes 10-14/100", 5, True),
        ("bytes 10-14/*", 5, True),
        ("Bytes 10-14/100", 5, True),
        ("bytes 10-15/100", 5, False),
        ("bytes 9-14/100", 5, False),
        ("bytes 10-14/100", 6, False),
        ("10-14/100", 5, False),
        ("", 5, False),
    ],
)
def test_only_the_range_asked_for_passes(content_range: str, length: int, is_right: bool) -> None:
    head = parse_head(f"HTTP/1.1 206 x\r\nContent-Length: {length}".encode())
    head.fields["content-range"] = content_range
    if is_right:
        check_content_range(head, 10, 5)
    else:
        with pytest.raises(RemoteProtocolError):
            check_content_range(head, 10, 5)


def test_the_size_of_the_whole_is_read_where_it_stands() -> None:
    head = parse_head(b"HTTP/1.1 416 x\r\nContent-Range: bytes */123")
    assert object_size(head) == 123
    for value in ("bytes 1-2/*", "", "bytes */\u00b2", "bytes */" + "9" * 30):
        head.fields["content-range"] = value
        assert object_size(head) is None


@pytest.mark.parametrize("name", ["Transfer-Encoding: chunked", "Content-Encoding: gzip"])
def test_encoded_bodies_are_refused(name: str) -> None:
    with pytest.raises(RemoteProtocolError):
        check_plain_body(parse_head(b"HTTP/1.1 200 OK\r\n" + name.encode()))
    check_plain_body(parse_head(b"HTTP/1.1 200 OK\r\nContent-Encoding: identity"))


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/other", ("http://host:81", "/other")),
        ("other", ("http://host:81", "/a/other")),
        ("//elsewhere/x", ("http://elsewhere", "/x")),
        ("https://cdn/x?sig=1/2#frag", ("https://cdn", "/x?sig=1/2")),
        ("http://cdn", ("http://cdn", "/")),
        ("x?u=http://y", ("http://host:81", "/a/x?u=http://y")),
    ],
)
def test_redirects_are_resolved(location: str, expected: tuple[str, str]) -> None:
    target, endpoint = resolve_redirect(parse_url("http://host:81/a"), "/a/name?q=/", location)
    assert (str(endpoint).removesuffix("/a"), target) == expected


@pytest.mark.parametrize(
    "location", ["", "ftp://x/y", "http://user@x/", "/a b", "/\xff", "/a\rX: y", "http://x:99999/"]
)
def test_redirects_that_cannot_be_followed_are_refused(location: str) -> None:
    with pytest.raises(RemoteProtocolError):
        resolve_redirect(parse_url("http://host"), "/name", location)


def test_a_redirect_never_leaves_tls() -> None:
    with pytest.raises(RemoteProtocolError, match="refused"):
        resolve_redirect(parse_url("https://host"), "/name", "http://host/name")
