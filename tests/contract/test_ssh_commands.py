"""The command line with a store over SSH: from conversion to a whole check, and what fails."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from tests.support.layers import config_of, docker_archive, file, tar_of
from tests.support.servers import free_port
from tests.support.sshd import Sshd, make_key

LAYER = tar_of(file("big", Random(1).randbytes(700_000)), file("text", b"some text " * 50_000))
IMAGE = docker_archive(LAYER, config=config_of([LAYER], config={"Cmd": ["/x"]}))
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def user(sshd: Sshd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Give the files of a user's ~/.ssh, for this test to spoil."""
    home = Path(shutil.copytree(sshd.auth, tmp_path / "home"))
    (home / "config").write_text(
        f"Host alias\n  HostName 127.0.0.1\n  Port {sshd.port}\n  User {sshd.user}\n"
        f"Host *\n  IdentityFile {home}/id_ed25519\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {home}/known_hosts\n"
    )
    (home / "bin").mkdir()
    wrapper = home / "bin" / "ssh"
    wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {home}/config "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{home}/bin:{os.environ['PATH']}")
    return home


@pytest.fixture
def source(tmp_path: Path) -> str:
    (tmp_path / "image.tar").write_bytes(IMAGE)
    return f"docker-archive:{tmp_path}/image.tar"


@pytest.mark.usefixtures("user")
def test_an_image_goes_in_and_is_checked_and_a_second_uploads_nothing(
    run: Run, sshd: Sshd, source: str, tmp_path: Path
) -> None:
    # The host by the name that the user's ssh_config gives it.
    url = f"ssh://alias{tmp_path}/store"
    boot = f"oci:{tmp_path}/boot"
    status, out, err = run("convert", source, boot, "--store", url)
    assert (status, err) == (0, "") and " 0 new" not in out
    assert " 0 new" in run("convert", source, boot, "--store", url, "--force")[1]
    assert "nothing to do" in run("convert", source, boot, "--store", url)[1]
    status, out, _ = run("check", source, boot, "--store", sshd.url_of(tmp_path / "store"))
    assert status == 0 and "0 differences" in out
    status, out, _ = run("check", "--store", url)
    assert status == 0 and "1 images checked, 0 problems" in out
    # The same bytes as a directory has, for whoever reads it so.
    assert run("convert", source, boot, "--store", tmp_path / "other")[0] == 0
    files = [
        {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        for root in (tmp_path / "store", tmp_path / "other")
    ]
    assert files[0] == files[1]


@pytest.mark.usefixtures("user")
def test_what_is_damaged_is_repaired_over_ssh(
    run: Run, sshd: Sshd, source: str, tmp_path: Path
) -> None:
    for name in ("store", "mirror"):
        store = sshd.url_of(tmp_path / name)
        assert run("convert", source, f"oci:{tmp_path}/boot", "--store", store)[0] == 0
    (pack,) = (tmp_path / "store/packs").rglob("??/*")
    whole = pack.read_bytes()
    pack.write_bytes(whole[:5000] + b"damage" + whole[5006:])
    store, mirror = sshd.url_of(tmp_path / "store"), sshd.url_of(tmp_path / "mirror")
    assert run("check", "--store", store)[0] == 4
    status, out, err = run("check", "--store", store, "--repair", mirror)
    assert status == 0, out + err
    assert pack.read_bytes() == whole


@pytest.mark.usefixtures("user")
def test_what_an_image_needs_can_be_asked_for_beforehand(
    run: Run, sshd: Sshd, source: str, tmp_path: Path
) -> None:
    url = sshd.url_of(tmp_path / "store")
    boot = f"oci:{tmp_path}/boot"
    assert run("convert", source, boot, "--store", url)[0] == 0
    assert run("check", "--fetchable", boot, "--store", url)[0] == 0
    (pack,) = (tmp_path / "store/packs").rglob("??/*")
    pack.unlink()
    status, out, err = run("check", "--fetchable", boot, "--store", url)
    assert status == 10 and pack.name in out + err


@pytest.mark.usefixtures("user")
def test_nothing_is_removed_without_locks(
    run: Run, sshd: Sshd, source: str, tmp_path: Path
) -> None:
    url = sshd.url_of(tmp_path / "store")
    run("convert", source, f"oci:{tmp_path}/boot", "--store", url)
    for arguments in (("collect", url, "--delete"), ("forget", url, f"oci:{tmp_path}/boot")):
        status, _, err = run(*arguments)
        assert status == 2 and "at the server" in err
    assert run("check", "--store", url)[0] == 0


@pytest.mark.parametrize("spoilt", ["unknown host", "wrong key", "nobody there", "no directory"])
def test_what_fails_is_one_line_with_its_code(
    run: Run,
    sshd: Sshd,
    user: Path,
    source: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoilt: str,
) -> None:
    url = sshd.url_of(tmp_path / "store")
    if spoilt == "unknown host":
        (user / "known_hosts").write_text("")
        expected, words = 13, "known_hosts"
    elif spoilt == "wrong key":
        (user / "id_ed25519").unlink()
        make_key(tmp_path / "other")
        (tmp_path / "other").rename(user / "id_ed25519")
        expected, words = 13, "lets nobody in"
    elif spoilt == "nobody there":
        url = f"ssh://127.0.0.1:{free_port()}{tmp_path}/store"
        expected, words = 14, "Connection refused"
        monkeypatch.setattr("store.write.backends.sftpfiles.LIMIT_S", 2.0)
    else:
        (tmp_path / "store").write_text("a file")
        expected, words = 2, "not a directory"
    status, out, err = run("convert", source, f"oci:{tmp_path}/boot", "--store", url)
    assert (status, out) == (expected, "")
    (line,) = err.splitlines()
    assert line.startswith("bootfs: ") and words in line
    assert not (tmp_path / "boot").exists()
