"""Containers whose data lies in a registry and nowhere else."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from converter.cli import main
from tests.support.converted import gateway
from tests.support.engine import BOOT_OPTIONS, docker
from tests.support.registries import (
    REPOSITORY,
    basic_registry,
    write_docker_config,
)
from tests.support.registrystores import Stored, blobs_of, collect_garbage, problems_in
from tests.support.require import require
from tests.support.servers import Registry
from tests.support.tokenserver import PASSWORD, USER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.engine import Engine

pytestmark = [
    pytest.mark.system,
    pytest.mark.requires("docker", "erofs", "fuse", "root", "registry"),
]

IMAGE = """\
FROM debian:bookworm-slim
RUN head -c 3000000 /dev/urandom >/{name} && sha256sum /{name} >/{name}.sum
CMD ["sh", "-c", "sha256sum -c /{name}.sum && dpkg -V base-files"]
"""
MODES = ("erofs", "fuse", "lease")


@pytest.fixture
def stored() -> Iterator[Stored]:
    with Registry(address="") as registry:
        yield Stored(registry, gateway())


@pytest.fixture
def build(engine: Engine, base_image: str, tmp_path: Path) -> Callable[[str], str]:
    """Give a function that builds an image of its own by a name."""

    def make(name: str) -> str:
        context = tmp_path / f"context-{name}"
        context.mkdir()
        return engine.build(IMAGE.format(name=name), context)

    return make


@pytest.mark.parametrize("mode", MODES)
def test_an_image_boots_from_the_registry_alone(
    engine: Engine, stored: Stored, build: Callable[[str], str], mode: str
) -> None:
    image = replace(stored.convert(engine, build("a")), mode=mode)
    done = image.run(engine)
    assert (done.returncode, done.stdout, done.stderr) == (0, "/a: OK\n", "")


@pytest.mark.parametrize("mode", MODES)
def test_credentials_by_file(
    engine: Engine,
    build: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: str,
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    with basic_registry(tmp_path, address="") as registry:
        stored = Stored(registry, gateway())
        write_docker_config(tmp_path / "docker", registry.host_port)
        image = replace(stored.convert(engine, build("a")), mode=mode)
        auth = tmp_path / "auth"
        auth.mkdir()
        mounted = ("-v", f"{auth}:/.bootfs/auth:ro", "-e", "BOOTFS_READ_LIMIT=5")
        done = image.run(engine, options=mounted)
        assert done.returncode != 0
        tried = "tried without credentials, since there is no /.bootfs/auth/config.json: mount"
        assert f"refuses to be read; {tried}" in done.stderr
        write_docker_config(auth, f"{stored.address}:{registry.port}")
        done = image.run(engine, options=mounted)
        assert (done.returncode, done.stdout, done.stderr) == (0, "/a: OK\n", "")
        shown = image.run(
            engine,
            *("sh", "-c", "cat /proc/mounts /proc/self/environ; ls /.bootfs/auth; set"),
            options=mounted,
        )
        told = shown.stdout + shown.stderr
        if mode == "lease":
            # There is no other root to go to: what is mounted is seen there.
            assert "config.json" in told
        else:
            assert "config.json" not in told and "/.bootfs/auth': No such file" in told
        assert USER not in told and PASSWORD not in told
        container = image.start(engine, "sleep", "infinity", options=mounted)
        inspected = subprocess.run(
            ["docker", "inspect", container.name], capture_output=True, text=True, check=True
        ).stdout
        assert PASSWORD not in inspected and USER not in inspected


@dataclass
class Pulled:
    """An image that was converted from a registry into one, and pulled from there."""

    stored: Stored
    reference: str
    source: str

    def boot(self, engine: Engine, mode: str, blob_store: str = "") -> None:
        """Run it with a cache of its own and compare what it finds."""
        options = (
            *(BOOT_OPTIONS if mode != "lease" else ()),
            *("-e", f"BOOTFS_MODE={mode}"),
            *(("-e", f"BLOB_STORE={blob_store}") if blob_store else ()),
        )
        done = engine.run(self.reference, options=options)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.endswith(": OK\n")


@pytest.fixture
def pull(engine: Engine, stored: Stored, build: Callable[[str], str]) -> Callable[[str], Pulled]:
    """Give a function that pushes an image, converts it in the registry, and pulls it."""

    def make(name: str) -> Pulled:
        built = build(name)
        host = stored.registry.host_port
        pushed = f"{host}/source/{name}:1"
        docker("tag", built, pushed)
        docker("push", pushed)
        docker("rmi", pushed)
        source, reference = f"docker://{pushed}", f"{host}/{REPOSITORY}:{name}"
        command = ["convert", source, f"docker://{reference}", "--store", "registry"]
        assert main([*command, "--level", "1", "--blob-store", stored.blob_store]) == 0
        engine.pull(reference)
        return Pulled(stored, reference, source)

    return make


def test_from_a_registry_into_one(
    engine: Engine, pull: Callable[[str], Pulled], stored: Stored
) -> None:
    image = pull("a")
    assert main(["check", image.source, f"docker://{image.reference}", "--store", stored.url]) == 0
    for mode in MODES:
        image.boot(engine, mode)


def test_the_one_boots_when_the_other_is_gone(
    engine: Engine, pull: Callable[[str], Pulled], stored: Stored
) -> None:
    image, other = pull("a"), pull("b")
    for options in ((), ("-m",)):
        before = len(blobs_of(stored.registry))
        assert main(["forget", stored.url, f"docker://{other.reference}"]) == 0
        collect_garbage(stored.registry, *options)
        assert len(blobs_of(stored.registry)) < before
        assert problems_in(stored.url) == []
        image.boot(engine, "erofs")
        command = ["convert", other.source, f"docker://{other.reference}", "--store", "registry"]
        assert main([*command, "--level", "1"]) == 0


def test_a_copy_boots_without_what_it_was_copied_from(
    engine: Engine, pull: Callable[[str], Pulled], stored: Stored
) -> None:
    require("skopeo")
    image = pull("a")
    with Registry(address="") as registry:
        second = Stored(registry, stored.address)
        command = ["skopeo", "copy", "-q", "--all", "--src-tls-verify=false"]
        there = f"{registry.host_port}/{REPOSITORY}:a"
        subprocess.run(
            [
                *command,
                "--dest-tls-verify=false",
                f"docker://{image.reference}",
                f"docker://{there}",
            ],
            check=True,
        )
        stored.registry.stop()
        engine.pull(there)
        copied = replace(image, reference=there)
        for mode in ("erofs", "lease"):
            copied.boot(engine, mode, second.blob_store)
