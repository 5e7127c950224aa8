"""What every destination promises: whole or nothing, the same bytes, read back as written."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from converter.images.transports import open_image, write_image
from converter.images.view import Layer
from converter.layers import merge_layers
from converter.reference import Reference, parse_reference
from converter.spool import Spool
from store.errors import (
    DigestMismatch,
    NotFound,
    SizeMismatch,
    UsageError,
)
from store.write.registry import open_repository
from tests.support.layers import directory, file, oci_layout, tar_of
from tests.support.servers import Registry

pytestmark = pytest.mark.usefixtures("own_cache")

LAYERS = [
    Layer.from_plain(tar_of(directory("d/"), file("d/a", b"1" * 100_000))),
    Layer.from_plain(tar_of(file("b", b"2"))),
]
CONFIG = {
    "architecture": "amd64",
    "os": "linux",
    "config": {"Entrypoint": ["/.bootfs/init"], "Labels": {"k": "v"}},
    "x-unknown": [1, {"kept": "\u00e9"}],
    "rootfs": {"type": "layers", "diff_ids": ["stale"]},
}
FILES = ["docker-archive", "oci-archive"]
PATHS = [*FILES, "oci"]
ALL = [*PATHS, "docker"]

Referring = Callable[[str, Path], Reference]


def path_reference(transport: str, tmp_path: Path) -> Reference:
    tag = "bootfs-x:v1" if transport == "docker-archive" else "v1"
    return parse_reference(f"{transport}:{tmp_path}/dest:{tag}")


@pytest.fixture
def reference(request: pytest.FixtureRequest) -> Referring:
    """Gives references of a transport, others for each directory."""

    def refer(transport: str, tmp_path: Path) -> Reference:
        if transport != "docker":
            return path_reference(transport, tmp_path)
        server = request.getfixturevalue("registry")
        name = hashlib.sha256(str(tmp_path).encode()).hexdigest()
        return parse_reference(f"docker://{server.host_port}/{name}:v1")

    return refer


def contents(where: Reference) -> dict[str, bytes]:
    """Return all that can be seen at a reference."""
    if not where.is_registry:
        return every_file(Path(where.name))
    with closing(open_repository(where.repository_url)) as repository:
        return {tag: repository.fetch_manifest(tag).data for tag in repository.iter_tags()}


def every_file(path: Path) -> dict[str, bytes]:
    if path.is_file():
        return {"": path.read_bytes()}
    return {
        str(name.relative_to(path)): name.read_bytes() for name in path.rglob("*") if name.is_file()
    }


@pytest.fixture
def spool() -> Iterator[Spool]:
    with Spool() as opened:
        yield opened


@pytest.mark.parametrize("transport", ALL)
def test_is_read_back_as_written(
    tmp_path: Path, spool: Spool, transport: str, reference: Referring
) -> None:
    where = reference(transport, tmp_path)
    digest = write_image(where, CONFIG, LAYERS)
    view = open_image(where, spool)
    diff_ids = [layer.diff_id for layer in LAYERS]
    assert view.config == CONFIG | {"rootfs": {"type": "layers", "diff_ids": diff_ids}}
    assert view.manifest_digest == digest
    root = merge_layers(view.layers, spool)
    assert set(root.children) == {b"d", b"b"}
    if transport != "docker-archive":
        assert [layer.digest for layer in view.layers] == [layer.digest for layer in LAYERS]


@pytest.mark.parametrize("transport", ALL)
def test_same_input_gives_the_same_bytes(
    tmp_path: Path, transport: str, reference: Referring
) -> None:
    places = []
    for name, config in (("1", CONFIG), ("2", dict(reversed(CONFIG.items())))):
        (tmp_path / name).mkdir()
        where = reference(transport, tmp_path / name)
        places.append((write_image(where, config, LAYERS), contents(where)))
    assert places[0] == places[1]
    assert places[0][1]


@pytest.mark.parametrize("transport", ALL)
def test_layers_may_lie_in_files_and_repeat(
    tmp_path: Path, spool: Spool, transport: str, reference: Referring
) -> None:
    for name, data in (("plain", LAYERS[0].plain), ("stored", LAYERS[0].stored)):
        assert isinstance(data, bytes)
        (tmp_path / name).write_bytes(data)
    layer = replace(LAYERS[0], plain=tmp_path / "plain", stored=tmp_path / "stored")
    where = reference(transport, tmp_path)
    digest = write_image(where, CONFIG, [layer, LAYERS[1], layer])
    assert len(open_image(where, spool).layers) == 3
    (tmp_path / "other").mkdir()
    again = write_image(reference(transport, tmp_path / "other"), CONFIG, [*LAYERS, LAYERS[0]])
    assert digest == again


@pytest.mark.parametrize(
    ("transport", "exists"),
    [*((transport, False) for transport in ALL), ("oci", True), ("docker", True)],
)
def test_failure_leaves_nothing(
    tmp_path: Path, transport: str, exists: bool, reference: Referring
) -> None:
    where = reference(transport, tmp_path)
    if exists:
        write_image(where, CONFIG, [Layer.from_plain(tar_of(file("z")))])
    before = contents(where)
    assert bool(before) == exists
    wrong = f"sha256:{hashlib.sha256(b'other').hexdigest()}"
    bad_digest = replace(LAYERS[1], diff_id=wrong, digest=wrong)
    (tmp_path / "../short").write_bytes(b"short")
    bad_size = replace(LAYERS[1], stored=tmp_path / "../short", plain=tmp_path / "missing")
    for bad in (bad_digest, bad_size):
        with pytest.raises((DigestMismatch, SizeMismatch, NotFound)):
            write_image(where, CONFIG, [LAYERS[0], bad])
        assert contents(where) == before
        assert [name for name in os.listdir(tmp_path) if name != "dest"] == []


@pytest.mark.parametrize("transport", PATHS)
def test_what_is_there_is_not_lost(tmp_path: Path, transport: str) -> None:
    dest = tmp_path / "dest"
    if transport == "oci":
        dest.mkdir()
        (dest / "mine").write_bytes(b"precious")
    else:
        dest.write_bytes(b"precious")
    before = every_file(tmp_path)
    with pytest.raises(UsageError, match="dest"):
        write_image(path_reference(transport, tmp_path), CONFIG, LAYERS)
    assert every_file(tmp_path) == before


@pytest.mark.parametrize("transport", PATHS)
def test_what_is_of_the_wrong_kind_is_refused(tmp_path: Path, transport: str) -> None:
    dest = tmp_path / "dest"
    if transport == "oci":
        dest.write_bytes(b"")
    else:
        dest.mkdir()
    with pytest.raises(UsageError, match="dest"):
        write_image(path_reference(transport, tmp_path), CONFIG, LAYERS)


@pytest.mark.parametrize("transport", PATHS)
def test_empty_file_or_directory_is_filled(tmp_path: Path, transport: str) -> None:
    dest = tmp_path / "dest"
    if transport == "oci":
        dest.mkdir()
    else:
        dest.touch()
    assert write_image(path_reference(transport, tmp_path), CONFIG, LAYERS)


@pytest.mark.parametrize("transport", PATHS)
def test_directory_that_does_not_exist(tmp_path: Path, transport: str) -> None:
    with pytest.raises(NotFound):
        write_image(path_reference(transport, tmp_path / "none"), CONFIG, LAYERS)


@pytest.mark.parametrize("transport", FILES)
def test_file_has_the_users_mode(tmp_path: Path, transport: str) -> None:
    old = os.umask(0o027)
    try:
        write_image(path_reference(transport, tmp_path), CONFIG, LAYERS)
    finally:
        os.umask(old)
    assert (tmp_path / "dest").stat().st_mode & 0o777 == 0o640


def test_layout_is_added_to_and_a_tag_moves(tmp_path: Path, spool: Spool) -> None:
    oci_layout(tmp_path / "dest", tar_of(file("z")), tag="v1")
    index_path = tmp_path / "dest/index.json"
    index = json.loads(index_path.read_bytes())
    index["x-kept"] = 1
    index["manifests"][0]["annotations"]["other"] = "kept"
    index_path.write_text(json.dumps(index))
    old = index["manifests"][0]["digest"]
    new = write_image(path_reference("oci", tmp_path), CONFIG, LAYERS)
    assert write_image(path_reference("oci", tmp_path), CONFIG, LAYERS) == new
    third = write_image(parse_reference(f"oci:{tmp_path}/dest:v2"), CONFIG, LAYERS[:1])
    after = json.loads(index_path.read_bytes())
    assert after["x-kept"] == 1
    assert [entry["digest"] for entry in after["manifests"]] == [old, new, third]
    assert after["manifests"][0]["annotations"] == {"other": "kept"}
    assert open_image(path_reference("oci", tmp_path), spool).manifest_digest == new


def test_blob_with_a_wrong_size_is_replaced(tmp_path: Path, spool: Spool) -> None:
    where = path_reference("oci", tmp_path)
    write_image(where, CONFIG, LAYERS)
    blob = tmp_path / "dest/blobs/sha256" / LAYERS[0].digest[7:]
    blob.write_bytes(b"half")
    write_image(where, CONFIG, LAYERS)
    assert merge_layers(open_image(where, spool).layers, spool).children


def test_a_registrys_tag_moves_and_layers_it_has_are_not_sent(
    tmp_path: Path, spool: Spool, reference: Referring, registry: Registry
) -> None:
    where = reference("docker", tmp_path)
    first = write_image(where, CONFIG, LAYERS)
    second = write_image(where, CONFIG | {"x-unknown": 2}, LAYERS)
    assert open_image(where, spool).manifest_digest == second
    by_digest = parse_reference(f"{str(where).removesuffix(':v1')}@{first}")
    assert open_image(by_digest, spool).config["x-unknown"] == CONFIG["x-unknown"]
    with pytest.raises(UsageError, match="digest"):
        write_image(by_digest, CONFIG, LAYERS)
    sent = [
        line
        for line in registry.output().splitlines()
        if '"PATCH /' in line and where.name.partition("/")[2] in line
    ]
    # Two layers and a config, and then the other config.
    assert len(sent) == 4
