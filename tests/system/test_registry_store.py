"""Containers whose data lies in a registry and nowhere else."""

from __future__ import annotations

import subprocess
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from converter.convert import convert
from converter.progress import Silent
from converter.reference import parse_reference
from store.write.backends import open_backend
from tests.support.converted import Converted, gateway
from tests.support.registries import (
    REPOSITORY,
    basic_registry,
    write_docker_config,
)
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


@dataclass
class Stored:
    """An image whose store is a registry that containers reach."""

    registry: Registry
    address: str

    @property
    def url(self) -> str:
        """As the converter names the store."""
        return f"docker://{self.registry.host_port}/{REPOSITORY}"

    @property
    def blob_store(self) -> str:
        """As a container does."""
        return f"docker+http://{self.address}:{self.registry.port}/{REPOSITORY}"

    def convert(self, engine: Engine, source: str) -> Converted:
        """Convert an image of the engine into one of it, its data into the registry."""
        boot = engine.image_name()
        with closing(open_backend(self.url)) as backend:
            convert(parse_reference(source), parse_reference(boot), backend, 1, "", Silent())
        return Converted(source, boot, self.blob_store)


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
        assert "refuses to be read; tried without credentials, since /.bootfs/auth" in done.stderr
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
