"""What is in an image: every byte counted once, where it came from, what it shares."""

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from converter.bootview import BootView, read_boot_image
from converter.cli import main
from converter.contents import by_directory, by_layer, layer_steps, read_files
from converter.images.transports import open_image
from converter.origins import encode_origins, parse_origins
from converter.reference import parse_reference
from converter.sharing import count_repeats, read_sharing
from converter.spool import Spool
from store.errors import FormatError, IntegrityError, UnsupportedVersion
from store.write.backends.directory import DirectoryBackend
from tests.support.layers import (
    config_of,
    directory,
    docker_archive,
    file,
    hardlink,
    opaque,
    tar_of,
    whiteout,
)
from tests.support.trees import make_file

RANDOM = Random(1)
BASE = tar_of(
    directory("lib/"),
    file("lib/one", RANDOM.randbytes(300_000)),
    file("lib/two", RANDOM.randbytes(5_000)),
    file("lib/gone", RANDOM.randbytes(50_000)),
    file("lib/changed", b"as it was " * 2_000),
    directory("hidden/"),
    file("hidden/below", RANDOM.randbytes(9_000)),
    file("empty", b""),
)
MIDDLE = tar_of(
    whiteout("lib/gone"),
    file("lib/changed", b"as it is now " * 2_000),
    opaque("hidden"),
    file("hidden/above", RANDOM.randbytes(70_000)),
    hardlink("lib/name", "lib/two"),
)
TOP = tar_of(
    directory("opt/"), directory("opt/deep/"), file("opt/deep/file", RANDOM.randbytes(200_000))
)
LAYERS = [BASE, MIDDLE, TOP]
HISTORY = [
    {"created_by": "add the base"},
    {"created_by": "ENV A=b", "empty_layer": True},
    {"created_by": "change it"},
    {"comment": "put something on top"},
]
Convert = Callable[..., BootView]


@pytest.fixture
def convert(tmp_path: Path) -> Convert:
    """Give a function that converts layers and opens the boot image."""

    def call(*layers: bytes, name: str = "b", **fields: object) -> BootView:
        config = config_of(layers, **fields)
        (tmp_path / f"{name}.tar").write_bytes(docker_archive(*layers, config=config))
        arguments = ("convert", f"docker-archive:{tmp_path}/{name}.tar", f"oci:{tmp_path}/{name}")
        assert main([*arguments, "--store", str(tmp_path / "store"), "--level", "1"]) == 0
        with Spool() as spool:
            return read_boot_image(
                open_image(parse_reference(f"oci:{tmp_path}/{name}"), spool), spool
            )

    return call


def test_each_file_is_of_the_layer_that_its_bytes_came_from(convert: Convert) -> None:
    files = read_files(convert(*LAYERS))
    assert {file.path: file.layer for file in files} == {
        b"/hidden/above": 1,
        b"/lib/changed": 1,
        b"/lib/name": 0,
        b"/lib/one": 0,
        b"/opt/deep/file": 2,
    }


def test_the_stored_bytes_of_all_files_are_those_of_all_chunks(convert: Convert) -> None:
    view = convert(*LAYERS, tar_of(file("again", RANDOM.randbytes(1)), file("more", BASE[:9_999])))
    files = read_files(view)
    assert sum(file.stored for file in files) == sum(view.index.stored_sizes)
    assert all(file.stored > 0 for file in files)


def test_what_shares_a_chunk_shares_its_stored_bytes(convert: Convert) -> None:
    data = RANDOM.randbytes(140_000)
    view = convert(tar_of(file("a", data), file("b", data), file("c", RANDOM.randbytes(140_000))))
    first, second, other = (file.stored for file in read_files(view))
    assert abs(first - second) <= view.index.chunk_count
    assert other * 0.99 < first + second < other * 1.01
    repeats = count_repeats(view.index)
    assert repeats.places == 2 * repeats.chunks > 0
    assert 140_000 <= repeats.plain_saved <= 140_000 + 4096
    assert repeats.stored_saved == first + second


def test_holes_are_plain_and_not_stored(convert: Convert) -> None:
    view = convert(tar_of(file("data", RANDOM.randbytes(5_000)), file("zeros", bytes(1 << 20))))
    stored = {file.path: file.stored for file in read_files(view)}
    assert 0 < stored[b"/zeros"] < 5_000 < stored[b"/data"]


def test_a_directory_has_all_below_it(convert: Convert) -> None:
    files = read_files(convert(*LAYERS))
    amounts = by_directory(files, 1)
    assert list(amounts) == [b"/", b"/hidden", b"/lib", b"/opt"]
    assert amounts[b"/"].files == 5
    assert amounts[b"/opt"].plain == 200_000
    assert amounts[b"/"].stored == sum(amounts[p].stored for p in (b"/hidden", b"/lib", b"/opt"))
    assert list(by_directory(files, 0)) == [b"/"]
    assert by_directory(files, 9)[b"/opt/deep"] == amounts[b"/opt"]


def test_layers_have_their_step_of_the_history(convert: Convert) -> None:
    view = convert(*LAYERS, history=HISTORY)
    layers = by_layer(read_files(view), view)
    assert [layer.created_by for layer in layers] == [
        "add the base", "change it", "put something on top"
    ]  # fmt: skip
    assert [layer.amount.files for layer in layers] == [2, 2, 1]
    assert layers[0].amount.plain == 305_000


@pytest.mark.parametrize("history", [None, "x", [], [{"created_by": "one"}] * 3, [1, 2]])
def test_a_history_of_another_number_of_steps_names_no_layer(history: object) -> None:
    assert layer_steps(history, 2) == ["", ""]


def test_origins_are_small_and_come_back() -> None:
    layers = [0] * 5_000 + [3] * 7 + [0] * 2_000
    nodes = [make_file(b"x") for _ in layers]
    for node, layer in zip(nodes, layers, strict=True):
        node.layer = layer
    encoded = encode_origins(nodes)
    assert encoded == b'{"runs":[0,5000,3,7,0,2000],"version":1}'
    assert parse_origins(encoded, len(layers)) == layers
    assert parse_origins(encode_origins([]), 0) == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'{"version":1}',
        b'{"version":1,"runs":[0]}',
        b'{"version":1,"runs":[0,3]}',
        b'{"version":1,"runs":[-1,2]}',
        b'{"version":1,"runs":[0,-1,0,3]}',
        b'{"version":1,"runs":[0.5,2]}',
        b'{"version":1,"runs":[true,2]}',
    ],
)
def test_damaged_origins_are_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_origins(data, 2)


def test_origins_of_another_version_are_refused() -> None:
    with pytest.raises(UnsupportedVersion):
        parse_origins(b'{"version":2,"runs":[0,2]}', 2)


def test_an_image_shares_what_others_of_the_store_hold(convert: Convert, tmp_path: Path) -> None:
    first = convert(*LAYERS[:2], name="a")
    second = convert(*LAYERS, name="b")
    third = convert(tar_of(file("x", RANDOM.randbytes(100_000))), name="c")
    with closing(DirectoryBackend(str(tmp_path / "store"))) as backend:
        sharing = read_sharing(backend, first.config.chunk_index, first.index)
        assert sharing.shared.chunks == first.index.chunk_count
        assert sharing.shared.stored == sum(first.index.stored_sizes)
        others = [second.config.chunk_index, third.config.chunk_index]
        assert list(sharing.images) == others
        assert sharing.images[others[1]].chunks == 0
        of_second = read_sharing(backend, second.config.chunk_index, second.index)
        assert of_second.shared == sharing.shared
        index = tmp_path / "store" / "indexes" / others[0].hex()
        encoded = index.read_bytes()
        index.write_bytes(encoded[:-1] + bytes([encoded[-1] ^ 1]))
        with pytest.raises(IntegrityError, match="says what is damaged"):
            read_sharing(backend, first.config.chunk_index, first.index)


def test_inspect_shows_layers_directories_and_sharing(
    convert: Convert, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    convert(*LAYERS[:2], name="a")
    convert(*LAYERS, history=HISTORY)
    capsys.readouterr()
    command = ["inspect", f"oci:{tmp_path}/b", "--store", str(tmp_path / "store"), "--depth", "2"]
    assert main(command) == 0
    out = capsys.readouterr().out
    for words in ("add the base", "/opt/deep\n", "are shared with other images of the store"):
        assert words in out
    assert main([*command, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [layer["files"] for layer in facts["layers"]] == [2, 2, 1]
    assert facts["directories"][0] == {
        "path": "/",
        "files": 5,
        "plain": sum(layer["plain"] for layer in facts["layers"]),
        "stored": facts["stored_bytes"],
    }
    assert len(facts["sharing"]["images"]) == 1
    assert facts["sharing"]["stored"] < facts["stored_bytes"]


@pytest.mark.parametrize(
    ("store", "code"), [("http://host/store", 2), ("nowhere", 10), ("s3-like://bucket", 2)]
)
def test_a_store_that_cannot_be_listed_is_refused(
    convert: Convert, tmp_path: Path, store: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    convert(*LAYERS)
    where = store if "://" in store else str(tmp_path / store)
    assert main(["inspect", f"oci:{tmp_path}/b", "--store", where]) == code
    assert where in capsys.readouterr().err
