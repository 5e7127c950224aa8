"""Archives and layouts as the tools of the field write them, whole and damaged."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from converter.images.documents import parse_config, parse_json
from converter.images.transports import list_images, open_image
from converter.images.view import ImageView
from converter.layers import merge_layers
from converter.platforms import OWN_OR_ONLY, Listed, Platform, platform_of_machine
from converter.reference import parse_reference
from converter.spool import Spool
from store.errors import (
    BootfsError,
    DigestMismatch,
    FormatError,
    ImageNotFound,
    IntegrityError,
    NotFound,
    SizeMismatch,
    UsageError,
)
from tests.support.layers import (
    compressed,
    config_of,
    digest,
    docker_archive,
    file,
    files_tar,
    oci_files,
    oci_layout,
    tar_of,
)

LAYERS = (tar_of(file("a", b"1")), tar_of(file("b", b"2")), tar_of(file("a", b"1")))
OTHER = {"x-unknown": {"kept": [1, None, "\u00e9"]}}


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with Spool(tmp_path) as opened:
        yield opened


def opened(text: str, spool: Spool) -> ImageView:
    return open_image(parse_reference(text), spool)


def check_whole(view: ImageView, spool: Spool) -> None:
    assert [layer.diff_id for layer in view.layers] == [digest(layer) for layer in LAYERS]
    assert set(merge_layers(view.layers, spool).children) == {b"a", b"b"}


@pytest.mark.parametrize("style", ["docker20", "docker25", "skopeo"])
@pytest.mark.parametrize("how", ["none", "gzip", "zstd"])
def test_docker_archives(tmp_path: Path, spool: Spool, style: str, how: str) -> None:
    path = tmp_path / "x.tar"
    archive = docker_archive(*LAYERS, style=style, config=config_of(LAYERS, **OTHER))
    path.write_bytes(compressed(archive, how))
    view = opened(f"docker-archive:{path}", spool)
    check_whole(view, spool)
    assert view.config == config_of(LAYERS, **OTHER)
    assert view.manifest_digest == digest(json.dumps(view.config).encode())
    assert view.name == f"docker-archive:{path}"
    stated = [digest(layer) for layer in LAYERS] if style == "docker25" else ["", "", ""]
    assert [layer.digest for layer in view.layers] == stated


def test_image_of_an_archive_is_chosen_by_name(tmp_path: Path, spool: Spool) -> None:
    path = tmp_path / "x.tar"
    configs = [json.dumps(config_of([], n=number)).encode() for number in range(2)]
    manifest = [
        {"Config": f"{number}.json", "RepoTags": [f"name:{number}"], "Layers": []}
        for number in range(2)
    ]
    files = {
        "0.json": configs[0],
        "1.json": configs[1],
        "manifest.json": json.dumps(manifest).encode(),
    }
    path.write_bytes(files_tar(files))
    view = opened(f"docker-archive:{path}:docker.io/library/name:1", spool)
    assert view.config["n"] == 1
    with pytest.raises(UsageError, match="name:0, name:1"):
        opened(f"docker-archive:{path}", spool)
    with pytest.raises(ImageNotFound, match="name:0, name:1"):
        opened(f"docker-archive:{path}:name:2", spool)


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
@pytest.mark.parametrize("nested", [False, True])
def test_oci_layouts_and_archives(
    tmp_path: Path, spool: Spool, compression: str, nested: bool
) -> None:
    options: dict[str, Any] = {
        "compression": compression,
        "nested": nested,
        "config": config_of(LAYERS, **OTHER),
        "tag": "v1",
    }
    layout = oci_layout(tmp_path / "layout", *LAYERS, **options)
    for how in ("none", "gzip"):
        archive = tmp_path / f"{how}.tar"
        archive.write_bytes(compressed(files_tar(oci_files(*LAYERS, **options)), how))
        for text in (f"oci:{layout}", f"oci:{layout}:v1", f"oci-archive:{archive}:v1"):
            view = opened(text, spool)
            check_whole(view, spool)
            assert view.config == config_of(LAYERS, **OTHER)
            stored = (layout / "blobs/sha256" / view.manifest_digest[7:]).read_bytes()
            assert "layers" in json.loads(stored)
            with pytest.raises(ImageNotFound, match="it holds v1"):
                opened(text.removesuffix(":v1") + ":v2", spool)


def test_platform_that_is_not_there(tmp_path: Path, spool: Spool) -> None:
    layout = oci_layout(tmp_path / "layout", *LAYERS, nested=True)
    index = json.loads((layout / "index.json").read_bytes())
    path = layout / "blobs/sha256" / index["manifests"][0]["digest"][7:]
    data = path.read_bytes().replace(b"amd64", b"mips0")
    (layout / "blobs/sha256" / digest(data)[7:]).write_bytes(data)
    index["manifests"][0]["digest"] = digest(data)
    (layout / "index.json").write_text(json.dumps(index))
    with pytest.raises(ImageNotFound, match="linux/s390x, linux/mips0"):
        opened(f"oci:{layout}", spool)


@pytest.mark.parametrize("transport", ["oci", "oci-archive"])
def test_of_an_index_the_platform_that_is_wanted(
    tmp_path: Path, spool: Spool, transport: str
) -> None:
    options: dict[str, Any] = {"nested": True, "config": config_of(LAYERS)}
    path = oci_layout(tmp_path / "layout", *LAYERS, **options)
    if transport == "oci-archive":
        path = tmp_path / "x.tar"
        path.write_bytes(files_tar(oci_files(*LAYERS, **options)))
    reference = parse_reference(f"{transport}:{path}")
    check_whole(open_image(reference, spool, Platform("linux", "amd64")), spool)
    with pytest.raises(FormatError, match="config"):
        # The made-up one of the other platform.
        open_image(reference, spool, Platform("linux", "s390x"))
    with pytest.raises(ImageNotFound, match=r"no image for linux/arm64.*linux/s390x, linux/amd64"):
        open_image(reference, spool, Platform("linux", "arm64"))
    # An index below one is laid out flat: this one's tag names an index in index.json.
    listed = list_images(reference, spool)
    assert listed is not None
    assert [str(one) for one in listed] == ["linux/s390x", "linux/amd64"]
    check_whole(open_image(reference, spool, listed[1]), spool)
    gone = Listed((digest(b""),), listed[1].stated)
    with pytest.raises(ImageNotFound, match="is not there any more"):
        open_image(reference, spool, gone)
    only = OWN_OR_ONLY if platform_of_machine().architecture != "arm64" else listed[1]
    check_whole(open_image(reference, spool, only), spool)


def test_an_image_alone_must_be_of_the_platform(tmp_path: Path, spool: Spool) -> None:
    (tmp_path / "x.tar").write_bytes(docker_archive(*LAYERS))
    oci_layout(tmp_path / "layout", *LAYERS)
    for text in (f"docker-archive:{tmp_path}/x.tar", f"oci:{tmp_path}/layout"):
        assert list_images(parse_reference(text), spool) is None
        for wanted in (OWN_OR_ONLY, Platform("linux", "amd64"), Platform("linux", "amd64", "v3")):
            check_whole(open_image(parse_reference(text), spool, wanted), spool)
        with pytest.raises(ImageNotFound, match="linux/amd64, not for linux/arm64"):
            open_image(parse_reference(text), spool, Platform("linux", "arm64"))


def test_two_images_without_a_tag_need_a_choice(tmp_path: Path, spool: Spool) -> None:
    layout = oci_layout(tmp_path / "layout", *LAYERS, tag="v1")
    index = json.loads((layout / "index.json").read_bytes())
    index["manifests"] *= 2
    (layout / "index.json").write_text(json.dumps(index))
    with pytest.raises(UsageError, match="v1"):
        opened(f"oci:{layout}", spool)
    index["manifests"] = []
    (layout / "index.json").write_text(json.dumps(index))
    with pytest.raises(ImageNotFound, match="no image"):
        opened(f"oci:{layout}", spool)


@pytest.mark.parametrize("transport", ["docker-archive", "oci", "oci-archive"])
def test_nothing_there(tmp_path: Path, spool: Spool, transport: str) -> None:
    with pytest.raises(NotFound, match="nowhere"):
        opened(f"{transport}:{tmp_path}/nowhere", spool)


@pytest.mark.parametrize("transport", ["docker-archive", "oci-archive"])
@pytest.mark.parametrize("data", [b"", b"x", b"x" * 5000, files_tar({"a": b""}), bytes(1024)])
def test_no_archive(tmp_path: Path, spool: Spool, transport: str, data: bytes) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(FormatError):
        opened(f"{transport}:{tmp_path}/x", spool)


def test_every_blob_is_verified(tmp_path: Path, spool: Spool) -> None:
    layout = oci_layout(tmp_path / "layout", *LAYERS)
    for path in sorted((layout / "blobs/sha256").iterdir()):
        data = path.read_bytes()
        damaged = bytearray(data)
        damaged[len(data) // 2] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(DigestMismatch):
            merge_layers(opened(f"oci:{layout}", spool).layers, spool)
        path.write_bytes(data[:-1])
        with pytest.raises(SizeMismatch):
            opened(f"oci:{layout}", spool)
        path.unlink()
        with pytest.raises(FormatError, match="missing"):
            opened(f"oci:{layout}", spool)
        path.write_bytes(data)
    check_whole(opened(f"oci:{layout}", spool), spool)


@pytest.mark.parametrize("style", ["docker20", "docker25", "skopeo"])
def test_docker_archive_cut_at_every_block(tmp_path: Path, spool: Spool, style: str) -> None:
    archive = docker_archive(*LAYERS[:1], style=style)
    path = tmp_path / "x.tar"
    refused = 0
    for end in range(0, len(archive), 512):
        path.write_bytes(archive[:end])
        try:
            view = opened(f"docker-archive:{path}", spool)
        except BootfsError:
            refused += 1
            continue
        assert set(merge_layers(view.layers, spool).children) == {b"a"}
    assert refused > 5


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m[0].pop("Config"),
        lambda m: m[0].update(Config=3),
        lambda m: m[0].update(Config="missing.json"),
        lambda m: m[0].update(Layers=["missing"] * 3),
        lambda m: m[0]["Layers"].pop(),
        lambda m: m[0].update(Layers="x"),
        lambda m: m[0].update(RepoTags=7),
        lambda m: m.insert(0, 3),
    ],
)
def test_manifests_that_do_not_fit(tmp_path: Path, spool: Spool, change: Any) -> None:
    raw = json.dumps(config_of(LAYERS)).encode()
    manifest: list[Any] = [{"Config": "c", "RepoTags": None, "Layers": ["0", "1", "0"]}]
    change(manifest)
    files = {
        "0": LAYERS[0],
        "1": LAYERS[1],
        "c": raw,
        "manifest.json": json.dumps(manifest).encode(),
    }
    (tmp_path / "x").write_bytes(files_tar(files))
    with pytest.raises(FormatError):
        opened(f"docker-archive:{tmp_path}/x", spool)


@pytest.mark.parametrize("text", [b"", b"{", b"[" * 100_000, b"\xff", b"[NaN]", b'"x"', b"[3]"])
def test_manifest_that_is_no_list_of_images(tmp_path: Path, spool: Spool, text: bytes) -> None:
    (tmp_path / "x").write_bytes(files_tar({"manifest.json": text}))
    with pytest.raises(FormatError):
        opened(f"docker-archive:{tmp_path}/x", spool)


def test_links_of_an_archive_that_turn_in_circles(tmp_path: Path, spool: Spool) -> None:
    links = {"manifest.json": "b", "b": "manifest.json"}
    (tmp_path / "x").write_bytes(files_tar({}, links))
    with pytest.raises(FormatError, match=r"no manifest\.json"):
        opened(f"docker-archive:{tmp_path}/x", spool)


@pytest.mark.parametrize(
    "value", ['{"a":' * 200 + "1" + "}" * 200, "[" * 100_000, "1e999", "NaN", "9" * 5000]
)
def test_json_that_could_not_be_written_again_is_refused(value: str) -> None:
    with pytest.raises(FormatError, match="not JSON"):
        parse_json(f'{{"x": {value}}}'.encode(), "a document")


@pytest.mark.parametrize(
    ("text", "understood"),
    [
        (b'"\xff"', "\N{REPLACEMENT CHARACTER}"),
        (b'"a\xed\xb3\xbf"', "a" + 3 * "\N{REPLACEMENT CHARACTER}"),
        (b'"\xe2\x82"', 2 * "\N{REPLACEMENT CHARACTER}"),
        (b'"\\udcff"', "\N{REPLACEMENT CHARACTER}"),
        (b'"\\ud800z"', "\N{REPLACEMENT CHARACTER}z"),
        (b'"\\ud83d\\ude00\xc3\xa9"', "\N{GRINNING FACE}\N{LATIN SMALL LETTER E WITH ACUTE}"),
    ],
)
def test_what_is_no_text_in_a_config_is_replaced_as_engines_do(
    text: bytes, understood: str
) -> None:
    config = parse_config(b'{"config": {"Cmd": [' + text + b"], " + text + b": {}}}", "a config")
    assert config == {"config": {"Cmd": [understood], understood: {}}}


@pytest.mark.parametrize("transport", ["oci", "oci-archive", "docker-archive"])
def test_any_bit_of_the_listing_that_flips_is_damage_or_changes_nothing(
    tmp_path: Path, spool: Spool, transport: str
) -> None:
    """Of what no digest covers: never another image, and never "no such image"."""
    if transport == "docker-archive":
        path, name = tmp_path / "image", "manifest.json"
        path.write_bytes(docker_archive(*LAYERS))
    elif transport == "oci":
        path, name = oci_layout(tmp_path / "image", *LAYERS, tag="v1"), "index.json"
    else:
        path, name = tmp_path / "image", "index.json"
        path.write_bytes(files_tar(oci_files(*LAYERS, tag="v1")))
    file = path / name if transport == "oci" else path
    whole = file.read_bytes()
    start, end = 0, len(whole)
    if transport != "oci":
        with tarfile.open(path) as tar:
            start = tar.getmember(name).offset_data
            end = start + tar.getmember(name).size
    expected = opened(f"{transport}:{path}", spool).manifest_digest
    refused = 0
    for bit in range(8 * start, 8 * end):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        with Spool(tmp_path) as inner:
            try:
                assert opened(f"{transport}:{path}", inner).manifest_digest == expected
            except (FormatError, IntegrityError) as error:
                assert str(path) in str(error)
                refused += 1
    assert refused > 4 * (end - start)


def test_an_index_without_its_list_is_damaged(tmp_path: Path, spool: Spool) -> None:
    layout = oci_layout(tmp_path / "layout", *LAYERS)
    index = (layout / "index.json").read_bytes()
    (layout / "index.json").write_bytes(index.replace(b'"manifests"', b'"manifestr"'))
    with pytest.raises(FormatError, match=r"layout: index\.json: .*manifests.*copy it again"):
        opened(f"oci:{layout}", spool)
