import pytest

from store.errors import UsageError
from store.format.sshurl import is_ssh_url, parse_ssh_url


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ssh://host/a/b", ("", "host", 0, b"/a/b")),
        ("sftp://me@host:2222/a/b/", ("me", "host", 2222, b"/a/b")),
        ("SSH://host/", ("", "host", 0, b"")),
        ("ssh://a@b@host/x", ("a@b", "host", 0, b"/x")),
        ("ssh://[::1]/x", ("", "::1", 0, b"/x")),
        ("ssh://me@[fe80::1%25eth0]:23/x", ("me", "fe80::1%25eth0", 23, b"/x")),
        ("ssh://host/a%20b%2f%ff", ("", "host", 0, b"/a b/\xff")),
    ],
)
def test_urls_are_understood(url: str, expected: tuple[str, str, int, bytes]) -> None:
    found = parse_ssh_url(url)
    assert (found.user, found.host, found.port, found.path) == expected
    assert is_ssh_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "ssh://",
        "ssh://host",
        "ssh:///path",
        "ssh://@host/path",
        "ssh://host:/path",
        "ssh://host:0/path",
        "ssh://host:65536/path",
        "ssh://host:22x/path",
        "ssh://-oProxyCommand=x/path",
        "ssh://-l@host/path",
        "ssh://ho st/path",
        "ssh://host;x/path",
        "ssh://$(x)/path",
        "ssh://host/a?b",
        "ssh://host/a#b",
        "ssh://host/\u00e9",
        "ssh://host/%zz",
        "ssh://host/%0",
        "ssh://host/%00",
        "http://host/path",
        "host/path",
    ],
)
def test_what_is_no_place_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        parse_ssh_url(url)


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError, match="no password") as caught:
        parse_ssh_url("ssh://me:secret@host/path")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://a", "ssh", "ssh:", "/ssh://x", ""])
def test_others_are_not_of_this_kind(url: str) -> None:
    assert not is_ssh_url(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [("ssh://h/x", "h"), ("ssh://u@h:2/x", "u@h:2"), ("ssh://u@[::1]:2/x", "u@[::1]:2")],
)
def test_an_authority_is_shown_as_it_is_written(url: str, shown: str) -> None:
    assert parse_ssh_url(url).authority == shown
