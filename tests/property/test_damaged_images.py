"""Damage anywhere is refused with an error of ours, or changes nothing that is promised."""

from __future__ import annotations

import copy
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.convert import convert
from converter.images.transports import open_image
from converter.images.view import LayerSource
from converter.layers import merge_layers
from converter.progress import Silent
from converter.reference import parse_reference
from converter.spool import Spool
from converter.tarreader import Budget, iter_entries
from store.errors import BootfsError, UsageError
from store.write.backends import open_backend
from tests.support.layers import (
    compressed,
    config_of,
    digest,
    directory,
    docker_archive,
    file,
    files_tar,
    hardlink,
    oci_files,
    symlink,
    tar_of,
)

LAYER = tar_of(
    directory("d/", xattrs={"user.a": b"\xff"}),
    file("d/" + "n" * 120, b"x" * 700, pax={"mtime": "-1.5"}),
    hardlink("h", "d/" + "n" * 120),
    symlink("s", "t" * 120),
    file("sparse", b"abc", pax={"GNU.sparse.size": "10", "GNU.sparse.map": "0,2,5,1"}),
)
ARCHIVES = [
    ("docker-archive", docker_archive(LAYER)),
    ("docker-archive", docker_archive(LAYER, style="docker25")),
    ("docker-archive", compressed(docker_archive(LAYER), "gzip")),
    ("docker-archive", compressed(docker_archive(LAYER), "zstd")),
    ("oci-archive", files_tar(oci_files(LAYER))),
    ("oci-archive", files_tar(oci_files(LAYER, compression="zstd", nested=True))),
]


def says_what_to_do(error: BootfsError) -> bool:
    """Whether a message goes on after what is wrong: its last part is the next step."""
    return ";" in str(error) or ", copy it again" in str(error) or ", fetch it again" in str(error)


@st.composite
def damages(draw: st.DrawFn, data: bytes) -> bytes:
    """Flip bits of ``data``, or cut it, or put other bytes into it."""
    damaged = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(damaged) - 1))
        damaged[place] ^= 1 << draw(st.integers(0, 7))
    start = draw(st.integers(0, len(damaged) - 1))
    how = draw(st.sampled_from(["flip", "cut", "insert", "drop"]))
    if how == "cut":
        return bytes(damaged[:start])
    if how == "insert":
        return bytes(damaged[:start]) + draw(st.binary(max_size=600)) + bytes(damaged[start:])
    if how == "drop":
        return bytes(damaged[:start]) + bytes(damaged[start + draw(st.integers(1, 600)) :])
    return bytes(damaged)


@given(st.one_of(damages(LAYER), st.binary(max_size=2000)))
def test_any_bytes_as_a_layer(tar: bytes) -> None:
    with Spool() as spool:
        blob = spool.store("tar", tar)
        source = LayerSource(digest(tar), "", "", blob)
        try:
            for entry in iter_entries(blob, Budget()):
                entry.content.pread(0, min(entry.content.size, 1 << 20))
            merge_layers([source], spool)
        except BootfsError as error:
            assert says_what_to_do(error)


@given(st.sampled_from(ARCHIVES).flatmap(lambda a: st.tuples(st.just(a[0]), damages(a[1]))))
def test_a_damaged_archive_gives_the_right_tree_or_none(damaged: tuple[str, bytes]) -> None:
    transport, archive = damaged
    with Spool() as spool:
        path = Path(spool.path) / "x"
        path.write_bytes(archive)
        try:
            view = open_image(parse_reference(f"{transport}:{path}"), spool)
            diff_ids = [layer.diff_id for layer in view.layers]
            root = merge_layers(view.layers, spool)
        except BootfsError as error:
            assert says_what_to_do(error)
            return
        # The list of images of a docker-archive and the index of a layout have no digest.
        assert diff_ids in ([digest(LAYER)], [])
        assert not diff_ids or set(root.children) == {b"d", b"h", b"s", b"sparse"}


CONFIG = config_of(
    [LAYER],
    created="2020-01-01T00:00:00Z",
    history=[{"created_by": "a step"}],
    variant="v1",
    config={
        "Entrypoint": ["/e"],
        "Cmd": ["c"],
        "Env": ["A=b"],
        "ExposedPorts": {"80/tcp": {}},
        "Healthcheck": {"Test": ["NONE"]},
        "Labels": {"a": "b"},
        "OnBuild": ["RUN true"],
        "Shell": ["/bin/sh"],
        "StopSignal": "SIGINT",
        "User": "1",
        "Volumes": {"/v": {}},
        "WorkingDir": "/w",
    },
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def places(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Return the path of every value in a JSON value, itself excepted."""
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    inner = [found for key, item in items for found in places(item, (*path, key))]
    return [*((*path, key) for key, _ in items), *inner]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("configs")


NUMBERS = count()


@given(st.sampled_from(places(CONFIG)), JSON)
@settings(max_examples=60)
def test_any_json_in_a_config_gives_a_boot_image_or_an_error_of_ours(
    scratch: Path, place: tuple[str | int, ...], value: object
) -> None:
    config = copy.deepcopy(CONFIG)
    holder: Any = config
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    number = next(NUMBERS)
    source = scratch / f"{number}.tar"
    source.write_bytes(docker_archive(LAYER, config=config))
    boot = parse_reference(f"oci-archive:{scratch}/boot{number}.tar")
    backend = open_backend(str(scratch / "store"))
    try:
        convert(parse_reference(f"docker-archive:{source}"), boot, backend, 1, "", Silent())
    except BootfsError as error:
        assert says_what_to_do(error)
        assert not Path(boot.name).exists()
        return
    with Spool() as spool:
        assert len(open_image(boot, spool).layers) == 2


@given(st.text(max_size=60))
def test_any_text_is_a_reference_or_a_usage_error(text: str) -> None:
    try:
        reference = parse_reference(text)
    except UsageError:
        return
    assert parse_reference(str(reference)) == reference
