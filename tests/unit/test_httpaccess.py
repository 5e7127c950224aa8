"""The file of credentials for web servers: what each line gives, and what is refused of it."""

from base64 import b64decode

import pytest

from store.errors import AccessDenied
from store.format.httpaccess import EVERY, parse_http_access, parse_proxy

TEXT = """\
# the office
https://Store.example          basic   me:pass word
https://store.example:8443     bearer  abc.def
http://10.0.0.5:8080           header  X-Token: 1 2
http://10.0.0.5:8080\theader  X-Other: 3
https://store.example:443      header  X-More: 4

*                              proxy   http://user:p%40ss@proxy.example:3128
http://10.0.0.5:8080           direct
"""


def test_each_origin_has_its_lines() -> None:
    table = parse_http_access(TEXT, "/a/http")
    authorization, more = table.fields["https://store.example"].splitlines()
    assert b64decode(authorization.removeprefix("Authorization: Basic ")) == b"me:pass word"
    assert more == "X-More: 4"
    assert table.fields["https://store.example:8443"] == "Authorization: Bearer abc.def\r\n"
    assert table.fields["http://10.0.0.5:8080"] == "X-Token: 1 2\r\nX-Other: 3\r\n"
    assert table.places["https://store.example"] == "line 2, 6"
    proxy = table.proxies[EVERY]
    assert proxy is not None and str(proxy.endpoint) == "http://proxy.example:3128"
    assert b64decode(proxy.authorization.removeprefix("Basic ")) == b"user:p@ss"
    assert proxy.where == "/a/http: line 8"
    assert table.proxies["http://10.0.0.5:8080"] is None


def test_nothing_gives_nothing() -> None:
    table = parse_http_access("", "/a/http")
    assert not table.fields and not table.proxies and not table.places


@pytest.mark.parametrize(
    "line",
    [
        "https://h",
        "https://h basic",
        "https://h digest u:topsecret",
        "https://h basic topsecret",
        "https://h bearer top secret topsecret",
        "https://h bearer topsecret\x01",
        "https://h bearer topsecretä",
        "https://h header topsecret",
        "https://h header X-T:",
        "https://h header Host: topsecret",
        "https://h header X Y: topsecret",
        "https://h direct topsecret",
        "https://h proxy https://topsecret:topsecret@p",
        "https://h proxy http://topsecret@p/path",
        "https://h proxy http://u:topsecret@",
        "https://h/path bearer topsecret",
        "https://u:topsecret@h bearer topsecret",
        "ftp://h bearer topsecret",
        "h bearer topsecret",
        "* bearer topsecret",
        "topsecret",
    ],
)
def test_what_is_wrong_is_said_by_its_line_and_without_values(line: str) -> None:
    with pytest.raises(AccessDenied, match=r"^/a/http: line 3: ") as caught:
        parse_http_access(f"\n# fine\n{line}\n", "/a/http")
    assert "topsecret" not in str(caught.value)


@pytest.mark.parametrize(
    "lines", ["https://h basic a:b\nhttps://h bearer c", "* proxy http://a\n* proxy http://b"]
)
def test_two_that_exclude_each_other_are_refused(lines: str) -> None:
    with pytest.raises(AccessDenied, match="line 2: a second"):
        parse_http_access(lines, "/a/http")


@pytest.mark.parametrize(
    ("url", "place", "has_user"),
    [
        ("http://p:3128", "http://p:3128", False),
        ("http://p", "http://p", False),
        ("p:3128", "http://p:3128", False),
        ("http://u:p%zz@[::1]:8/", "http://[::1]:8", True),
    ],
)
def test_proxies_are_read_as_they_are_written(url: str, place: str, has_user: bool) -> None:
    proxy = parse_proxy(url, "here")
    assert (str(proxy.endpoint), bool(proxy.authorization)) == (place, has_user)
