"""What commands refuse, how they end, and that a store which cannot be read is one error."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from tests.support.layers import docker_archive, file, tar_of
from tests.support.registries import REPOSITORY, basic_registry, write_docker_config
from tests.support.servers import Nginx

Run = Callable[..., tuple[int, str, str]]
Serve = Callable[..., Nginx]


@pytest.fixture
def archive(tmp_path: Path) -> str:
    members = [file(f"part{n}", Random(n).randbytes(200_000)) for n in range(5)]
    (tmp_path / "image.tar").write_bytes(docker_archive(tar_of(*members)))
    return f"docker-archive:{tmp_path}/image.tar"


@pytest.fixture
def boot(run: Run, archive: str, tmp_path: Path) -> str:
    """Give a boot image, whose store is ``store`` beside it."""
    boot = f"oci:{tmp_path}/boot"
    assert run("convert", archive, boot, "--store", tmp_path / "store")[0] == 0
    return boot


def contents(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def test_a_boot_image_does_not_take_the_place_of_its_source(
    run: Run, boot: str, tmp_path: Path
) -> None:
    layout = tmp_path / "layout"
    assert run("export", boot, f"oci:{layout}:v1", "--store", tmp_path / "store")[0] == 0
    before = contents(layout)
    for source in (f"oci:{layout}:v1", f"oci:{tmp_path}/x/../layout:v1"):
        given = ("convert", source, f"oci:{layout}:v1", "--store", tmp_path / "store")
        status, out, err = run(*given)
        assert (status, out) == (2, "") and "is SOURCE, which would be lost" in err
    for name in ("debian", "docker://h.example/a:1"):
        assert run("convert", name, name, "--store", tmp_path / "store")[0] == 2
    same = ("docker://h.example/a:1", "docker+http://h.example/a:1")
    assert run("convert", *same, "--store", tmp_path / "store")[0] == 2
    assert contents(layout) == before


@pytest.mark.parametrize(
    ("extra", "place", "status", "words"),
    [
        ("location ~ /packs/ { deny all; }", "", 13, "403"),
        ("", "mistyped", 10, "404"),
        ("location ~ /packs/ { return 400; }", "", 14, "400"),
    ],
)
def test_a_store_that_cannot_be_read_is_one_error(
    run: Run, archive: str, boot: str, tmp_path: Path, serve: Serve,
    extra: str, place: str, status: int, words: str,
) -> None:  # fmt: skip
    url = serve(tmp_path / "store", extra=extra).url + place
    for command in (
        ("check", archive, boot, "--store", url),
        ("export", boot, f"oci:{tmp_path}/out", "--store", url),
        ("check", "--fetchable", boot, "--store", url),
    ):
        code, out, err = run(*command)
        said = out + err
        assert code == status and words in said, command
        if "--fetchable" not in command or status != 10:
            assert said.count("\n") == 1, said
    assert not (tmp_path / "out").exists()


def test_a_pack_that_is_missing_is_a_difference(
    run: Run, archive: str, boot: str, tmp_path: Path
) -> None:
    """Where others can be read, the store is the right one."""
    more = tmp_path / "more.tar"
    members = [file("part0", Random(0).randbytes(200_000)), file("zz", Random(9).randbytes(99_999))]
    more.write_bytes(docker_archive(tar_of(*members)))
    second = f"oci:{tmp_path}/second"
    assert run("convert", f"docker-archive:{more}", second, "--store", tmp_path / "store")[0] == 0
    packs = sorted((tmp_path / "store/packs").rglob("??/*"), key=lambda p: p.stat().st_size)
    packs[0].unlink()
    status, out, _ = run("check", f"docker-archive:{more}", second, "--store", tmp_path / "store")
    assert status == 4 and out.splitlines()[0].startswith("/zz: cannot be read: ")


def test_every_command_that_reads_a_store_does_so_as_this_user(
    run: Run, archive: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    with basic_registry(tmp_path) as registry:
        write_docker_config(tmp_path / "docker", registry.host_port)
        url = f"docker://{registry.host_port}/{REPOSITORY}"
        assert run("convert", archive, f"{url}:v1", "--store", "registry")[0] == 0
        for command in (
            ("check", archive, f"{url}:v1", "--store", "registry"),
            ("export", f"{url}:v1", f"oci:{tmp_path}/out", "--store", "registry"),
            ("diff", f"{url}:v1", f"{url}:v1", "--store", "registry"),
            ("inspect", f"{url}:v1", "--store", "registry"),
            ("check", "--fetchable", f"{url}:v1", "--store", "registry"),
            ("check", "--store", url),
        ):
            status, _, err = run(*command)
            assert (status, err) == (0, ""), command


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_ends_a_command_leaves_nothing(tmp_path: Path, number: int) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    source = tmp_path / "large.tar"
    source.write_bytes(docker_archive(tar_of(file("f", Random(1).randbytes(40_000_000)))))
    command = [sys.executable, "-m", "converter.cli", "convert", f"docker-archive:{source}"]
    command += [f"oci:{tmp_path}/boot", "--store", str(tmp_path / "store")]
    with subprocess.Popen(
        [*command, "--progress", "json"],
        env={**os.environ, "TMPDIR": str(spool)},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr
        for line in process.stderr:
            if '"step": "store"' in line:
                break
        assert list(spool.iterdir())
        process.send_signal(number)
        assert process.wait(30) == 130
        assert "interrupted; the store stays valid" in process.stderr.read()
    assert list(spool.iterdir()) == []
    assert not (tmp_path / "boot").exists()
