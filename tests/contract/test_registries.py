"""What the client of a repository promises, with docker-registry in its several configurations."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from store.errors import (
    AccessDenied,
    BootfsError,
    DigestMismatch,
    FormatError,
    ImageNotFound,
    NotFound,
    NotReached,
    RemoteProtocolError,
    SizeMismatch,
    TimedOut,
    Unreachable,
)
from store.write.registry import open_repository
from store.write.registry.accounts import Accounts
from store.write.registry.client import Repository
from store.write.registry.lists import referrers_tag
from store.write.registry.manifest import (
    MANIFEST_LIMIT,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    sha256_of,
)
from store.write.registry.uploads import Held
from tests.support.require import require
from tests.support.servers import Nginx, Registry
from tests.support.tokenserver import TokenServer, docker_config, htpasswd_auth

LIMIT_S = 10.0
DATA = os.urandom(3_000_000)
BLOB = sha256_of(DATA)
KINDS = ["open", "basic", "token"]

Opener = Callable[[str], Repository]


@pytest.fixture(scope="module", params=KINDS)
def registry(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Registry, Accounts]]:
    require("registry")
    directory = tmp_path_factory.mktemp("registry")
    config = directory / "config.json"
    accounts = Accounts([config])
    if request.param == "open":
        with Registry() as server:
            yield server, accounts
    elif request.param == "basic":
        with Registry(extra=htpasswd_auth(directory)) as server:
            docker_config(config, server.host_port)
            yield server, accounts
    else:
        with TokenServer(directory) as tokens, Registry(extra=tokens.auth) as server:
            docker_config(config, server.host_port)
            yield server, accounts


@pytest.fixture
def opened(registry: tuple[Registry, Accounts]) -> Iterator[Opener]:
    """Gives repositories of one registry by their names."""
    server, accounts = registry
    repositories = []

    def of(name: str) -> Repository:
        url = f"docker://{server.host_port}/{name}"
        repositories.append(open_repository(url, accounts, LIMIT_S))
        return repositories[-1]

    yield of
    for repository in repositories:
        repository.close()


def open_alone(host_port: str, scheme: str = "docker") -> Repository:
    return open_repository(f"{scheme}://{host_port}/x", Accounts([]), LIMIT_S)


def image_manifest(config: bytes, **fields: object) -> Manifest:
    described = {"mediaType": "application/x", "digest": sha256_of(config), "size": len(config)}
    document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described, "layers": []}
    return Manifest(json.dumps(document | fields).encode(), OCI_MANIFEST)


def push_image(repository: Repository, name: str, **fields: object) -> Manifest:
    repository.push_blob(sha256_of(b"{}"), Held(b"{}"))
    manifest = image_manifest(b"{}", **fields)
    repository.push_manifest(name, manifest)
    return manifest


def test_a_blob_is_what_was_pushed(opened: Opener) -> None:
    repository = opened("blobs/whole")
    repository.check()
    assert repository.blob_size(BLOB) is None
    assert repository.push_blob(BLOB, Held(DATA), chunk=1 << 20)
    assert not repository.push_blob(BLOB, Held(DATA))
    assert repository.blob_size(BLOB) == len(DATA)
    assert b"".join(repository.iter_blob(BLOB, len(DATA))) == DATA
    for offset, size in ((0, 1), (12345, 1 << 20), (len(DATA) - 7, 7)):
        assert repository.fetch_range(BLOB, offset, size) == DATA[offset : offset + size]


def test_an_empty_blob(opened: Opener) -> None:
    repository = opened("blobs/empty")
    assert repository.push_blob(sha256_of(b""), Held(b""))
    assert repository.blob_size(sha256_of(b"")) == 0
    assert b"".join(repository.iter_blob(sha256_of(b""), 0)) == b""


def test_ranges_beyond_the_end(opened: Opener) -> None:
    repository = opened("blobs/end")
    repository.push_blob(BLOB, Held(DATA))
    with pytest.raises(SizeMismatch):
        repository.fetch_range(BLOB, len(DATA) - 7, 8)
    with pytest.raises(SizeMismatch):
        repository.fetch_range(BLOB, len(DATA) + 1, 8)
    with pytest.raises(SizeMismatch):
        list(repository.iter_blob(BLOB, len(DATA) + 1))


def test_content_that_is_not_of_its_digest_is_not_put_there(opened: Opener) -> None:
    repository = opened("blobs/wrong")
    wrong = sha256_of(b"something else")
    with pytest.raises(DigestMismatch, match=wrong):
        repository.push_blob(wrong, Held(DATA))
    assert repository.blob_size(wrong) is None


def test_a_blob_is_taken_over_from_another_repository(opened: Opener) -> None:
    data = os.urandom(1000)
    opened("mount/from").push_blob(sha256_of(data), Held(data))
    to = opened("mount/to")
    assert not to.push_blob(sha256_of(data), Held(data), mount_from="mount/from")
    assert to.blob_size(sha256_of(data)) == len(data)
    assert opened("mount/other").mount_blob(sha256_of(data), "mount/to")


def test_a_blob_that_is_not_there_to_take_over_is_sent(opened: Opener) -> None:
    data = os.urandom(1000)
    to = opened("mount/alone")
    assert not to.mount_blob(sha256_of(data), "mount/nowhere")
    assert to.push_blob(sha256_of(data), Held(data), mount_from="mount/nowhere")
    assert to.blob_size(sha256_of(data)) == len(data)


def test_removed_blobs_are_gone(opened: Opener) -> None:
    repository = opened("blobs/removed")
    repository.push_blob(BLOB, Held(DATA))
    assert repository.remove_blob(BLOB)
    assert not repository.remove_blob(BLOB)
    assert repository.blob_size(BLOB) is None
    with pytest.raises(NotFound, match=BLOB):
        repository.fetch_range(BLOB, 0, 1)
    with pytest.raises(NotFound, match=BLOB):
        list(repository.iter_blob(BLOB, 1))


def test_a_manifest_is_found_by_tag_and_digest(opened: Opener) -> None:
    repository = opened("manifests/found")
    manifest = push_image(repository, "v1")
    for name in ("v1", manifest.digest):
        assert repository.fetch_manifest(name) == manifest
        assert repository.find_manifest(name) == manifest.digest
    assert repository.find_manifest("v2") is None
    assert repository.find_manifest(sha256_of(b"")) is None
    with pytest.raises(ImageNotFound, match=r"manifests/found:v2"):
        repository.fetch_manifest("v2")
    with pytest.raises(ImageNotFound, match="nowhere"):
        opened("nowhere").fetch_manifest("latest")


def test_a_tag_moves_and_goes_with_its_manifest(opened: Opener) -> None:
    repository = opened("manifests/moved")
    first = push_image(repository, "v1")
    second = push_image(repository, "v1", annotations={"a": "b"})
    assert repository.fetch_manifest("v1") == second
    assert repository.fetch_manifest(first.digest) == first
    assert repository.remove_manifest(second.digest)
    assert not repository.remove_manifest(second.digest)
    assert repository.find_manifest("v1") is None


def test_an_index_is_told_from_a_manifest(opened: Opener) -> None:
    repository = opened("manifests/index")
    manifest = push_image(repository, "v1")
    entry = Descriptor(OCI_MANIFEST, manifest.digest, len(manifest.data)).as_json()
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry]}
    index = Manifest(json.dumps(document).encode(), OCI_INDEX)
    repository.push_manifest("all", index)
    assert repository.fetch_manifest("all").is_index
    assert not repository.fetch_manifest("v1").is_index


def test_a_manifest_that_names_what_is_not_there_is_refused(opened: Opener) -> None:
    repository = opened("manifests/lacking")
    with pytest.raises(RemoteProtocolError, match="MANIFEST_BLOB_UNKNOWN"):
        repository.push_manifest("v1", image_manifest(b"never pushed"))
    assert repository.find_manifest("v1") is None


def test_a_manifest_over_the_limit_is_refused(opened: Opener) -> None:
    repository = opened("manifests/large")
    with pytest.raises(BootfsError):
        push_image(repository, "v1", annotations={"a": "x" * MANIFEST_LIMIT})
    assert repository.find_manifest("v1") is None


def test_all_tags_are_listed(opened: Opener) -> None:
    repository = opened("tags/many")
    assert list(repository.iter_tags()) == []
    for number in range(7):
        push_image(repository, f"v{number}")
    assert sorted(repository.iter_tags(page=3)) == [f"v{number}" for number in range(7)]


def test_tags_come_in_pages(tmp_path: Path) -> None:
    """docker-registry 2.8 gives all at once, others as this."""
    require("nginx")
    pages = """location = /v2/x/tags/list {
        if ($arg_last = "v1") { add_header X-Page last; return 200 '{"tags": ["v2"]}'; }
        add_header Link '</v2/x/tags/list?n=2&last=v1>; rel="next"';
        return 200 '{"tags": ["v0", "v1"]}';
    }"""
    with (
        Nginx(tmp_path, extra=pages) as server,
        closing(open_alone(server.host_port)) as repository,
    ):
        assert list(repository.iter_tags()) == ["v0", "v1", "v2"]
        assert [request.path for request in server.requests()] == [
            "/v2/x/tags/list?n=1000",
            "/v2/x/tags/list?n=2&last=v1",
        ]


def test_referrers_by_the_tag_that_lists_them(opened: Opener) -> None:
    """docker-registry 2.8 has no API for them."""
    repository = opened("referrers")
    subject = push_image(repository, "v1")
    assert repository.fetch_referrers(subject.digest) == []
    found = []
    for kind in ("a/x", "a/y"):
        described = Descriptor(OCI_MANIFEST, subject.digest, len(subject.data)).as_json()
        artifact = push_image(repository, kind[2:], subject=described, artifactType=kind)
        found.append(Descriptor(OCI_MANIFEST, artifact.digest, len(artifact.data), kind))
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [one.as_json() for one in found],
    }
    index = Manifest(json.dumps(document).encode(), OCI_INDEX)
    repository.push_manifest(referrers_tag(subject.digest), index)
    assert repository.fetch_referrers(subject.digest) == found
    assert repository.fetch_referrers(subject.digest, "a/y") == found[1:]


def test_referrers_by_the_registrys_own_list(tmp_path: Path) -> None:
    """docker-registry 2.8 has none; others answer as this, and may leave the filter to us."""
    require("nginx")
    digest = sha256_of(b"subject")
    found = [Descriptor(OCI_MANIFEST, sha256_of(kind.encode()), 7, kind) for kind in ("a/x", "a/y")]
    first, second = (json.dumps({"manifests": [one.as_json()]}) for one in found)
    path = f"/v2/x/referrers/{digest}"
    pages = f"""location = {path} {{
        if ($arg_page = "2") {{ add_header X-Page last; return 200 '{second}'; }}
        add_header Link '<{path}?page=2>; rel="next"';
        return 200 '{first}';
    }}"""
    with (
        Nginx(tmp_path, extra=pages) as server,
        closing(open_alone(server.host_port)) as repository,
    ):
        assert repository.fetch_referrers(digest) == found
        assert repository.fetch_referrers(digest, "a/y") == found[1:]
        assert repository.fetch_referrers(sha256_of(b"another")) == []


def test_many_threads_at_once(opened: Opener) -> None:
    repository = opened("threads")
    repository.push_blob(BLOB, Held(DATA))
    blobs = {sha256_of(data): data for data in (os.urandom(50_000) for _ in range(16))}

    def work(digest: str) -> bool:
        repository.push_blob(digest, Held(blobs[digest]))
        whole = b"".join(repository.iter_blob(digest, len(blobs[digest])))
        return whole == blobs[digest] and repository.fetch_range(BLOB, 5, 9) == DATA[5:14]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, blobs))


def test_nobody_there() -> None:
    url = "docker://127.0.0.1:1/x"
    with (
        closing(open_repository(url, Accounts([]), 0.5)) as repository,
        pytest.raises((TimedOut, Unreachable), match=r"127\.0\.0\.1:1/x"),
    ):
        repository.check()


def test_what_is_no_registry(tmp_path: Path) -> None:
    require("nginx")
    with (
        Nginx(tmp_path) as server,
        closing(open_alone(server.host_port)) as repository,
    ):
        with pytest.raises(RemoteProtocolError, match="no registry"):
            repository.check()
        with pytest.raises(NotFound):
            repository.fetch_manifest("latest")
        (tmp_path / "v2/x/manifests").mkdir(parents=True)
        (tmp_path / "v2/x/manifests/latest").write_bytes(b"{}")
        with pytest.raises(FormatError, match="octet-stream"):
            repository.fetch_manifest("latest")
        (tmp_path / "v2/x/manifests/long").write_bytes(b" " * (MANIFEST_LIMIT + 1))
        with pytest.raises(FormatError, match="limit"):
            repository.fetch_manifest("long")


def test_a_registry_without_tls_where_tls_is_asked_for() -> None:
    require("registry")
    with (
        Registry() as server,
        closing(open_alone(server.host_port, "docker+https")) as repository,
        pytest.raises(NotReached, match=r"docker\+http://"),
    ):
        repository.check()


def test_read_only() -> None:
    require("registry")
    storage = "  maintenance: { readonly: { enabled: true } }"
    with (
        Registry(storage=storage) as server,
        closing(open_alone(server.host_port)) as repository,
    ):
        repository.check()
        with pytest.raises(AccessDenied, match="read-only"):
            repository.push_blob(BLOB, Held(DATA))
        with pytest.raises(AccessDenied, match="read-only"):
            repository.push_manifest("v1", image_manifest(b"{}"))
        with pytest.raises(AccessDenied, match="removing is switched off"):
            repository.remove_blob(BLOB)
