"""Whatever URL somebody gives, what may be a password in it is in no message."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.cli import _check_blob_store
from converter.keeping import collect_store, forget_image
from converter.reference import parse_reference
from converter.sharing import check_listable
from store.errors import BootfsError
from store.format.distribution import parse_repository_url
from store.format.http1 import parse_url
from store.format.s3place import parse_s3_url
from store.format.shownurl import shown
from store.format.sshurl import parse_ssh_url
from store.read.source import open_source
from store.write.backends import open_backend
from store.write.registry.endpoint import parse_endpoint

WORDS = ("SECRETPW", "HUNTER", "sesame")
"""Secrets are made of these, so that a part of one is found too."""
SCHEMES = (
    *("http", "https", "HTTP", "s3", "docker", "docker+http", "docker+https", "ftp", "htp"),
    *("ssh", "sftp"),
)

words = st.sampled_from(WORDS)
marks = st.sampled_from((*"/?#@:&=+%!|$,;~-._ ", "%40", "%2F", "::", "=="))
secrets = st.builds(
    lambda first, more: first + "".join(mark + word for mark, word in more),
    words,
    st.lists(st.tuples(marks, words), max_size=3),
    # To every reader that is the key of another value.
).filter(lambda secret: "=" not in secret.partition("&")[2])
hosts = st.sampled_from(("h", "h.example:5000", "[::1]:80", "images", "h:", "", "H"))
paths = st.sampled_from(("", "/", "/x", "/a/b:1", "/a@sha256:12", "/é", "/a b", "/../x", "/a:B"))
keys = st.sampled_from(("token", "secret_access_key", "X-Amz-Signature", "key", "sig"))
plain = st.sampled_from(("", "region=eu-west-1&", "style=path&", "profile=me&"))


def _in_the_user(scheme: str, secret: str, host: str, path: str) -> str:
    # The user of ssh is shown on purpose.
    return f"{scheme}://{'me:' if scheme in ('ssh', 'sftp') else ''}{secret}@{host}{path}"


urls = st.one_of(
    # A user with a slash or a question mark and no colon is a path with an "@" to all readers.
    st.builds(_in_the_user, st.sampled_from(SCHEMES), words, hosts, paths),
    st.builds("{}://user:{}@{}{}".format, st.sampled_from(SCHEMES), secrets, hosts, paths),
    st.builds(
        "{}://{}{}?{}{}={}".format, st.sampled_from(SCHEMES), hosts, paths, plain, keys, secrets
    ),
    st.builds("{}://{}{}#{}".format, st.sampled_from(SCHEMES), hosts, paths, secrets),
    st.builds("s3://images?{}endpoint=http://u:{}@{}".format, plain, secrets, hosts),
    st.builds("s3://images?{}endpoint={}://{}@h".format, plain, st.just("https"), words),
)
lists = st.builds(
    lambda before, url, after: f"{before}{url}{after}",
    st.sampled_from(("", "http://k/x|", "|", "http://k:80||", "s3://images?region=eu|")),
    urls,
    st.sampled_from(("", "|http://k/x", "||")),
)


def _opened(url: str) -> None:
    open_source(url, 0.1).close()


READERS: dict[str, Callable[[str], object]] = {
    "http": parse_url,
    "s3": parse_s3_url,
    "ssh": parse_ssh_url,
    "distribution": parse_repository_url,
    "registry": parse_endpoint,
    "reference": parse_reference,
    "blob store": _check_blob_store,
    "source": _opened,
    "listable": check_listable,
}


def holds_secret(text: str) -> bool:
    return any(word in text for word in WORDS)


@given(lists)
def test_a_url_is_shown_without_its_secret(url: str) -> None:
    assert not holds_secret(shown(url))


@pytest.mark.parametrize("reader", READERS)
@given(url=lists)
def test_no_reader_repeats_a_secret(reader: str, url: str) -> None:
    try:
        READERS[reader](url)
    except BootfsError as error:
        assert not holds_secret(str(error))


@given(st.builds("{}user:{}@{}/x{}".format, st.sampled_from(("", "docker:")), words, hosts, paths))
def test_no_reference_without_a_scheme_repeats_a_secret(text: str) -> None:
    with pytest.raises(BootfsError) as caught:
        parse_reference(text)
    assert not holds_secret(str(caught.value))


def _collect(url: str) -> None:
    collect_store(url, 0, delete=True, as_json=False)


def _forget(url: str) -> None:
    forget_image(url, "blake3:" + "0" * 64)


@given(urls)
def test_no_command_that_writes_repeats_a_secret(url: str) -> None:
    try:
        open_backend(url).close()
    except BootfsError as error:
        assert not holds_secret(str(error))
        # Others would be asked for, which takes a server.
        for command in (_collect, _forget):
            with pytest.raises(BootfsError) as caught:
                command(url)
            assert not holds_secret(str(caught.value))


@given(st.text(max_size=40))
def test_any_text_is_shown(text: str) -> None:
    assert isinstance(shown(text), str)
    assert shown(shown(text)) == shown(text)
