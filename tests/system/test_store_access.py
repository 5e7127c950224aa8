"""Containers that boot from stores which ask who they are: the answer lies in a file."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench.images import IMAGES, build_image
from converter.convert import convert
from converter.progress import Silent
from converter.reference import parse_reference
from store.write.backends import open_backend
from tests.support.converted import LEVEL, Converted, gateway
from tests.support.engine import docker
from tests.support.require import require
from tests.support.s3server import CREDENTIALS, KEY_ID, SECRET, S3Server, write_credentials
from tests.support.servers import Nginx

if TYPE_CHECKING:
    from tests.support.converted import Conversions
    from tests.support.engine import Engine

pytestmark = [pytest.mark.system, pytest.mark.requires("docker", "erofs", "fuse", "root")]

MODES = ("erofs", "fuse", "lease", "eager")
PLACE = "/.bootfs/auth"
SUM = ("sh", "-c", "find /usr /etc -xdev -type f ! -path '/etc/host*' ! -path '/etc/resolv.conf' "
       "-exec sha256sum {} + | sort | sha256sum")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class InS3:
    """An image whose store lies in S3."""

    image: Converted
    server: S3Server


@pytest.fixture(scope="module")
def in_s3(conversions: Conversions, tmp_path_factory: pytest.TempPathFactory) -> Iterator[InS3]:
    require("rclone")
    address = gateway()
    source = build_image(IMAGES["deb"])
    with (
        S3Server(tmp_path_factory.mktemp("s3"), addresses=[address]) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        boot = conversions.engine.image_name()
        backend = open_backend(server.store_url("images"))
        convert(parse_reference(source), parse_reference(boot), backend, LEVEL, "", Silent())
        backend.close()
        image = Converted(source, boot, server.store_url("images", address))
        yield InS3(image, server)


@pytest.mark.parametrize("mode", MODES)
def test_from_s3_in_every_mode(engine: Engine, in_s3: InS3, tmp_path: Path, mode: str) -> None:
    image = dataclasses.replace(in_s3.image, mode=mode)
    auth = write_credentials(tmp_path / "auth")
    (auth / "s3").chmod(0o400)
    done = image.run(engine, *SUM, options=("-v", f"{auth}:{PLACE}:ro"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == image.run_source(engine, *SUM).stdout


@pytest.mark.parametrize("mode", ["erofs", "fuse"])
def test_the_workload_does_not_see_them(
    engine: Engine, in_s3: InS3, tmp_path: Path, mode: str
) -> None:
    image = dataclasses.replace(in_s3.image, mode=mode)
    auth = write_credentials(tmp_path / "auth")
    look = (
        f"ls -d /.bootfs; echo mounted $(grep -c {PLACE} /proc/self/mountinfo); "
        f"cat /proc/[0-9]*/root{PLACE}/s3; "
        "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline | tr '\\0' '\\n'; echo looked"
    )
    options = ("-v", f"{auth}:{PLACE}:ro")
    container = image.start(engine, "sh", "-c", f"({look}) 2>&1; sleep 60", options=options)
    container.wait_for_line("looked")
    entered = container.run("sh", "-c", f"({look}) 2>&1").stdout
    for seen in (
        container.logs(),
        entered,
        str(container.inspect()["Config"]),
        docker("top", container.name, "axeww", "-o", "pid,args").stdout,
    ):
        assert SECRET not in seen
    for seen in (container.logs(), entered):
        assert "ls: cannot access '/.bootfs'" in seen and "looked" in seen
        assert "\nmounted 0\n" in seen and KEY_ID not in seen
    container.stop(0)


def test_wrong_ones_are_said_in_the_log_and_new_ones_are_taken(
    engine: Engine, in_s3: InS3, tmp_path: Path
) -> None:
    auth = write_credentials(tmp_path / "auth", CREDENTIALS.replace(SECRET, "wrong"))
    options = ("-v", f"{auth}:{PLACE}:ro", "-e", "BOOTFS_READ_LIMIT=5")
    done = in_s3.image.run(engine, "true", options=options)
    assert done.returncode != 0
    assert f"SignatureDoesNotMatch; the secret key is not that of the access key: {PLACE}/s3" in (
        done.stderr
    )
    assert SECRET not in done.stderr
    write_credentials(auth, CREDENTIALS)
    container = in_s3.image.start(engine, "sleep", "60", options=options)
    # Its daemon has credentials that are good; the file's turn comes when they are refused.
    write_credentials(auth, "[default]\nnonsense\n")
    assert container.run("sh", "-c", "cat /usr/bin/* | sha256sum").returncode == 0
    container.stop(0)


def test_a_malformed_file_is_one_line(engine: Engine, in_s3: InS3, tmp_path: Path) -> None:
    auth = write_credentials(tmp_path / "auth", f"[default]\naws_secret {SECRET}\n")
    done = in_s3.image.run(engine, "true", options=("-v", f"{auth}:{PLACE}:ro"))
    assert done.returncode == 125
    (line,) = done.stderr.splitlines()
    assert f"{PLACE}/s3: line 2: " in line and SECRET not in line


def test_a_trace_is_sent_to_s3(engine: Engine, in_s3: InS3, tmp_path: Path) -> None:
    auth = ("-v", f"{write_credentials(tmp_path / 'auth')}:{PLACE}:ro")
    container = in_s3.image.start(engine, "true", options=(*auth, "-e", "BOOTFS_RECORD=1"))
    assert container.wait() == 0
    traces = [*(in_s3.server.bucket / "images/traces").rglob("trace-*")]
    assert len(traces) == 1, container.logs()
    sent = traces[0]
    assert f": traces/{sent.parent.name}/{sent.name}; " in container.logs()
    boot, store = in_s3.image.boot, in_s3.server.store_url("images")
    credentials = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET}
    done = bootfs("profile", "add", boot, "--store", store, "--from-store", **credentials)
    assert done.returncode == 0 and done.stdout.startswith("true: "), done.stderr
    assert not sent.exists()
    done = bootfs("profile", "remove", boot, "--store", store, "--all", **credentials)
    assert done.returncode == 0
    elsewhere = in_s3.image.store.replace("s3://images/", "s3://no-such-bucket/")
    options = (*auth, "-e", "BOOTFS_RECORD=1", "-e", f"BOOTFS_RECORD_TO={elsewhere}")
    container = in_s3.image.start(engine, "true", options=options)
    assert container.wait() == 0
    assert "the trace is not sent: " in container.logs()
    assert "404 NoSuchBucket; there is no bucket no-such-bucket" in container.logs()


def bootfs(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "converter.cli", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | variables
    )


def test_a_store_in_s3_is_kept_as_any_other(
    in_s3: InS3, tmp_path: Path, kept_runtime: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / ".aws"
    write_credentials(home).joinpath("s3").rename(home / "credentials")
    monkeypatch.setenv("HOME", str(tmp_path))
    url = in_s3.server.store_url("kept")
    places = [f"oci:{tmp_path}/{name}" for name in ("one", "two")]
    for place in places:
        done = bootfs("convert", in_s3.image.source, place, "--store", url, "--level", "1")
        assert (done.returncode, done.stderr) == (0, "")
    assert " 0 new, 0.0 MB stored" in done.stdout
    assert " 1 images checked, 0 problems" in bootfs("check", "--store", url).stdout
    done = bootfs("check", in_s3.image.source, places[1], "--store", url)
    assert done.stdout.endswith(" 0 differences\n"), done.stderr
    pack = next((in_s3.server.bucket / "kept/packs").rglob("*/*"))
    whole = pack.read_bytes()
    pack.write_bytes(whole[:-100] + bytes(100))
    done = bootfs("check", "--store", url)
    assert done.returncode == 4 and f"packs/{pack.parent.name}/{pack.name}: " in done.stdout
    mirror = in_s3.server.store_url("images")
    done = bootfs("check", "--store", url, "--repair", mirror)
    assert (done.returncode, pack.read_bytes() == whole) == (0, True), done.stdout + done.stderr
    assert bootfs("forget", url, places[0]).returncode == 0
    assert bootfs("collect", url, "--grace", "1h").stdout.startswith("0 objects")
    assert bootfs("collect", url, "--grace", "0", "--delete").returncode == 0
    left = [path for path in (in_s3.server.bucket / "kept").rglob("*") if path.is_file()]
    assert [path.name for path in left] == ["bootfs-store"]


@pytest.mark.parametrize("mode", ["erofs", "lease"])
def test_from_a_web_server_that_asks_for_a_password(
    engine: Engine, conversions: Conversions, tmp_path: Path, mode: str
) -> None:
    image = dataclasses.replace(conversions.convert(build_image(IMAGES["deb"])), mode=mode)
    bearer = "if ($http_authorization != 'Bearer token-1') { return 401; }"
    address = gateway()
    auth = tmp_path / "auth"
    auth.mkdir()
    with Nginx(conversions.directory, addresses=[address], extra=bearer) as server:
        url = f"http://{address}:{server.port}"
        image = dataclasses.replace(image, store=url)
        (auth / "http").write_text(f"{url} bearer token-1\n")
        done = image.run(engine, *SUM, options=("-v", f"{auth}:{PLACE}:ro"))
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == image.run_source(engine, *SUM).stdout
        (auth / "http").write_text(f"{url} bearer token-2\n")
        done = image.run(engine, "true", options=("-v", f"{auth}:{PLACE}:ro"))
        assert done.returncode != 0
        assert f"401; the server refuses the credentials of {PLACE}/http, line 1" in done.stderr
        assert "token-2" not in done.stderr + docker("images", "--no-trunc").stdout
