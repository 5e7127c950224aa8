"""URLs of repositories, challenges, requests, and files of credentials, by their texts alone."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path

import pytest

from store.errors import AccessDenied, RemoteProtocolError, UsageError
from store.format.distribution import (
    PROFILES_TYPE,
    blob_digest,
    document_digest,
    encode_get,
    encode_query,
    parse_challenges,
    parse_repository_url,
    profiles_image,
    profiles_tag,
)
from store.format.http1 import parse_url
from store.format.names import chunk_index_name, hot_pack_name, pack_name, profiles_name
from store.read.dockerconfig import read_credentials
from store.write.registry.accounts import Accounts
from store.write.registry.endpoint import parse_endpoint


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("docker://registry.example/a", "https://registry.example"),
        ("docker://registry.example:5000/a/b-c", "https://registry.example:5000"),
        ("DOCKER://10.0.0.1/a", "https://10.0.0.1"),
        ("docker+http://10.0.0.1/a", "http://10.0.0.1"),
        ("docker+https://127.0.0.1/a", "https://127.0.0.1"),
        ("docker://localhost:5000/a", "http://localhost:5000"),
        ("docker://127.1.2.3/a", "http://127.1.2.3"),
        ("docker://[::1]:5000/a", "http://[::1]:5000"),
        ("docker://127.example/a", "https://127.example"),
        ("docker://docker.io/me/a", "https://registry-1.docker.io"),
    ],
)
def test_a_url_names_a_repository(url: str, server: str) -> None:
    endpoint, repository = parse_repository_url(url)
    assert str(endpoint) == server
    assert url.lower().endswith(f"/{repository}")


@pytest.mark.parametrize("url", ["http://host/a", "docker:host/a", "dockers://host/a", "a"])
def test_other_urls_name_none(url: str) -> None:
    with pytest.raises(UsageError, match="give docker://HOST/REPOSITORY"):
        parse_repository_url(url)


def test_hot_packs_are_blobs_and_profiles_have_a_tag() -> None:
    raw = bytes(range(32))
    assert blob_digest(hot_pack_name(raw)) == f"sha256:{raw.hex()}"
    assert blob_digest(profiles_name(raw)) == "" and profiles_image(profiles_name(raw)) == raw
    assert profiles_tag(raw) == f"bootfs-profiles-{raw.hex()}"
    for other in ("", "profiles/", hot_pack_name(raw), profiles_name(raw).upper()):
        assert profiles_image(other) == b""


def artifact(**changes: object) -> dict[str, object]:
    """Return the manifest of profiles of image 1, of two layers, with the first one changed."""
    layer: dict[str, object] = {
        "digest": f"sha256:{'a' * 64}",
        "annotations": {"org.opencontainers.image.title": profiles_name(b"\1" * 32)},
    }
    title = {"org.opencontainers.image.title": hot_pack_name(b"\2" * 32)}
    other = {"digest": f"sha256:{'02' * 32}", "annotations": title}
    return {"artifactType": PROFILES_TYPE, "layers": [other, layer | changes]}


def test_the_document_of_profiles_is_found_by_its_title() -> None:
    assert document_digest(artifact(), b"\1" * 32, "it") == f"sha256:{'a' * 64}"


@pytest.mark.parametrize(
    "manifest",
    [
        {},
        artifact() | {"artifactType": "application/vnd.bootfs.profiles.v2"},
        artifact() | {"layers": None},
        artifact() | {"layers": [None, 1, []]},
        artifact(annotations=None),
        artifact(annotations={"org.opencontainers.image.title": profiles_name(b"\2" * 32)}),
        artifact(digest=None),
        artifact(digest=f"sha256:{'a' * 63}/"),
        artifact(digest=f"sha256:{'a' * 63}"),
        artifact(digest=f"sha512:{'a' * 64}"),
    ],
)
def test_other_manifests_have_no_profiles(manifest: dict[str, object]) -> None:
    with pytest.raises(RemoteProtocolError, match="it: not the profiles of an image"):
        document_digest(manifest, b"\1" * 32, "it")


def test_packs_are_blobs_and_nothing_else_is() -> None:
    name = pack_name(bytes(range(32)))
    assert blob_digest(name) == f"sha256:{bytes(range(32)).hex()}"
    others = (chunk_index_name(bytes(32)), "", "packs/", name + "0", name[:-1] + "g", name.upper())
    for other in (*others, name.replace("packs/00", "packs/01"), f"x/{name}"):
        assert blob_digest(other) == ""


def told(value: str) -> list[tuple[str, dict[str, str]]]:
    return [(one.scheme, one.fields) for one in parse_challenges(value)]


def test_challenges() -> None:
    assert told("") == []
    assert told('Basic realm="a, b"') == [("basic", {"realm": "a, b"})]
    assert told('Bearer realm="https://a/t",service=s , scope="x:y,z"') == [
        ("bearer", {"realm": "https://a/t", "service": "s", "scope": "x:y,z"})
    ]
    assert told(r'Negotiate, Basic Realm="a\"b", Bearer realm="c"') == [
        ("negotiate", {}),
        ("basic", {"realm": 'a"b'}),
        ("bearer", {"realm": "c"}),
    ]
    assert told("a=b") == []
    with pytest.raises(RemoteProtocolError, match="does not end"):
        parse_challenges('Basic realm="a')


def test_requests() -> None:
    endpoint = parse_url("http://host:5000")
    assert encode_query({"a": "b c&=/:", "none": "", "d": "ü~"}) == "a=b%20c%26%3D%2F%3A&d=%C3%BC~"
    assert encode_get(endpoint, ("/v2/", ""), "") == (
        b"GET /v2/ HTTP/1.1\r\nHost: host:5000\r\nUser-Agent: bootfs\r\n"
        b"Accept-Encoding: identity\r\n\r\n"
    )
    assert b"\r\nRange: bytes=0-1\r\nAuthorization: Bearer x\r\n" in encode_get(
        endpoint, ("/v2/", ""), "Bearer x", "bytes=0-1"
    )


def basic(user: str) -> str:
    return b64encode(user.encode()).decode()


def test_the_longest_key_of_a_file_of_credentials_counts(tmp_path: Path) -> None:
    auths = {
        "host:5000": {"auth": basic("host:1")},
        "https://host:5000/team": {"auth": basic("team:2")},
        "host:5000/team/app/": {"username": "app", "password": "ü3"},
        "host": {"auth": basic("other:4")},
        "https://index.docker.io/v1/": {"auth": basic("hub:5")},
        "token": {"registrytoken": "abc"},
    }
    (tmp_path / "config.json").write_text(json.dumps({"auths": auths, "credsStore": "none"}))
    expected = {
        ("host:5000", "x"): "host:1",
        ("host:5000", "team/other"): "team:2",
        ("host:5000", "teams"): "host:1",
        ("host:5000", "team/app"): "app:ü3",
        ("host", "team"): "other:4",
        ("registry-1.docker.io", "me/app"): "hub:5",
        ("nowhere", "a"): "",
    }
    for (host, repository), user in expected.items():
        found = read_credentials(str(tmp_path), host, repository)
        assert found.basic == basic(user)
        assert found.path == f"{tmp_path}/config.json"
    assert read_credentials(str(tmp_path), "token", "a").bearer == "abc"


def test_files_of_credentials_mean_the_same_to_containers_and_to_commands(tmp_path: Path) -> None:
    """One of both was lenient where the other was not."""
    cases: list[tuple[dict[str, object], str]] = [
        ({"host:5000": {"auth": basic("a:b\0\0")}}, "a:b"),
        ({"host:5000": {"auth": basic("a:b"), "username": "c", "password": "d"}}, "a:b"),
        ({"host:5000": {"username": "c", "password": "d:e"}}, "c:d:e"),
        ({"host:5000": {"auth": basic("a:b")}, "host:5000/some": {}}, "a:b"),
        ({"host:5000": {}, "https://host:5000/v2/": {"auth": basic("x:y")}}, "x:y"),
    ]
    path = tmp_path / "config.json"
    for auths, pair in cases:
        path.write_text(json.dumps({"auths": auths}))
        assert read_credentials(str(tmp_path), "host:5000", "some/where").basic == basic(pair)
        account = Accounts([path]).find(parse_endpoint("docker://host:5000/some/where"))
        assert account is not None and account.basic == f"Basic {basic(pair)}"
    for wrong in ({"auth": "no pair"}, {"auth": basic("no-colon")}, {"username": 1}, [1], "x"):
        path.write_text(json.dumps({"auths": {"host:5000": wrong}}))
        with pytest.raises(AccessDenied, match=str(path)):
            read_credentials(str(tmp_path), "host:5000", "some/where")
        with pytest.raises(AccessDenied, match=str(path)):
            Accounts([path]).find(parse_endpoint("docker://host:5000/some/where"))
