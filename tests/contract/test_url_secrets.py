"""Commands that refuse a store's URL, or a reference, say so without the password in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from converter.cli import main
from tests.support.layers import docker_archive, file, tar_of

Run = Callable[..., tuple[int, str, str]]

SECRET = "SECRETPW"
URLS = {
    "http": f"http://user:{SECRET}@h/x",
    "token": f"https://h/x?token={SECRET}",
    "user": f"https://{SECRET}@h/x",
    "docker": f"docker://user:{SECRET}@h/x",
    "s3": f"s3://AKID:{SECRET}/{SECRET}@bucket",
    "s3 key": f"s3://bucket/x?secret_access_key={SECRET}",
    "s3 endpoint": f"s3://bucket?endpoint=http://u:{SECRET}@h",
    "ssh": f"ssh://me:{SECRET}@h/x",
    "unknown": f"ftp://u:{SECRET}@h",
}
BOOT, CHUNK_INDEX = "BOOT", "blake3:" + "0" * 64
COMMANDS = {
    "convert": ("convert", "SOURCE", "oci:/none", "--store", "URL"),
    "convert mounted": ("convert", "SOURCE", "oci:/none", "--mounted", "--store", "URL"),
    "convert mount-from": ("convert", "SOURCE", "oci:/none", "--store", "s", "--mount-from", "URL"),
    "convert blob-store": ("convert", "SOURCE", "oci:/none", "--blob-store", "URL"),
    "convert mirrors": ("convert", "SOURCE", "oci:/none", "--blob-store", "http://h|URL||"),
    "inspect": ("inspect", BOOT, "--store", "URL"),
    "diff": ("diff", BOOT, BOOT, "--store", "URL"),
    "export": ("export", BOOT, "oci:/none", "--store", "URL"),
    "export mirrors": ("export", BOOT, "oci:/none", "--store", "http://h|URL"),
    "check": ("check", "SOURCE", BOOT, "--store", "URL"),
    "check store": ("check", "--store", "URL"),
    "check image": ("check", "--store", "URL", "--image", CHUNK_INDEX),
    "check repaired": ("check", "--store", "URL", "--repair", "s"),
    "check repair": ("check", "--store", "STORE", "--repair", "URL"),
    "check fetchable": ("check", "--fetchable", BOOT, "--store", "URL"),
    "check fetchable mirrors": ("check", "--fetchable", BOOT, "--store", "URL|http://h"),
    "forget": ("forget", "URL", CHUNK_INDEX),
    "collect": ("collect", "URL"),
    "collect delete": ("collect", "URL", "--delete"),
}
REFERENCES = (
    f"docker://user:{SECRET}@host/x:1",
    f"docker://{SECRET}@host/x:1",
    f"docker+http://user:{SECRET}@host:5000/x@sha256:{'0' * 64}",
    f"docker://user:a/{SECRET}@host/x",
    f"docker:user:{SECRET}@host/x",
    f"user:{SECRET}@host/x:1",
    f"https://user:{SECRET}@host/x",
    f"docker://host/x:1?token={SECRET}",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a directory with an image ``a.tar``, ``store``, and the boot image ``oci:boot``."""
    made = tmp_path_factory.mktemp("made")
    (made / "a.tar").write_bytes(docker_archive(tar_of(file("x", b"x" * 9000))))
    convert = ("convert", f"docker-archive:{made}/a.tar", f"oci:{made}/boot")
    assert main([*convert, "--store", str(made / "store")]) == 0
    return made


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str],
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Run:
    """Give a function that runs a command with the places of `COMMANDS` filled in."""
    monkeypatch.chdir(tmp_path)
    places = {
        "SOURCE": f"docker-archive:{made}/a.tar",
        "STORE": f"{made}/store",
        BOOT: f"oci:{made}/boot",
    }

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([places.get(argument, argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.mark.parametrize("kind", URLS)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_refused_url_is_not_repeated(run: Run, command: str, kind: str) -> None:
    status, out, err = run(*(part.replace("URL", URLS[kind]) for part in COMMANDS[command]))
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert SECRET not in err and "://" in err


@pytest.mark.parametrize("reference", REFERENCES)
def test_a_refused_reference_is_not_repeated(run: Run, reference: str) -> None:
    for arguments in (
        ("convert", reference, "oci:/none"),
        ("convert", "SOURCE", reference),
        ("inspect", reference),
        ("diff", reference, BOOT),
        ("export", reference, "oci:/none", "--store", "STORE"),
        ("check", "--fetchable", reference),
        ("forget", "STORE", reference),
    ):
        status, out, err = run(*arguments)
        assert (status, out) == (2, "") and SECRET not in err


def test_who_names_a_user_in_a_reference_is_told_what_to_do(run: Run) -> None:
    _, _, err = run("inspect", f"docker://user:{SECRET}@host/x:1")
    assert "'docker://…@host/x:1': there is no user name in a reference" in err
    assert "docker login" in err


def test_a_mirror_that_cannot_be_asked_is_named_without_its_password(
    run: Run, tmp_path: Path
) -> None:
    """The credentials are read before the URL is."""
    (tmp_path / "http").write_text("malformed\n")
    for url in (URLS["http"], URLS["token"]):
        asked = ("check", "--fetchable", BOOT, "--store", url, "--auth", str(tmp_path))
        for more in ((), ("--json",)):
            status, out, err = run(*asked, *more)
            assert status == 13 and "line 1" in out and SECRET not in out + err
