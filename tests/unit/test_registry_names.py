"""What names, challenges and documents of registries mean, without a registry."""

from __future__ import annotations

import json

import pytest

from store.errors import FormatError, RemoteProtocolError, UsageError
from store.format.distribution import parse_challenges
from store.write.registry.answers import retry_after_s
from store.write.registry.endpoint import parse_endpoint
from store.write.registry.manifest import (
    DOCKER_MANIFEST,
    OCI_INDEX,
    OCI_MANIFEST,
    media_type_of,
    parse_descriptor,
)

DIGEST = f"sha256:{'5' * 64}"


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("docker://debian", "https://registry-1.docker.io/v2/library/debian/"),
        ("docker://docker.io/debian", "https://registry-1.docker.io/v2/library/debian/"),
        ("docker://index.docker.io/me/x", "https://registry-1.docker.io/v2/me/x/"),
        ("docker://me/x/y", "https://registry-1.docker.io/v2/me/x/y/"),
        ("docker://host.example/x/", "https://host.example/v2/x/"),
        ("docker://host.example:5000/a/b__c", "https://host.example:5000/v2/a/b__c/"),
        ("docker://HOST/x", "https://HOST/v2/x/"),
        ("docker+http://host.example/x", "http://host.example/v2/x/"),
        ("docker://localhost/x", "http://localhost/v2/x/"),
        ("docker://localhost:5000/x", "http://localhost:5000/v2/x/"),
        ("docker://127.0.0.9:5000/x", "http://127.0.0.9:5000/v2/x/"),
        ("docker://[::1]:5000/x", "http://[::1]:5000/v2/x/"),
        ("docker://[fe80::1]:5000/x", "https://[fe80::1]:5000/v2/x/"),
        ("docker+https://localhost:5000/x", "https://localhost:5000/v2/x/"),
        ("docker://localhost.example/x", "https://localhost.example/v2/x/"),
    ],
)
def test_repositories(url: str, base: str) -> None:
    assert parse_endpoint(url).base == base


@pytest.mark.parametrize("url", ["docker://debian", "docker+http://h.example:1/a/b"])
def test_a_repository_is_shown_as_what_means_it(url: str) -> None:
    endpoint = parse_endpoint(url)
    assert parse_endpoint(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    "url",
    ["", "debian", "docker:", "docker://", "docker:///x", "docker://h.example/", "http://h.example/x",
     "docker://h.example/X", "docker://h.example/x:tag", "docker://h.example/a//b",
     "docker://user@h.example/x", "docker://h.example:port/x", f"docker://h.example/{'x' * 255}",
     "docker://h.example/x?y", "docker://h.example/../x"],
)  # fmt: skip
def test_what_is_no_repository(url: str) -> None:
    with pytest.raises(UsageError, match="docker://HOST"):
        parse_endpoint(url)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([], []),
        (['Basic realm="x"'], [("basic", {"realm": "x"})]),
        (["Negotiate"], [("negotiate", {})]),
        (
            ['Bearer realm="https://h.example/t?a=b,c",service="a \\"b\\"",scope="r:x:pull,push"'],
            [("bearer", {"realm": "https://h.example/t?a=b,c", "service": 'a "b"',
                                  "scope": "r:x:pull,push"})],
        ),
        (
            ['Negotiate, BASIC Realm = x , Bearer realm="y"', 'Digest a="b"'],
            [("negotiate", {}), ("basic", {"realm": "x"}), ("bearer", {"realm": "y"}),
             ("digest", {"a": "b"})],
        ),
    ],
)  # fmt: skip
def test_challenges(values: list[str], found: list[tuple[str, dict[str, str]]]) -> None:
    """Fields of the same name are one, as HTTP has it and its library gives them."""
    challenges = parse_challenges(", ".join(values))
    assert [(one.scheme, one.fields) for one in challenges] == found


def test_a_challenge_that_does_not_end_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="does not end"):
        parse_challenges('Basic realm="never closed')


def test_retry_after() -> None:
    assert retry_after_s("7") == 7
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after_s("Fri, 21 Oct 2135 07:28:00 GMT") > 1e9
    assert retry_after_s("") is None
    assert retry_after_s("soon") is None


def test_media_types_are_those_stated_or_else_written_in_it() -> None:
    data = json.dumps({"mediaType": OCI_INDEX}).encode()
    assert media_type_of(b"{}", f"{DOCKER_MANIFEST}; charset=utf-8", "x") == DOCKER_MANIFEST
    assert media_type_of(data, "application/json", "x") == OCI_INDEX
    assert media_type_of(data, "", "x") == OCI_INDEX
    for wrong in ("application/vnd.docker.distribution.manifest.v1+prettyjws", "text/html"):
        with pytest.raises(FormatError, match="schema 2"):
            media_type_of(data, wrong, "x")
    for damaged in (b"", b"[]", b"{", b"{}", b"[" * 100_000):
        with pytest.raises(FormatError):
            media_type_of(damaged, "application/json", "x")


def test_a_descriptor_is_what_it_was_parsed_from() -> None:
    value = {"mediaType": OCI_MANIFEST, "digest": DIGEST, "size": 3, "artifactType": "a/b",
             "annotations": {"k": "v"}}  # fmt: skip
    assert parse_descriptor(value, "x").as_json() == value
    for name, wrong in (
        ("digest", "sha256:5"), ("digest", 5), ("size", -1), ("size", "3"), ("mediaType", 1),
        ("artifactType", [1]), ("annotations", [1]), ("annotations", {"k": 1}),
    ):  # fmt: skip
        with pytest.raises(FormatError, match="descriptor"):
            parse_descriptor(value | {name: wrong}, "x")
    with pytest.raises(FormatError, match="descriptor"):
        parse_descriptor([], "x")
