"""Volumes where bootfs has its own files: refused in one line, or of no consequence."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.engine import docker

if TYPE_CHECKING:
    import subprocess

    from tests.support.converted import Conversions, Converted
    from tests.support.engine import Engine

pytestmark = pytest.mark.system

OURS = ("/.bootfs", "/.bootfs/runtime", "/.bootfs/runtime/lib", "/.bootfs/image", "/.bootfs/mnt")
MODES = ("erofs", "lease")


@pytest.fixture(params=MODES)
def workshop(converted_workshop: Converted, request: pytest.FixtureRequest) -> Converted:
    """Give an image with all kinds of programs, in a mode that mounts and in one that does not."""
    return dataclasses.replace(converted_workshop, mode=request.param)


@functools.cache
def engine_root() -> str:
    """Give the directory of the engine, asked for once."""
    return docker("info", "-f", "{{.DockerRootDir}}").stdout.strip()


def host_mounts() -> list[str]:
    """Give what is mounted on this machine, but for the engine's own mounts of containers."""
    root = engine_root()
    lines = (line.split(" ") for line in Path("/proc/self/mountinfo").read_text().splitlines())
    engines = (f"{root}/overlay2/", f"{root}/containers/", "/run/docker/", "/var/run/docker/")
    return sorted(" ".join(words[2:]) for words in lines if not words[4].startswith(engines))


def refused(done: subprocess.CompletedProcess[str], code: int = 125) -> str:
    """Give the one line by which bootfs has refused."""
    assert (done.returncode, done.stdout) == (code, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("bootfs: ")
    return line


@pytest.mark.parametrize("place", OURS)
def test_a_new_volume_over_our_files(engine: Engine, workshop: Converted, place: str) -> None:
    before = host_mounts()
    options = ("-v", f"{engine.volume()}:{place}")
    line = refused(workshop.run(engine, "true", options=options))
    assert line == (
        f"bootfs: something is mounted over {place}, where bootfs has its own files: "
        "mount it elsewhere"
    )
    assert host_mounts() == before


def test_a_volume_with_another_image_s_files(
    engine: Engine, conversions: Conversions, workshop: Converted
) -> None:
    """Which the engine would have copied into it: this image would have booted as that one."""
    source = conversions.engine.build("FROM debian:bookworm-slim\nRUN touch /other\n")
    other = dataclasses.replace(conversions.convert(source), mode=workshop.mode)
    options = ("-v", f"{engine.volume()}:/.bootfs/image")
    for image in (other, workshop):
        assert "over /.bootfs/image" in refused(image.run(engine, "true", options=options))


@pytest.mark.parametrize("place", ["/.bootfs", "/.bootfs/runtime", "/.bootfs/image"])
def test_an_empty_directory_over_our_files(
    engine: Engine, workshop: Converted, tmp_path: Path, place: str
) -> None:
    before = host_mounts()
    done = workshop.run(engine, "true", options=("-v", f"{tmp_path}:{place}"))
    if place == "/.bootfs":
        # Nobody of ours is there to say anything: the engine finds no entrypoint.
        assert (done.returncode, done.stdout) == (127, "")
        assert "/.bootfs/init" in done.stderr and "no such file" in done.stderr
    elif place == "/.bootfs/runtime":
        line = refused(done)
        assert line == "bootfs: cannot execute /.bootfs/runtime/ld.so: ENOENT 2"
    else:
        assert "over /.bootfs/image" in refused(done)
    assert host_mounts() == before
    # Mount points for the volumes of the boot image are the engine's.
    assert {path.name for path in tmp_path.iterdir()} <= {"cache", "rw"}


@pytest.mark.parametrize("place", ["/.bootfs/cache", "/.bootfs/rw", "/.bootfs/another"])
def test_volumes_that_are_no_harm(engine: Engine, workshop: Converted, place: str) -> None:
    before = host_mounts()
    options = ("-v", f"{engine.volume()}:{place}")
    for _ in range(2):
        done = workshop.run(engine, "sha256sum", "-c", "/big.sum", options=options)
        assert (done.returncode, done.stdout, done.stderr) == (0, "/big: OK\n", "")
    assert host_mounts() == before


def test_a_volume_over_the_root_is_refused_by_the_engine(
    engine: Engine, workshop: Converted
) -> None:
    before = host_mounts()
    options = ("-v", f"{engine.volume()}:/")
    plain = workshop.run_source(engine, "true", options=options)
    booted = workshop.run(engine, "true", options=options)
    assert "destination can't be '/'" in booted.stderr
    assert (booted.returncode, booted.stdout) == (plain.returncode, plain.stdout) == (125, "")
    assert booted.stderr == plain.stderr
    assert host_mounts() == before
