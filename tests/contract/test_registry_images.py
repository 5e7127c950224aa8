"""bootfs with images of registries: as a source and a destination, whole and damaged."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from converter.images.transports import open_image
from converter.layers import merge_layers
from converter.reference import parse_reference
from converter.spool import Spool
from store.errors import DigestMismatch, FormatError, NotFound, SizeMismatch
from store.write.registry import open_repository
from store.write.registry.manifest import MANIFEST_LIMIT, OCI_INDEX, OCI_MANIFEST, Manifest
from store.write.registry.uploads import Held
from tests.support.cutting import Cutter
from tests.support.layers import config_of, digest, file, oci_files, tar_of
from tests.support.require import require
from tests.support.servers import Nginx, Registry
from tests.support.tokenserver import TokenServer, docker_config, htpasswd_auth

Run = Callable[..., tuple[int, str, str]]

pytestmark = pytest.mark.usefixtures("own_cache")

LAYERS = (tar_of(file("a", os.urandom(700_000))), tar_of(file("b", b"2")), tar_of(file("a", b"1")))


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with Spool(tmp_path) as opened:
        yield opened


def push(url: str, *layers: bytes, tag: str = "v1", **options: Any) -> str:
    """Push an image as `oci_files` makes it, and return its reference."""
    files = oci_files(*layers, **options)
    manifest = json.loads(files.pop("index.json"))["manifests"][0]["digest"]
    blobs = {digest(data): data for name, data in files.items() if name.startswith("blobs/")}
    with closing(open_repository(url)) as repository:
        for wanted, data in blobs.items():
            if wanted != manifest:
                repository.push_blob(wanted, Held(data))
        repository.push_manifest(tag, Manifest(blobs[manifest], OCI_MANIFEST))
    return f"{url}:{tag}"


@pytest.fixture
def url(registry: Registry) -> str:
    """Give a repository."""
    return f"docker://{registry.host_port}/x"


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_a_source(url: str, spool: Spool, compression: str) -> None:
    source = push(url, *LAYERS, LAYERS[1], compression=compression)
    view = open_image(parse_reference(source), spool)
    assert view.name == source
    assert [layer.diff_id for layer in view.layers] == [digest(x) for x in (*LAYERS, LAYERS[1])]
    assert set(merge_layers(view.layers, spool).children) == {b"a", b"b"}
    by_digest = f"{url}@{view.manifest_digest}"
    assert open_image(parse_reference(by_digest), spool).config == view.config


def push_index(url: str, *architectures: str) -> dict[str, str]:
    """Push an index of images, each with a file of its architecture's name; return digests."""
    entries = []
    with closing(open_repository(url)) as repository:
        for architecture in architectures:
            layer = tar_of(file(architecture))
            config = config_of([layer]) | {"architecture": architecture}
            push(url, layer, tag=architecture, config=config)
            found = repository.fetch_manifest(architecture)
            entries.append(
                {
                    "mediaType": found.media_type,
                    "digest": found.digest,
                    "size": len(found.data),
                    "platform": {"os": "linux", "architecture": architecture},
                }
            )
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
        index = Manifest(json.dumps(document).encode(), OCI_INDEX)
        repository.push_manifest("v1", index)
    return {entry["platform"]["architecture"]: entry["digest"] for entry in entries}


def test_of_an_index_the_platform_that_is_wanted(url: str, tmp_path: Path, run: Run) -> None:
    digests = push_index(url, "s390x", "amd64")
    convert = ("convert", f"{url}:v1", f"{url}:boot", "--store", tmp_path / "store")
    assert run(*convert)[0] == 0
    facts = json.loads(run("inspect", f"{url}:boot", "--json")[1])
    assert facts["source_digest"] == digests["amd64"]
    assert run(*convert, "--platform", "linux/amd64")[0] == 0
    assert run("check", f"{url}:v1", f"{url}:boot", "--store", tmp_path / "store")[0] == 0
    status, _, err = run(*convert, "--platform", "linux/s390x")
    assert (status, "s390x" in err) == (15, True)
    status, _, err = run(*convert, "--platform", "linux/mips0")
    assert status == 10
    assert "the index has linux/s390x, linux/amd64" in err
    status, _, err = run(*convert, "--platform", "all")
    assert status == 2
    assert "no runtime layer for linux/s390x" in err
    status, _, err = run(*convert, "--platform", "amd64")
    assert status == 2


def test_layers_of_which_there_are_records_are_not_fetched(
    url: str, tmp_path: Path, run: Run, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOOTFS_RECORDS", str(tmp_path / "records"))
    old, new = tar_of(file("a", os.urandom(700_000))), tar_of(file("c", os.urandom(9)))

    def fetched(layer: bytes) -> int:
        return registry.output().count(f"GET /v2/x/blobs/{digest(layer)} ")

    convert = (f"{url}/boot:v1", "--store", tmp_path / "store", "--json")
    assert run("convert", push(url, old, compression="none"), *convert)[0] == 0
    assert fetched(old) == 1
    source = push(url, old, new, tag="v2", compression="none")
    status, out, err = run("convert", source, *convert)
    assert (status, err) == (0, "")
    assert json.loads(out)["unread_layers"] == 1
    assert (fetched(old), fetched(new)) == (1, 1)
    assert run("check", source, f"{url}/boot:v1", "--store", tmp_path / "store")[0] == 0
    # A comparison trusts no record.
    assert (fetched(old), fetched(new)) == (2, 2)


def test_all_of_an_index_that_has_one(url: str, tmp_path: Path, run: Run) -> None:
    push_index(url, "amd64")
    convert = ("convert", f"{url}:v1", f"{url}:boot", "--store", tmp_path / "store")
    assert run(*convert, "--platform", "all")[0] == 0


def test_a_conversion_from_registry_to_registry(
    url: str, tmp_path: Path, run: Run, registry: Registry
) -> None:
    source, boot, store = push(url, *LAYERS), f"{url}/boot:v1", tmp_path / "store"
    status, out, err = run("convert", source, boot, "--store", store)
    assert (status, err) == (0, "")
    assert out.startswith(f"{boot}: ")
    status, out, _ = run("check", source, boot, "--store", store)
    assert (status, out) == (0, "3 entries compared, 0 differences\n")
    facts = json.loads(run("inspect", boot, "--json")[1])
    assert (facts["reference"], facts["source"]) == (boot, source)
    status, _, err = run("convert", boot, f"{url}/again:v1", "--store", store)
    assert (status, "is a boot image already" in err) == (2, True)
    # The same again gives the same: nothing is sent but the manifest.
    sent = registry.output().count('"PATCH /')
    assert run("convert", source, boot, "--store", store)[0] == 0
    assert registry.output().count('"PATCH /') == sent


def test_the_runtime_layer_is_sent_to_a_registry_once(
    url: str, tmp_path: Path, run: Run, registry: Registry
) -> None:
    source = push(url, *LAYERS)
    before = registry.output().count('"PATCH /')
    for name in ("first", "second"):
        boot = f"{url}/{name}:v1"
        assert run("convert", source, boot, "--store", tmp_path / "store")[0] == 0
    # Twice the image's own layer and its config, and once the runtime layer.
    assert registry.output().count('"PATCH /') == before + 5
    assert run("check", source, f"{url}/second:v1", "--store", tmp_path / "store")[0] == 0


def test_other_tools_read_what_was_pushed(url: str, tmp_path: Path, run: Run) -> None:
    require("skopeo")
    source, boot = push(url, *LAYERS), f"{url}/boot:v1"
    assert run("convert", source, boot, "--store", tmp_path / "store")[0] == 0
    subprocess.run(
        ["skopeo", "copy", "-q", "--src-tls-verify=false", boot, f"oci:{tmp_path}/copy:v1"],
        check=True,
    )
    where = f"oci:{tmp_path}/copy:v1"
    assert run("check", source, where, "--store", tmp_path / "store")[0] == 0


def test_nothing_there(url: str, tmp_path: Path, run: Run) -> None:
    push(url, *LAYERS)
    for missing in (f"{url}:v2", f"{url}/none:v1", f"{url}@sha256:{'5' * 64}"):
        status, _, err = run("convert", missing, f"oci:{tmp_path}/b", "--store", tmp_path / "s")
        assert status == 10
        assert missing in err
    assert not (tmp_path / "s").exists()


def blob_file(root: Path, wanted: str) -> Path:
    hexadecimal = wanted.removeprefix("sha256:")
    return root / f"docker/registry/v2/blobs/sha256/{hexadecimal[:2]}/{hexadecimal}/data"


def test_every_byte_from_a_registry_is_verified(tmp_path: Path) -> None:
    require("registry")
    root = tmp_path / "blobs"
    with Registry(root) as server:
        url = f"docker://{server.host_port}/x"
        source = parse_reference(push(url, *LAYERS))
        with closing(open_repository(url)) as repository:
            manifest = repository.fetch_manifest("v1")
        document = json.loads(manifest.data)
        blobs = [document["config"]["digest"], *(layer["digest"] for layer in document["layers"])]
        # Manifests docker-registry verifies itself, and answers 500.
        for wanted in blobs:
            path = blob_file(root, wanted)
            whole = path.read_bytes()
            damaged = bytearray(whole)
            damaged[len(whole) // 2] ^= 1
            for data, errors in (
                (damaged, (DigestMismatch, FormatError)),
                (whole[:-1], (SizeMismatch, DigestMismatch, FormatError)),
                (None, (NotFound, FormatError)),
            ):
                path.unlink()
                if data is not None:
                    path.write_bytes(data)
                with Spool(tmp_path) as spool, pytest.raises(errors):
                    merge_layers(open_image(source, spool).layers, spool)
                path.write_bytes(whole)
        with Spool(tmp_path) as spool:
            assert merge_layers(open_image(source, spool).layers, spool).children


@pytest.mark.parametrize("cut", [1_000, 100_000, 600_000])
def test_a_connection_that_is_cut(
    tmp_path: Path, run: Run, registry: Registry, url: str, cut: int
) -> None:
    push(url, *LAYERS)
    with Cutter(("127.0.0.1", registry.port)) as cutter:
        relayed = f"docker://{cutter.host_port}/x"
        convert = ("convert", f"{relayed}:v1", f"{relayed}:boot", "--store", tmp_path / "store")
        cutter.cut_received(cut)
        cutter.cut_sent(cut + 5_000)
        assert run(*convert)[0] == 0
        assert cutter.cuts == 2
    assert run("check", f"{url}:v1", f"{url}:boot", "--store", tmp_path / "store")[0] == 0


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_an_interrupt_does_not_wait_for_a_slow_registry(
    tmp_path: Path, registry: Registry, url: str, compression: str
) -> None:
    require("nginx")
    push(url, *LAYERS, compression=compression)
    slow = f"""limit_rate 20k; location /v2/ {{
        proxy_pass http://{registry.host_port}; proxy_set_header Host $http_host;
    }}"""
    with Nginx(tmp_path, extra=slow) as server:
        source = f"docker://{server.host_port}/x:v1"
        command = ["convert", source, f"oci:{tmp_path}/b", "--store", str(tmp_path / "s")]
        converter = subprocess.Popen(
            [sys.executable, "-m", "converter.cli", *command, "--progress", "json"],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        with converter:
            assert converter.stderr is not None
            while '"read"' not in converter.stderr.readline():
                assert converter.poll() is None
            converter.send_signal(signal.SIGINT)
            # The first layer alone takes half a minute.
            assert converter.wait(10) == 130
            assert "interrupted" in converter.stderr.read()
    assert not (tmp_path / "s").exists()


def test_the_users_account_is_used(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("registry")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.delenv("REGISTRY_AUTH_FILE", raising=False)
    with TokenServer(tmp_path) as tokens:
        for auth in (htpasswd_auth(tmp_path), tokens.auth):
            with Registry(extra=auth) as server:
                docker_config(tmp_path / "config.json", server.host_port)
                url = f"docker://{server.host_port}/x"
                convert = ("convert", push(url, *LAYERS), f"{url}/boot", "--store", tmp_path / "s")
                assert run(*convert)[0] == 0
                docker_config(tmp_path / "config.json", server.host_port, "wrong-password")
                status, _, err = run(*convert)
                assert status == 13
                assert str(tmp_path / "config.json") in err
                assert "wrong-password" not in err
                shutil.rmtree(tmp_path / "s")


def test_a_destination_that_is_read_only_is_known_before_the_work(
    tmp_path: Path, run: Run, url: str
) -> None:
    source = push(url, *LAYERS)
    storage = "  maintenance: { readonly: { enabled: true } }"
    with Registry(storage=storage) as server:
        boot = f"docker://{server.host_port}/x"
        status, _, err = run("convert", source, boot, "--store", tmp_path / "store")
    assert (status, "read-only" in err) == (13, True)
    assert not (tmp_path / "store").exists()


def test_an_index_over_the_limit(tmp_path: Path, run: Run) -> None:
    require("nginx")
    path = tmp_path / "www/v2/x/manifests/v1"
    path.parent.mkdir(parents=True)
    path.write_bytes(b'{"manifests": [' + b" " * MANIFEST_LIMIT + b"]}")
    types = f"location /v2/ {{ default_type {OCI_INDEX}; }}"
    with Nginx(tmp_path / "www", extra=types) as server:
        source = f"docker://{server.host_port}/x:v1"
        status, _, err = run("convert", source, f"oci:{tmp_path}/b", "--store", tmp_path / "s")
    assert status == 12
    assert "limit" in err
