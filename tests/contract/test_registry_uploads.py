"""Connections cut while a blob is on its way, at any place: resumed or begun again, never half."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from store.errors import StorageFull
from store.write.registry import open_repository
from store.write.registry.accounts import Accounts
from store.write.registry.client import Repository
from store.write.registry.manifest import sha256_of
from store.write.registry.uploads import Held
from tests.support.cutting import Cutter
from tests.support.require import require
from tests.support.servers import Nginx, Registry
from tests.support.uploadserver import UploadServer

LIMIT_S = 10.0
SIZE = 3_000_000
HEADS = 4_000
"""More than the heads of all requests of an upload take."""


@pytest.fixture(scope="module")
def registry() -> Iterator[Registry]:
    require("registry")
    with Registry() as server:
        yield server


def opened(host_port: str) -> Repository:
    return open_repository(f"docker://{host_port}/x", Accounts([]), LIMIT_S)


@pytest.mark.parametrize(
    "cut", [0, 1, 200, 400, 600, 1_000, 1_500, 100_000, 1_500_000, SIZE, SIZE + 1_300]
)
@pytest.mark.parametrize("chunk", [1 << 20, 64 << 20])
def test_cut_while_sending(registry: Registry, cut: int, chunk: int) -> None:
    data = os.urandom(SIZE)
    digest = sha256_of(data)
    with Cutter(("127.0.0.1", registry.port)) as cutter:
        with closing(opened(cutter.host_port)) as repository:
            cutter.cut_sent(cut)
            assert repository.push_blob(digest, Held(data), chunk=chunk)
            assert b"".join(repository.iter_blob(digest, SIZE)) == data
        assert cutter.cuts == 1


@pytest.mark.parametrize("answers", range(6))
def test_cut_before_an_answer(registry: Registry, answers: int) -> None:
    """The registry has done what it was asked for, and nobody was told."""
    data = os.urandom(SIZE)
    digest = sha256_of(data)
    with Cutter(("127.0.0.1", registry.port)) as cutter:
        with closing(opened(cutter.host_port)) as repository:
            # Answers are 300 to 800 bytes long here.
            cutter.cut_received(1 + 450 * answers)
            repository.push_blob(digest, Held(data), chunk=1 << 20)
            assert b"".join(repository.iter_blob(digest, SIZE)) == data
        assert cutter.cuts == 1


@pytest.mark.parametrize("cut", [HEADS, 100_000, 1_500_000, 2_900_000])
def test_goes_on_where_it_was_cut(cut: int) -> None:
    data = os.urandom(SIZE)
    digest = sha256_of(data)
    with UploadServer() as server, Cutter(("127.0.0.1", server.port)) as cutter:
        with closing(opened(cutter.host_port)) as repository:
            cutter.cut_sent(cut)
            assert repository.push_blob(digest, Held(data))
        assert cutter.cuts == 1
        assert server.blobs == {digest: data}
        assert server.received == SIZE


@pytest.mark.parametrize("cut", [200, 1_000, 100_000, 2_900_000])
def test_fetching_goes_on_where_it_was_cut(registry: Registry, cut: int) -> None:
    data = os.urandom(SIZE)
    digest = sha256_of(data)
    with closing(opened(registry.host_port)) as repository:
        repository.push_blob(digest, Held(data))
    with Cutter(("127.0.0.1", registry.port)) as cutter:
        with closing(opened(cutter.host_port)) as repository:
            cutter.cut_received(cut)
            assert b"".join(repository.iter_blob(digest, SIZE)) == data
            cutter.cut_received(cut)
            assert repository.fetch_range(digest, 10, SIZE - 20) == data[10:-10]
        assert cutter.cuts == 2


def test_a_proxy_that_takes_no_large_bodies(tmp_path: Path, registry: Registry) -> None:
    require("nginx")
    extra = f"""location /v2/ {{
        proxy_pass http://{registry.host_port}; proxy_set_header Host $http_host;
        client_max_body_size 1m;
    }}"""
    data = os.urandom(SIZE)
    with Nginx(tmp_path, extra=extra) as server, closing(opened(server.host_port)) as repository:
        with pytest.raises(StorageFull, match="client_max_body_size"):
            repository.push_blob(sha256_of(data), Held(data))
        assert repository.push_blob(sha256_of(data), Held(data), chunk=1 << 20)


def test_a_registry_that_is_busy_is_asked_again(tmp_path: Path, registry: Registry) -> None:
    require("nginx")
    limits = "limit_req_zone $server_port zone=tests:1m rate=20r/s;"
    extra = f"""limit_req zone=tests; limit_req_status 429;
    location /v2/ {{
        proxy_pass http://{registry.host_port}; proxy_set_header Host $http_host;
        client_max_body_size 0;
    }}"""
    data = os.urandom(SIZE)
    with (
        Nginx(tmp_path, extra=extra, http=limits) as server,
        closing(opened(server.host_port)) as repository,
    ):
        assert repository.push_blob(sha256_of(data), Held(data), chunk=1 << 20)
        assert 429 in [request.status for request in server.requests()]
        assert repository.blob_size(sha256_of(data)) == SIZE


def test_a_quota(tmp_path: Path) -> None:
    require("nginx")
    extra = """location /v2/ {
        default_type application/json;
        return 403 '{"errors": [{"code": "DENIED", "message": "exceeds the quota of 1 GiB"}]}';
    }"""
    with (
        Nginx(tmp_path, extra=extra) as server,
        closing(opened(server.host_port)) as repository,
        pytest.raises(StorageFull, match="exceeds the quota of 1 GiB"),
    ):
        repository.push_manifest("v1", repository.fetch_manifest("v1"))
