"""Stores as commands read them: with this user's accounts, alone and as mirrors, as containers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from converter.cli import main
from store.errors import AccessDenied, RemoteError
from store.format.names import pack_name
from store.write.hostsource import open_host_source
from tests.support.certificates import Authority
from tests.support.layers import docker_archive, file, tar_of
from tests.support.registries import (
    REPOSITORY,
    TokenFront,
    push_blob,
)
from tests.support.require import require
from tests.support.s3server import KEY_ID, SECRET, S3Server
from tests.support.scripted import ScriptedServer, response
from tests.support.servers import Nginx, Registry
from tests.support.tokenserver import USER, TokenServer, docker_config, htpasswd_auth

Run = Callable[..., tuple[int, str, str]]
DATA = os.urandom(1000)
LIMIT_S = 5.0


@pytest.fixture(autouse=True)
def home(tmp_path: Path, kept_runtime: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give this user's docker directory, and no account elsewhere."""
    for name in [n for n in os.environ if n.lower().endswith("_proxy") or n.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "BOOTFS_AUTH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    (tmp_path / "docker").mkdir()
    yield tmp_path / "docker"


def pack_of(digest: str) -> str:
    return pack_name(bytes.fromhex(digest.removeprefix("sha256:")))


def with_mirror(url: str, tmp_path: Path) -> str:
    """Return mirrors of which the first has nothing."""
    (tmp_path / "nothing").mkdir(exist_ok=True)
    return f"{tmp_path}/nothing|{url}"


def check_reads(urls: str, name: str) -> None:
    with closing(open_host_source(urls, LIMIT_S)) as source:
        assert source.fetch(name, 10, 100) == DATA[10:110]


@pytest.mark.parametrize("kind", ["account", "helper", "identity", "registry token"])
def test_a_registry_is_read_with_docker_s_account(
    home: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("registry")
    refresh = "a-refresh-token" if kind == "identity" else ""
    with TokenServer(tmp_path, refresh_token=refresh) as tokens, Registry() as filled:
        name = pack_of(push_blob(filled, DATA))
        with Registry(extra=tokens.auth, root=filled.blobs) as server:
            host = server.host_port
            config = docker_config(home / "config.json", host)
            if kind == "helper":
                secret = json.dumps({"Username": USER, "Secret": "a-password-of-tests"})
                program = tmp_path / "bin" / "docker-credential-ours"
                program.parent.mkdir()
                program.write_text(f"#!/bin/sh\necho '{secret}'\n")
                program.chmod(0o755)
                monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
                config.write_text(json.dumps({"credHelpers": {host: "ours"}}))
            elif kind == "identity":
                entry = {"auth": "dXNlcjo=", "identitytoken": refresh}
                config.write_text(json.dumps({"auths": {host: entry}}))
            elif kind == "registry token":
                token = tokens.token(USER, [f"repository:{REPOSITORY}:pull"])
                config.write_text(json.dumps({"auths": {host: {"registrytoken": token}}}))
            url = f"docker://{host}/{REPOSITORY}"
            check_reads(url, name)
            check_reads(with_mirror(url, tmp_path), name)
            asked = {granted.method for granted in tokens.granted}
            expected = {"identity": {"POST"}, "registry token": set()}
            assert asked == expected.get(kind, {"GET"})
            # The rights of a container: to read.
            assert all(g.scopes == [f"repository:{REPOSITORY}:pull"] for g in tokens.granted)
            config.write_text("{}")
            for urls in (url, with_mirror(url, tmp_path)):
                with (
                    closing(open_host_source(urls, LIMIT_S)) as source,
                    pytest.raises((AccessDenied, RemoteError), match=f"docker login {host}"),
                ):
                    source.fetch(name, 0, 10)


def test_s3_is_read_with_aws_s_credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require("rclone")
    with S3Server(tmp_path / "s3") as server:
        (server.bucket / "name").write_bytes(DATA)
        url = server.store_url()
        for urls in (url, with_mirror(url, tmp_path)):
            with (
                closing(open_host_source(urls, LIMIT_S)) as source,
                pytest.raises((AccessDenied, RemoteError), match=r"neither the environment"),
            ):
                source.fetch("name", 0, 10)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        check_reads(url, "name")
        check_reads(with_mirror(url, tmp_path), "name")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        with closing(open_host_source(url, LIMIT_S)) as source:
            with pytest.raises(AccessDenied, match=r"those of AWS's env \[default\]") as caught:
                source.fetch("name", 0, 10)
            assert "wrong" not in str(caught.value)
        with pytest.raises(AccessDenied, match="other"):
            open_host_source(f"{url}&profile=other", LIMIT_S)


def test_authorities_and_proxies_of_docker_and_of_the_environment(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path / "authority")
    good = response("206 Partial", DATA[:10], content_range=f"bytes 0-9/{len(DATA)}")
    name = pack_name(bytes(32))
    monkeypatch.setattr("store.write.hostaccess.CERTIFICATES", tmp_path / "certs.d")
    with ScriptedServer(("request", good), context=authority.issue("IP:127.0.0.1")) as server:
        url = f"docker+https://127.0.0.1:{server.port}/{REPOSITORY}"
        with closing(open_host_source(url, LIMIT_S)) as source, pytest.raises(RemoteError):
            source.fetch(name, 0, 10)
    with ScriptedServer(("request", good), context=authority.issue("IP:127.0.0.1")) as server:
        url = f"docker+https://127.0.0.1:{server.port}/{REPOSITORY}"
        place = tmp_path / f"certs.d/127.0.0.1:{server.port}"
        place.mkdir(parents=True)
        (place / "ca.crt").write_text(authority.certificate.read_text())
        with closing(open_host_source(url, LIMIT_S)) as source:
            assert source.fetch(name, 0, 10) == DATA[:10]
        (place / "bad.crt").write_bytes(b"\xff")
        with pytest.raises(AccessDenied, match=r"bad\.crt: an authority that cannot be read"):
            open_host_source(url, LIMIT_S)


def test_fetchable_asks_as_a_container_would(
    run: Run, home: Path, tmp_path: Path, serve: Callable[..., Nginx], registry: Registry
) -> None:
    """Without --auth too: no list, no manifest but that of profiles, as a container asks for it."""
    (tmp_path / "a.tar").write_bytes(docker_archive(tar_of(file("a", os.urandom(300_000)))))
    store = f"docker://{registry.host_port}/{REPOSITORY}"
    source, boot = f"docker-archive:{tmp_path}/a.tar", f"oci:{tmp_path}/boot"
    assert main(["convert", source, boot, "--store", store]) == 0
    front = TokenFront(registry, tmp_path, serve)
    docker_config(home / "config.json", front.server.host_port)
    status, out, err = run("check", "--fetchable", boot, "--store", front.url)
    assert (status, err) == (0, "") and out.endswith("all can be fetched\n")
    paths = {request.path.partition("?")[0] for request in front.server.requests()}
    asked = {path for path in paths if path != "/token"}
    profiles = {path for path in asked if "/manifests/bootfs-profiles-" in path}
    assert len(profiles) == 1
    asked -= profiles
    assert asked and all(path.startswith(f"/v2/{REPOSITORY}/blobs/sha256:") for path in asked)
    (home / "config.json").unlink()
    status, out, err = run("check", "--fetchable", boot, "--store", front.url)
    assert (status, err) == (13, "") and f"docker login {front.server.host_port}" in out


def test_fetchable_takes_basic_accounts_of_mirrors(
    run: Run, home: Path, tmp_path: Path, registry: Registry
) -> None:
    (tmp_path / "a.tar").write_bytes(docker_archive(tar_of(file("a", os.urandom(300_000)))))
    store = f"docker://{registry.host_port}/{REPOSITORY}"
    source, boot = f"docker-archive:{tmp_path}/a.tar", f"oci:{tmp_path}/boot"
    assert main(["convert", source, boot, "--store", store]) == 0
    with Registry(extra=htpasswd_auth(tmp_path), root=registry.blobs) as closed:
        docker_config(home / "config.json", closed.host_port)
        other = f"docker://{closed.host_port}/{REPOSITORY}"
        status, out, err = run("check", "--fetchable", boot, "--store", f"{store}|{other}")
        assert (status, err) == (0, "") and out.count("all can be fetched") == 2
        # A mirror's account is docker's for every command.
        archive = f"docker-archive:{tmp_path}/b.tar"
        assert run("export", boot, archive, "--store", f"{tmp_path}/none|{other}")[0] == 0
