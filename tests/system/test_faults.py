"""Whatever is missing, wrong or damaged at boot is one line and an exit code; later it is EIO."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.engine import BOOT_OPTIONS
from tests.support.ownstore import copy_store
from tests.support.servers import Nginx, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.converted import Conversions, Converted
    from tests.support.engine import Engine

pytestmark = pytest.mark.system

LIMIT_S = "3"
"""BOOTFS_READ_LIMIT of these tests."""


def only_line(done: subprocess.CompletedProcess[str]) -> str:
    """Give the one line that a failed boot has written."""
    assert done.stdout == ""
    assert done.stderr.startswith("bootfs: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def without(*words: str) -> tuple[str, ...]:
    """Give BOOT_OPTIONS without an option and its value."""
    pairs = zip(BOOT_OPTIONS[::2], BOOT_OPTIONS[1::2], strict=True)
    return tuple(word for pair in pairs if pair != words for word in pair)


@pytest.mark.parametrize("mode", ["erofs", "fuse"])
@pytest.mark.parametrize("user", ["0", "4242"])
def test_what_the_engine_was_not_given_is_named(
    engine: Engine, converted_workshop: Converted, mode: str, user: str
) -> None:
    image = converted_workshop
    more = ("-e", f"BLOB_STORE={image.store}", "-e", f"BOOTFS_MODE={mode}", "--user", user)
    done = engine.run(image.boot, options=(*without("--device", "/dev/fuse"), *more))
    assert done.returncode == 125
    assert "--device /dev/fuse" in only_line(done)
    done = engine.run(image.boot, options=(*without("--cap-add", "SYS_ADMIN"), *more))
    assert done.returncode == 125
    assert "--cap-add SYS_ADMIN" in only_line(done)
    done = engine.run(image.boot, options=more)
    assert done.returncode == 125
    assert "--cap-add SYS_ADMIN" in only_line(done)


def capabilities_of_the_readme() -> tuple[list[str], list[str]]:
    """Give the options that README names for root, and those for others beside them."""
    lines = Path("README.md").read_text().splitlines()
    (at,) = (n for n, line in enumerate(lines) if line.startswith("--cap-drop ALL "))
    return lines[at].split(), lines[at + 1].split()


def given(image: Converted, *options: str) -> tuple[str, ...]:
    """Give the options that boot an image, of capabilities only these."""
    more = ("-e", f"BLOB_STORE={image.store}", "-e", f"BOOTFS_MODE={image.mode}")
    # With its content it would take more: the volume's files are not root's.
    volume = ("--tmpfs", "/content")
    return (*without("--cap-add", "SYS_ADMIN"), *more, *volume, *options)


@pytest.mark.parametrize("user", ["0:0", "4242:0", "4242:4343", "0:4343"])
def test_the_capabilities_of_the_readme_suffice(
    engine: Engine, workshop: Converted, user: str
) -> None:
    root, others = capabilities_of_the_readme()
    capabilities = root if user == "0:0" else [*root, *others]
    options = given(workshop, *capabilities, "--user", user)
    script = "sha256sum -c /big.sum && echo x >/tmp/x && id -u && id -g"
    done = engine.run(workshop.boot, "sh", "-c", script, options=options)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split()[-2:] == user.split(":")


@pytest.mark.parametrize("user", ["0:0", "4242:4343"])
def test_each_missing_capability_is_named(engine: Engine, workshop: Converted, user: str) -> None:
    root, others = capabilities_of_the_readme()
    capabilities = root[2:] if user == "0:0" else [*root[2:], *others]
    names = capabilities[1::2]
    for name in names:
        left = [word for other in names if other != name for word in ("--cap-add", other)]
        options = given(workshop, "--cap-drop", "ALL", *left, "--user", user)
        done = engine.run(workshop.boot, options=options)
        assert done.returncode == 125
        line = only_line(done)
        assert f"--cap-add {name}" in line
        assert not any(f"--cap-add {other}" in line for other in names if other != name), line
    done = engine.run(workshop.boot, options=given(workshop, "--cap-drop", "ALL", "--user", user))
    assert done.returncode == 125
    line = only_line(done)
    assert all(f"--cap-add {name}" in line for name in names), line


def test_what_filling_a_volume_takes_is_named(engine: Engine, workshop: Converted) -> None:
    done = workshop.run(engine, options=("--cap-drop", "CHOWN"))
    assert done.returncode == 125
    assert "volume /content" in only_line(done)
    assert "--cap-add CHOWN, or mount" in done.stderr
    whole = ("CHOWN", "FOWNER", "FSETID")
    dropped = [word for name in whole for word in ("--cap-drop", name)]
    done = workshop.run(engine, options=dropped)
    assert done.returncode == 125
    assert "add --cap-add CHOWN --cap-add FOWNER --cap-add FSETID, or" in only_line(done)


@pytest.mark.parametrize("names", [("FOWNER",), ("FSETID", "SETGID")])
def test_a_volume_is_filled_as_it_should_be_or_not_at_all(
    engine: Engine, workshop: Converted, names: tuple[str, ...]
) -> None:
    dropped = [word for name in names for word in ("--cap-drop", name)]
    done = workshop.run(engine, options=dropped)
    assert done.returncode == 125
    assert f"--cap-add {names[0]}, or mount" in only_line(done)


def test_a_volume_that_is_setgid_is_filled_without_the_right_to_it(
    engine: Engine, workshop: Converted
) -> None:
    command = ("stat", "-c", "%a %u %g", "/content", "/content/below/file")
    done = workshop.run(engine, *command, options=("--cap-drop", "FSETID"))
    assert (done.returncode, done.stdout) == (0, "2750 4242 4343\n644 4242 4343\n")


def test_a_file_of_the_image_is_changed_with_the_container_s_capabilities(
    engine: Engine, workshop: Converted
) -> None:
    script = "touch /home/worker/.profile; touch /etc/passwd && echo changed"
    options = ("--cap-drop", "CHOWN", "--tmpfs", "/content")
    plain = workshop.run_source(engine, "sh", "-c", script, options=options)
    assert (plain.stdout, plain.stderr) == ("changed\n", "")
    booted = workshop.run(engine, "sh", "-c", script, options=options)
    assert booted.stdout == "changed\n"
    assert "Operation not permitted" in booted.stderr


@pytest.fixture
def no_file_mounts(tmp_path: Path) -> tuple[str, ...]:
    """Give the options under which EROFS cannot be mounted from a file, as before kernel 6.12.

    Of all our mounts only that one has no flag but MS_RDONLY and no data.
    """
    arguments = [{"index": 3, "value": 1, "op": "SCMP_CMP_EQ"}]
    arguments.append({"index": 4, "value": 0, "op": "SCMP_CMP_EQ"})
    rule = {"names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 15, "args": arguments}
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
    (tmp_path / "profile.json").write_text(json.dumps(profile))
    return ("--security-opt", f"seccomp={tmp_path}/profile.json")


def test_auto_falls_back_to_fuse(
    engine: Engine, converted_workshop: Converted, no_file_mounts: tuple[str, ...]
) -> None:
    image = dataclasses.replace(converted_workshop, mode="auto")
    command = ("sh", "-c", "sha256sum -c /big.sum && exec sleep 100")
    container = image.start(engine, *command, options=no_file_mounts)
    container.wait_for_line("/big: OK")
    lines = [line for line in container.logs().splitlines() if line.startswith("bootfs: ")]
    assert lines == [
        "bootfs: mode fuse: the kernel refuses to mount EROFS from a file: Block device required"
    ]
    # Of the first attempt nothing is left mounted, where the daemon still is.
    init = container.pid()
    for process in Path(f"/proc/{init}/task/{init}/children").read_text().split():
        mounts = Path(f"/proc/{process}/mountinfo").read_text()
        assert "/.bootfs/mnt/fuse" not in mounts
    assert container.stop(grace_s=0) == 137


def test_mode_erofs_alone_says_that_the_kernel_refuses(
    engine: Engine, converted_workshop: Converted, no_file_mounts: tuple[str, ...]
) -> None:
    for _ in range(5):
        done = converted_workshop.run(engine, options=no_file_mounts, timeout_s=60)
        assert done.returncode == 125
        line = only_line(done)
        assert "refuses" in line
        assert "BOOTFS_MODE=auto" in line
        assert "BOOTFS_MODE=fuse" in line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-e", "BLOB_STORE="), ["BLOB_STORE", "--blob-store"]),
        (("-e", "BLOB_STORE=ftp://host/"), ["ftp://host/", "http"]),
        (("-e", "BLOB_STORE=/not/mounted"), ["/not/mounted", "mounted"]),
        (("-e", "BOOTFS_MODE=nonsense"), ["BOOTFS_MODE", "nonsense", "erofs"]),
        (("-e", "BOOTFS_READ_LIMIT=long"), ["BOOTFS_READ_LIMIT", "long"]),
        (("-e", "BOOTFS_CACHE_LIMIT=3M"), ["BOOTFS_CACHE_LIMIT", "3M", "4M or more"]),
        (("-e", "BOOTFS_CACHE_LIMIT=1.5G"), ["BOOTFS_CACHE_LIMIT", "1.5G"]),
        (("-e", "BOOTFS_KEEP_CAPS=ALL"), ["BOOTFS_KEEP_CAPS", "SYS_ADMIN"]),
    ],
    ids=[
        *("no store", "no kind of store", "no directory", "mode", "limit", "too little cache"),
        *("no amount of cache", "capabilities"),
    ],
)
def test_settings_that_are_none(
    engine: Engine, workshop: Converted, options: tuple[str, ...], words: list[str]
) -> None:
    done = workshop.run(engine, options=options, timeout_s=30)
    assert done.returncode == 125
    line = only_line(done)
    assert all(word in line for word in words), line


@pytest.mark.parametrize(
    ("store", "shown"),
    [
        ("http://user:SECRETPW@h/x", "http://…@h/x"),
        ("https://h/x?token=SECRETPW", "https://h/x?token=…"),
        ("s3://images?endpoint=http://u:SECRETPW@h", "endpoint=http://…@h"),
        ("http://h/x|docker://user:SECRETPW@h/x", "docker://…@h/x"),
    ],
)
def test_a_password_in_a_stores_url_is_not_in_the_log(
    engine: Engine, workshop: Converted, store: str, shown: str
) -> None:
    done = workshop.run(engine, options=("-e", f"BLOB_STORE={store}"), timeout_s=30)
    assert done.returncode == 125
    line = only_line(done)
    assert shown in line and "SECRETPW" not in line


@pytest.fixture
def own_store(
    conversions: Conversions, converted_workshop: Converted, tmp_path: Path
) -> Iterator[tuple[Nginx, Path, Callable[[str], Converted]]]:
    """Give a server with a copy of the store, the copy, and the workshop served from there."""
    root = tmp_path / "store"
    copy_store(conversions, converted_workshop, root)
    server = Nginx(root, addresses=[conversions.address])
    url = f"http://{conversions.address}:{server.port}"

    def served(mode: str) -> Converted:
        return dataclasses.replace(converted_workshop, store=url, mode=mode)

    yield server, root, served
    server.close()


MODES = pytest.mark.parametrize("mode", ["erofs", "fuse"])
Own = tuple[Nginx, Path, "Callable[[str], Converted]"]
LIMITED = ("-e", f"BOOTFS_READ_LIMIT={LIMIT_S}")


@MODES
def test_an_unreachable_store(
    engine: Engine, conversions: Conversions, converted_workshop: Converted, mode: str
) -> None:
    url = f"http://{conversions.address}:{free_port()}"
    image = dataclasses.replace(converted_workshop, store=url, mode=mode)
    begun = time.monotonic()
    done = image.run(engine, options=LIMITED, timeout_s=60)
    assert done.returncode == 125
    line = only_line(done)
    assert url.partition("://")[2] in line
    assert "address" in line
    assert time.monotonic() - begun < 20


@MODES
def test_a_store_that_holds_nothing(engine: Engine, own_store: Own, mode: str) -> None:
    _, root, served = own_store
    shutil.rmtree(root / "packs")
    done = served(mode).run(engine, options=LIMITED, timeout_s=60)
    assert done.returncode == 125
    line = only_line(done)
    assert "404" in line
    assert "BLOB_STORE" in line


def packs(root: Path) -> list[Path]:
    """List the packs of a store, the largest first."""
    found = [path for path in (root / "packs").glob("*/*") if path.is_file()]
    return sorted(found, key=lambda path: -path.stat().st_size)


@MODES
def test_packs_with_wrong_content(engine: Engine, own_store: Own, mode: str) -> None:
    _, root, served = own_store
    for pack in packs(root):
        pack.write_bytes(pack.read_bytes()[::-1])
    done = served(mode).run(engine, options=LIMITED, timeout_s=60)
    assert done.returncode == 125
    line = only_line(done)
    assert "damaged" in line


@MODES
def test_a_damaged_chunk_is_eio_until_it_is_repaired(
    engine: Engine, own_store: Own, mode: str
) -> None:
    _, root, served = own_store
    image = served(mode)
    container = image.start(engine, "sleep", "1000", options=LIMITED)
    container.run("true")
    container.run("sha256sum", "/etc/passwd")
    container.run("cat", "/etc/passwd")
    # /big cannot be compressed: its bytes stand in packs as they are.
    whole = {path: path.read_bytes() for path in packs(root) if path.stat().st_size > 1 << 20}
    for path, data in whole.items():
        path.write_bytes(data[: len(data) // 2] + bytes(200_000) + data[len(data) // 2 + 200_000 :])
    read = container.run("cat", "/big", check=False)
    assert read.returncode == 1
    assert "Input/output error" in read.stderr
    lines = [line for line in container.logs().splitlines() if line.startswith("bootfs: ")]
    assert lines
    assert len(lines) == len(set(lines)) <= 8, lines
    assert all("damaged" in line for line in lines)
    assert container.inspect()["State"]["Running"]
    for path, data in whole.items():
        path.write_bytes(data)
    assert container.run("sha256sum", "-c", "/big.sum").stdout == "/big: OK\n"


@MODES
def test_a_poisoned_cache_is_repaired(
    engine: Engine, converted_workshop: Converted, mode: str
) -> None:
    image = dataclasses.replace(converted_workshop, mode=mode)
    volume = engine.volume()
    options = ("-v", f"{volume}:/.bootfs/cache")
    assert image.run(engine, "sha256sum", "-c", "/big.sum", options=options).returncode == 0
    where = subprocess.run(
        ["docker", "volume", "inspect", volume, "-f", "{{.Mountpoint}}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    (data,) = Path(where).glob("**/data")
    with data.open("r+b") as file:
        for at in range(0, data.stat().st_size, 1_000_000):
            file.seek(at)
            file.write(b"poison")
    done = image.run(engine, "sha256sum", "-c", "/big.sum", options=options)
    assert (done.returncode, done.stdout) == (0, "/big: OK\n")
    lines = done.stderr.splitlines()
    assert lines
    assert all(line.startswith("bootfs: cache: chunk ") for line in lines)
    assert len(lines) == len(set(lines))
    again = image.run(engine, "sha256sum", "-c", "/big.sum", options=options)
    assert (again.returncode, again.stderr) == (0, "")


@pytest.mark.parametrize("name", ["config", "chunk-index", "bootstrap"])
@pytest.mark.parametrize(
    ("mode", "damage"),
    [("auto", "flipped"), ("fuse", "flipped"), ("erofs", "short"), ("erofs", "empty")],
)
def test_a_damaged_boot_image(
    engine: Engine,
    converted_workshop: Converted,
    tmp_path: Path,
    mode: str,
    name: str,
    damage: str,
) -> None:
    image = converted_workshop
    path = f"/.bootfs/image/{name}"
    container = engine.create(image.boot)
    subprocess.run(["docker", "cp", f"{container.name}:{path}", str(tmp_path / "file")], check=True)
    data = bytearray((tmp_path / "file").read_bytes())
    if damage == "flipped":
        data[100 if name == "bootstrap" else len(data) // 2] ^= 0x40
    elif damage == "short":
        del data[len(data) // 2 :]
    else:
        del data[:]
    (tmp_path / "file").write_bytes(data)
    damaged = engine.build(f"FROM {image.boot}\nCOPY file {path}\n", tmp_path)
    broken = dataclasses.replace(image, boot=damaged, mode=mode)
    done = broken.run(engine, timeout_s=60)
    assert done.returncode == 125
    line = only_line(done)
    assert name.replace("-", " ") in line.replace("-", " ")
