"""What registries and files of accounts may hold: anything, and then an error of ours at most."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
from hypothesis import given
from hypothesis import strategies as st

from store.errors import AccessDenied, FormatError, RemoteProtocolError
from store.format.distribution import parse_challenges
from store.write.registry.accounts import Accounts
from store.write.registry.answers import retry_after_s
from store.write.registry.endpoint import parse_endpoint
from store.write.registry.manifest import (
    DIGEST,
    MEDIA_TYPES,
    Manifest,
    media_type_of,
    parse_descriptor,
)

HOST = "registry.example:5000"
ENDPOINT = parse_endpoint(f"docker://{HOST}/a/b")

anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=8,
)
tokens = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=9)
odd = st.text(st.characters(), max_size=5)  # halves of surrogate pairs too
texts = st.text(st.characters(codec="ascii", exclude_categories=("Cc",)), max_size=20)


@given(st.lists(st.tuples(tokens, st.dictionaries(tokens, texts, max_size=4)), max_size=4))
def test_challenges_are_read_as_they_were_meant(meant: list[tuple[str, dict[str, str]]]) -> None:
    written = []
    for scheme, parameters in meant:
        quoted = (
            f'{name}="{text.translate({34: chr(92) + chr(34), 92: chr(92) * 2})}"'
            for name, text in parameters.items()
        )
        written.append(f"{scheme} {', '.join(quoted)}".strip())
    found = parse_challenges(", ".join(written))
    assert [(one.scheme, one.fields) for one in found] == meant


@given(st.text(max_size=200))
def test_any_header_is_read(value: str) -> None:
    try:
        for challenge in parse_challenges(value):
            assert challenge.scheme == challenge.scheme.lower()
    except RemoteProtocolError:
        assert '"' in value
    seconds = retry_after_s(value)
    assert seconds is None or seconds >= 0


def test_a_long_header_takes_no_time() -> None:
    for part in (" ", ", ", "a ", "a=", 'a="', "\\", "a=b,"):
        for value in (part * 50_000, f'Basic x="{part * 50_000}"'):
            with suppress(RemoteProtocolError):
                parse_challenges(value)


@given(st.binary(max_size=60) | anything.map(lambda value: json.dumps(value).encode()), st.text())
def test_any_manifest_is_one_or_refused(data: bytes, stated: str) -> None:
    try:
        assert media_type_of(data, stated, "x") in MEDIA_TYPES
        assert isinstance(Manifest(data, "").document("x"), dict)
    except FormatError as error:
        assert error.what == "x"


@given(
    st.dictionaries(
        st.sampled_from(["digest", "size", "mediaType", "annotations", "artifactType"]), anything
    )
    | anything
)
def test_any_descriptor_is_one_or_refused(value: object) -> None:
    try:
        found = parse_descriptor(value, "x")
    except FormatError:
        return
    assert DIGEST.match(found.digest)
    assert parse_descriptor(found.as_json(), "x") == found


entries = st.fixed_dictionaries(
    {},
    optional={
        "auth": texts | texts.map(lambda text: base64.b64encode(text.encode()).decode()) | anything,
        "username": texts | odd | anything,
        "password": texts | odd | anything,
        "identitytoken": texts | odd | anything,
        "registrytoken": texts | odd | anything,
    },
)


@given(
    st.binary(max_size=60)
    | anything.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(st.sampled_from([HOST, f"{HOST}/a", f"https://{HOST}/v1/"]), entries).map(
        lambda auths: json.dumps({"auths": auths, "credHelpers": auths}).encode()
    )
)
def test_any_file_of_accounts_is_read_or_refused(data: bytes) -> None:
    class Given(type(Path())):
        """A file that no disk has to hold."""

        def open(self, *_: object) -> Any:
            from io import BytesIO

            return BytesIO(data)

    try:
        found = Accounts([Given("f")]).find(ENDPOINT)
    except AccessDenied as error:
        assert str(error).startswith("f: ")
        return
    if found is not None:
        # Whatever it holds can be sent, in a header.
        assert found.basic.isascii()
        found.identity_token.encode()
        httpx.Headers({"Authorization": found.registry_token}).raw[0][1].decode("ascii")
        assert "\n" not in found.registry_token
        assert repr(found) == f"Account(origin={'f'!r})"
