"""What commands do with which kind of store: the table in docs/stores/README.md, tried out."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from store.format.names import pack_name
from store.read.source import open_source
from tests.support.layers import docker_archive, file, tar_of
from tests.support.registries import REPOSITORY
from tests.support.s3server import S3Server, write_credentials
from tests.support.servers import Nginx, Registry
from tests.support.sshd import Sshd

Run = Callable[..., tuple[int, str, str]]
DOCUMENT = Path(__file__).parents[2] / "docs" / "stores" / "README.md"
KINDS = ("a directory", "`http(s)://`", "`docker://`", "`s3://`", "`ssh://`")


def table() -> dict[str, dict[str, bool]]:
    """Return what the document says, by verb and kind."""
    text = DOCUMENT.read_text()
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    head, *rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    assert tuple(head[1:]) == KINDS
    assert {cell for row in rows for cell in row[1:]} <= {"yes", "no"}
    return {
        row[0]: dict(zip(KINDS, [cell == "yes" for cell in row[1:]], strict=True)) for row in rows
    }


@dataclass
class Place:
    """A store of one kind: ``url``, ``root`` where its bytes are, and a container's credentials."""

    url: str
    root: Path
    auth: Path | str = ""


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def place(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Place:
    if kind == "`docker://`":
        registry: Registry = request.getfixturevalue("registry")
        return Place(f"docker://{registry.host_port}/{REPOSITORY}", registry.blobs)
    if kind == "`s3://`":
        s3: S3Server = request.getfixturevalue("s3_server")
        auth = write_credentials(tmp_path / "auth")
        return Place(s3.store_url("a"), s3.bucket / "a", auth)
    if kind == "`ssh://`":
        sshd: Sshd = request.getfixturevalue("sshd")
        monkeypatch.setenv("PATH", f"{sshd.path}:{os.environ['PATH']}")
        return Place(sshd.url_of(tmp_path / "store"), tmp_path / "store", sshd.auth)
    (tmp_path / "store").mkdir()
    if kind == "`http(s)://`":
        serve: Callable[..., Nginx] = request.getfixturevalue("serve")
        return Place(serve(tmp_path / "store").url, tmp_path / "store")
    return Place(str(tmp_path / "store"), tmp_path / "store")


def archive(path: Path, seed: int) -> str:
    path.write_bytes(docker_archive(tar_of(file("a", Random(seed).randbytes(300_000)))))
    return f"docker-archive:{path}"


def damage_a_pack(root: Path) -> None:
    """Turn over the first byte of what begins as a pack does."""
    for path in sorted(root.rglob("*")):
        if path.is_file() and path.read_bytes()[:8] == b"bootfsPK":
            path.write_bytes(b"X" + path.read_bytes()[1:])
            return
    raise AssertionError("there is no pack")


def test_the_table_says_what_commands_do(run: Run, kind: str, place: Place, tmp_path: Path) -> None:
    found: dict[str, bool] = {}

    def tried(verb: str, *arguments: object, words: str = "") -> None:
        """Note whether a command does it; one that does not says so by its exit status."""
        status, out, err = run(*arguments)
        assert status in (0, 2, 4, 14), (verb, err)
        assert "Traceback" not in err
        found[verb] = status == 0 and words in out

    url, other = place.url, tmp_path / "other"
    source, boot = archive(tmp_path / "a.tar", 1), f"oci:{tmp_path}/boot"
    tried("`convert --store`", "convert", source, f"oci:{tmp_path}/first", "--store", url)
    # Where the command cannot, somebody else has written it.
    assert run("convert", source, boot, "--store", other)[0] == 0
    if not found["`convert --store`"]:
        shutil.copytree(other, place.root, dirs_exist_ok=True)
    chunk_index = re.search(r"blake3:[0-9a-f]{64}", run("inspect", boot)[1])
    assert chunk_index, run("inspect", boot)
    (pack,) = (path for path in (other / "packs").rglob("*") if path.is_file())

    with closing(open_source(url, 10, auth=str(place.auth))) as container:
        name = pack_name(bytes.fromhex(pack.name))
        found["`BLOB_STORE`"] = container.fetch(name, 0, 8) == b"bootfsPK"
    differences = "0 differences"
    tried("`check SOURCE DEST`", "check", source, boot, "--store", url, words=differences)
    mirrors = f"{tmp_path}/none|{url}"
    tried("one of several mirrors", "check", source, boot, "--store", mirrors, words=differences)
    tried("`check --store`", "check", "--store", url, words="1 packs, 1 images checked, 0 problems")
    named = ("--image", chunk_index[0])
    tried("`check --store --image`", "check", "--store", url, *named, words="1 packs, 1 images")
    tried("`check --fetchable`", "check", "--fetchable", boot, "--store", url, words="all can be")
    tried("`diff --store`", "diff", boot, boot, "--store", url)
    tried("`export --store`", "export", boot, f"oci:{tmp_path}/back", "--store", url)
    tried("`inspect --store`", "inspect", boot, "--store", url)
    mounted = ("--mount-from", f"{url}-other" if kind == "`docker://`" else url)
    tried(
        "`convert --mount-from`", "convert", source, f"oci:{tmp_path}/m", "--store", url, *mounted
    )

    damaged = tmp_path / "damaged"
    shutil.copytree(other, damaged)
    damage_a_pack(damaged)
    tried("`check --repair` from it", "check", "--store", damaged, "--repair", url)
    damage_a_pack(place.root)
    tried("`check --repair` of it", "check", "--store", url, *named, "--repair", other)
    if not found["`check --repair` of it"]:
        for path in place.root.rglob("*"):
            if path.is_file() and path.read_bytes()[:8] == b"XootfsPK":
                path.write_bytes(pack.read_bytes())

    tried("`collect`", "collect", url, words="0 objects")
    tried("`collect --delete`", "collect", url, "--delete", words="0 objects")
    tried("`forget`", "forget", url, chunk_index[0], words="forgotten")
    assert found == {verb: row[kind] for verb, row in table().items()}
