"""A conversion that would change nothing is recognised, and any that would is made."""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from converter import earlier, making
from converter.cli import main
from tests.support.layers import config_of, docker_archive, file, tar_of

DATA = Random(1).randbytes(300_000)
LAYER = tar_of(file("f", DATA))
Convert = Callable[..., dict[str, Any]]


@pytest.fixture(params=["oci", "oci-archive", "docker-archive"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def destination(tmp_path: Path, kind: str) -> str:
    """Return where the boot image goes; in a layout a tag moves from the older one."""
    return f"{kind}:{tmp_path}/b" + (":tag" if kind == "oci" else "")


@pytest.fixture
def convert(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> Convert:
    """Give a function that converts the source and returns the report."""
    (tmp_path / "s.tar").write_bytes(docker_archive(LAYER))

    def call(*options: object, source: str = "s.tar", store: str = "store") -> dict[str, Any]:
        arguments = [f"docker-archive:{tmp_path}/{source}", destination(tmp_path, kind)]
        where = ["--store", f"{tmp_path}/{store}", "--json", *map(str, options)]
        status = main(["convert", *arguments, *where])
        said = capsys.readouterr()
        assert status == 0, said.err
        report: dict[str, Any] = json.loads(said.out)
        return report

    return call


def forget_destination(tmp_path: Path, kind: str) -> None:
    """Make room: archives are not overwritten."""
    if kind != "oci":
        (tmp_path / "b").unlink()


def test_the_same_again_does_nothing_and_says_so(
    convert: Convert, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = convert()
    assert not first["unchanged"]
    with monkeypatch.context() as patched:
        patched.setattr(making, "merge_layers", lambda *_, **__: pytest.fail("the work began"))
        second = convert()
    assert second["unchanged"]
    assert (second["new_chunks"], second["new_stored_bytes"]) == (0, 0)
    for name in ("chunks", "plain_bytes", "stored_bytes", "boot_image", "source_layer_bytes"):
        assert second[name] == first[name]


def test_the_last_line_says_that_nothing_was_done(
    convert: Convert, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    convert()
    arguments = [f"docker-archive:{tmp_path}/s.tar", destination(tmp_path, kind)]
    assert main(["convert", *arguments, "--store", f"{tmp_path}/store"]) == 0
    assert "nothing to do; --force converts again" in capsys.readouterr().out


def test_force_converts_again(convert: Convert, tmp_path: Path, kind: str) -> None:
    first = convert()
    forget_destination(tmp_path, kind)
    again = convert("--force")
    assert not again["unchanged"]
    assert again["boot_image"] == first["boot_image"]


@pytest.mark.parametrize(
    "options", [("--level", "1"), ("--blob-store", "http://example/x"), ("--store", "other")]
)
def test_other_options_are_another_conversion(
    convert: Convert, tmp_path: Path, kind: str, options: tuple[str, str]
) -> None:
    convert()
    if kind == "oci":
        chosen = ("--store", str(tmp_path / "other")) if options[0] == "--store" else options
        assert not convert(*chosen)["unchanged"]
        return
    # What an archive holds would be lost: it is refused as ever.
    arguments = [f"docker-archive:{tmp_path}/s.tar", destination(tmp_path, kind)]
    where = ["--store", f"{tmp_path}/store", *options]
    if options[0] == "--store":
        where = ["--store", f"{tmp_path}/other"]
    assert main(["convert", *arguments, *where]) == 2


def test_another_source_or_release_is_another_conversion(
    convert: Convert, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert()
    forget_destination(tmp_path, kind)
    changed = docker_archive(LAYER, config=config_of([LAYER], config={"Cmd": ["x"]}))
    (tmp_path / "s.tar").write_bytes(changed)
    assert not convert()["unchanged"]
    assert convert()["unchanged"]
    forget_destination(tmp_path, kind)
    convert()
    monkeypatch.setattr(earlier, "RELEASE", "9.9")
    if kind == "oci":
        assert not convert()["unchanged"]


@pytest.mark.parametrize("lost", ["packs/*/*", "indexes/*", "bootstraps/*", "manifests/*"])
def test_what_the_store_has_lost_is_stored_again(
    convert: Convert, tmp_path: Path, kind: str, lost: str
) -> None:
    convert()
    (path,) = (tmp_path / "store").glob(lost)
    path.unlink()
    if kind != "oci":
        forget_destination(tmp_path, kind)
    assert not convert()["unchanged"]
    assert path.exists()
    assert convert()["unchanged"]
