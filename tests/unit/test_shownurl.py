"""URLs as messages show them."""

import pytest

from store.format.s3place import OPTIONS
from store.format.shownurl import READABLE, shown

HEX = "0" * 64


@pytest.mark.parametrize(
    "url",
    [
        *("", "store", "/srv/a@b", "file:///srv/a", "debian:12", f"debian:12@sha256:{HEX}"),
        *("http://h", "http://h:80/a", "HTTPS://h/a@b", "http://[::1]/a", "http://[::1]:80/a"),
        *("ssh://h/a", "ssh://me@h:22/a", "sftp://me@[::1]:22/a", "ftp://h/a"),
        *("docker://h:5000/a/b:1", f"docker://h:5000/a:1@sha256:{HEX}", "docker://h/a@sha256:12"),
        *("s3://b/p", "s3://b?region=eu-west-1&style=path&profile=me_2"),
        *("s3://b?endpoint=http://h:9000/", "s3://b?endpoint=http://[::1]:9000&region=x"),
        *(
            "http://h:80|/srv/store|https://k/x",
            "http://h||http://k",
            "oci:/a@b:tag",
            "oci:dir:tag",
        ),
    ],
)
def test_what_holds_no_secret_is_shown_whole(url: str) -> None:
    assert shown(url) == url


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://user:PW@h:80/x", "http://…@h:80/x"),
        ("http://TOKEN@h/x", "http://…@h/x"),
        ("http://user:P@W@h/x", "http://…@h/x"),
        ("http://user:P/W@h/x", "http://…@h/x"),
        ("http://user:P?W@h/x", "http://…"),
        ("http://user:P#W@h/x", "http://…"),
        ("http://user:P/W?Q", "http://…?…"),
        ("s3://b?endpoint=http://u:P@W&Q@h", "s3://…"),
        ("http://user:P%40W", "http://…"),
        ("http://user:123456/78@h", "http://…@h"),
        ("http://1::2:PW/x", "http://…"),
        ("http://user:P@W?Q@h/x", "http://…"),
        ("http://user:P|W@h/x", "http://…@h/x"),
        ("http://h/a|http://user:PW@k/b|http://l", "http://h/a|http://…@k/b|http://l"),
        ("http://h/x?token=PW&a&B64==&c=", "http://h/x?token=…&…&…&…"),
        ("http://h/x?token=P?W=Q#R", "http://h/x?token=…#…"),
        ("ssh://me:PW@h/x", "ssh://me@h/x"),
        ("ssh://me:P/W@h/x", "ssh://…@h/x"),
        ("s3://AKID:P/W+@b/p?region=eu", "s3://…@b/p?region=eu"),
        ("s3://b?endpoint=http://u:PW@h:9", "s3://b?endpoint=http://…@h:9"),
        ("s3://b?endpoint=http://u:PW", "s3://b?endpoint=http://…"),
        ("s3://b?endpoint=u:PW@h", "s3://b?endpoint=…"),
        ("s3://b?endpoint=http://u%3APW%40h", "s3://b?endpoint=…"),
        ("s3://b?region=eu;secret=PW", "s3://b?region=…"),
        ("s3://b?secret_access_key=PW&region=", "s3://b?secret_access_key=…&region="),
        ("docker://u:PW@h/x:1", "docker://…@h/x:1"),
        (f"docker://u:PW@h/x@sha256:{HEX}", f"docker://…@h/x@sha256:{HEX}"),
        ("docker:u:PW@h/x", "…@h/x"),
        ("u:PW@h/x:1", "…@h/x:1"),
        ("u:P/W@h/x", "…@h/x"),
    ],
)
def test_what_may_be_secret_is_hidden(url: str, expected: str) -> None:
    assert shown(url) == expected


def test_every_option_of_s3_is_readable() -> None:
    assert READABLE == OPTIONS
