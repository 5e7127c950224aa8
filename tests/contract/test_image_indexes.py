"""Image indexes converted entry by entry, from and into layouts and registries."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from converter import imageindex
from store.format.trace import ENTRY, encode_trace_head
from tests.support.elves import make_elf
from tests.support.indexes import UNKNOWN, Index, read_index
from tests.support.layers import file, tar_of
from tests.support.registries import REPOSITORY
from tests.support.registrystores import (
    blobs_of,
    collect_garbage,
    manifest_of,
    problems_in,
    tags_of,
)
from tests.support.require import require
from tests.support.servers import Registry
from tests.support.wholestores import files_of

Run = Callable[..., tuple[int, str, str]]

pytestmark = pytest.mark.usefixtures("own_cache")

SHARED = file("shared", Random(1).randbytes(150_000))
BOTH = ("linux/amd64", "linux/arm64")


def layer_of(platform: str) -> bytes:
    """Return a layer with a file of its own and one that all have."""
    return tar_of(SHARED, file("own", Random(platform).randbytes(50_000)))


@pytest.fixture
def index() -> Index:
    """Give an index of an image for each architecture, with attestations."""
    made = Index()
    for platform in ("linux/arm64/v8", "linux/amd64"):
        made.add(platform, layer_of(platform))
        made.add_attestation()
    return made


@pytest.fixture
def url(registry: Registry) -> str:
    return f"docker://{registry.host_port}/{REPOSITORY}"


def check_each(run: Run, source: str, boot: str, store: object) -> None:
    """Compare every boot image of an index with its source."""
    for platform in BOTH:
        status, out, err = run("check", source, boot, "--store", store, "--platform", platform)
        assert (status, err) == (0, "") and "0 differences" in out
        assert json.loads(run("inspect", boot, "--json", "--platform", platform)[1])


@pytest.mark.parametrize("kind", ["oci", "oci-archive"])
def test_a_layout_gets_one_index_of_all_boot_images(
    run: Run, index: Index, tmp_path: Path, kind: str
) -> None:
    source, store = index.write(tmp_path / "s"), tmp_path / "store"
    boot = f"{kind}:{tmp_path}/b:v1"
    convert = ("convert", source, boot, "--store", store, "--platform", "all", "--json")
    status, out, err = run(*convert)
    said = json.loads(out)
    # Attestations are no images, but they are named.
    assert status == 0 and err.count("left out: it is no image") == 2
    assert [one["platform"] for one in said["images"]] == ["linux/arm64/v8", "linux/amd64"]
    first, second = said["images"]
    # What both have is stored once.
    assert first["new_stored_bytes"] > 200_000
    assert 50_000 < second["new_stored_bytes"] < 60_000
    check_each(run, source, boot, store)
    if kind == "oci":
        entries = read_index(tmp_path / "b")
        assert [entry["platform"] for entry in entries] == [
            {"os": "linux", "architecture": "arm64", "variant": "v8"},
            {"os": "linux", "architecture": "amd64"},
        ]
        assert [one["boot_image"]["digest"] for one in said["images"]] == [
            entry["digest"] for entry in entries
        ]
    before = files_of(store)
    status, out, _ = run(*convert)
    again = json.loads(out)
    assert status == 0 and all(one["unchanged"] for one in again["images"])
    assert again["digest"] == said["digest"] and files_of(store) == before
    if kind == "oci":
        # One of them is something else than all of them.
        alone = ("convert", source, f"oci:{tmp_path}/b:one", "--store", store)
        assert run(*alone)[0] == 0 and "nothing to do" in run(*alone)[1]
        onto = ("convert", source, boot, "--store", store)
        shutil.copytree(tmp_path / "b", tmp_path / "kept")
        assert "nothing to do" not in run(*onto)[1] and "nothing to do" in run(*onto)[1]
        shutil.rmtree(tmp_path / "b")
        (tmp_path / "kept").rename(tmp_path / "b")
    if kind == "oci":
        status, out, _ = run(*convert, "--force")
        assert json.loads(out)["digest"] == said["digest"]
        assert not any(one["unchanged"] for one in json.loads(out)["images"])
        # Another image of it makes another index; what was there is kept.
        shutil.rmtree(tmp_path / "s")
        index.add("linux/amd64/v3", layer_of("v3"))
        index.write(tmp_path / "s")
        status, out, _ = run(*convert)
        assert [one["unchanged"] for one in json.loads(out)["images"]] == [False] * 3
        assert read_index(tmp_path / "b")[2]["platform"]["variant"] == "v3"


def test_each_boot_image_has_its_runtime_and_keeps_its_platform(
    run: Run, index: Index, tmp_path: Path
) -> None:
    source = index.write(tmp_path / "s")
    boot = f"oci:{tmp_path}/b:v1"
    assert run("convert", source, boot, "--store", tmp_path / "t", "--platform", "all")[0] == 0
    blobs = tmp_path / "b/blobs/sha256"
    runtimes = []
    for entry in read_index(tmp_path / "b"):
        manifest = json.loads((blobs / entry["digest"][7:]).read_bytes())
        config = json.loads((blobs / manifest["config"]["digest"][7:]).read_bytes())
        assert config["architecture"] == entry["platform"]["architecture"]
        runtimes.append(manifest["layers"][0]["digest"])
    assert len(set(runtimes)) == 2
    # One of them alone, into what holds but one, and turned back.
    for platform in BOTH:
        name = platform.rpartition("/")[2]
        alone = f"docker-archive:{tmp_path}/{name}.tar"
        options = ("--store", tmp_path / "t", "--platform", platform)
        status, out, _ = run("convert", source, alone, *options)
        assert status == 0 and f"{name}.tar: " in out
        assert run("check", source, alone, *options)[0] == 0
        assert run("export", boot, f"oci:{tmp_path}/{name}", *options)[0] == 0
        found = json.loads(run("inspect", alone, "--json")[1])
        assert found["source"] == "oci:s:v1"


def test_named_platforms_and_those_alone(run: Run, index: Index, tmp_path: Path) -> None:
    index.add("linux/s390x", layer_of("s390x"))
    source, options = index.write(tmp_path / "s"), ("--store", tmp_path / "t")
    named = ("--platform", "linux/amd64,linux/arm64")
    status, _, err = run("convert", source, f"oci:{tmp_path}/b:v1", *options, *named)
    # Of others nothing is said: they are not wanted.
    assert (status, err) == (0, "") and len(read_index(tmp_path / "b")) == 2
    boot = f"oci:{tmp_path}/b:v2"
    status, out, err = run("convert", source, boot, *options, "--platform", "all")
    assert status == 3 and "linux/s390x left out: there is no runtime layer for it" in err
    assert "2 platforms" in out and len(read_index(tmp_path / "b", "v2")) == 2
    for wish, code, said in (
        ("linux/amd64,linux/riscv64", 10, "no image for linux/riscv64"),
        ("linux/amd64,linux/s390x", 15, "'s390x'"),
        ("linux/amd64,all", 2, "or all"),
    ):
        missing = f"oci:{tmp_path}/none:v1"
        status, _, err = run("convert", source, missing, *options, "--platform", wish)
        assert status == code and said in err and not (tmp_path / "none").exists()


@pytest.mark.parametrize("wish", ["all", "linux/amd64,linux/arm64"])
@pytest.mark.parametrize("kind", ["docker-archive", "docker-daemon"])
def test_what_holds_one_image_says_what_to_do(
    run: Run, index: Index, tmp_path: Path, kind: str, wish: str
) -> None:
    source = index.write(tmp_path / "s")
    boot = f"{kind}:{tmp_path}/b.tar" if kind == "docker-archive" else "docker-daemon:bootfs-none"
    status, _, err = run("convert", source, boot, "--store", tmp_path / "t", "--platform", wish)
    assert status == 2 and "holds one image" in err and "--platform" in err and "docker://" in err
    assert not (tmp_path / "t").exists() and not (tmp_path / "b.tar").exists()


def test_nested_and_unstated_entries_are_found(run: Run, tmp_path: Path) -> None:
    index = Index()
    index.add("linux/arm64", layer_of("arm64"), stated=False)
    index.nest({"os": "linux", "architecture": "arm64"})
    index.add("linux/amd64", layer_of("amd64"), stated=False)
    index.nest()
    source, boot = index.write(tmp_path / "s"), f"oci:{tmp_path}/b:v1"
    options = ("--store", tmp_path / "t", "--platform", "all")
    assert run("convert", source, boot, *options)[0] == 0
    found = [entry["platform"]["architecture"] for entry in read_index(tmp_path / "b")]
    assert found == ["arm64", "amd64"]
    for _ in range(8):
        index.nest()
    status, _, err = run("convert", index.write(tmp_path / "deep"), boot, *options)
    assert status == 12 and "nested more than" in err


def damage_size(index: Index) -> None:
    index.entries[-1]["size"] += 1


def damage_digest(index: Index) -> None:
    digest = index.entries[-1]["digest"]
    index.manifests[digest] += b" "
    index.entries[-1]["size"] += 1


def lose_manifest(index: Index) -> None:
    del index.manifests[index.entries[-1]["digest"]]


def state_another(index: Index) -> None:
    index.entries[-1]["platform"] = {"os": "linux", "architecture": "amd64", "variant": "v2"}


def damage_layer(index: Index) -> None:
    manifest = json.loads(index.manifests[index.entries[-1]["digest"]])
    index.blobs[manifest["layers"][0]["digest"]] += b"more"


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (damage_size, 11),
        (damage_digest, 11),
        (damage_layer, 11),
        (lose_manifest, 12),
        (state_another, 15),
    ],
)
def test_a_damaged_entry_leaves_nothing_visible(
    run: Run, tmp_path: Path, damage: Callable[[Index], None], code: int
) -> None:
    index = Index()
    index.add("linux/amd64", layer_of("amd64"))
    index.add("linux/arm64", layer_of("arm64"))
    damage(index)
    source, store = index.write(tmp_path / "s"), tmp_path / "t"
    status, out, err = run(
        *("convert", source, f"oci:{tmp_path}/b:v1", "--store", store, "--platform", "all")
    )
    assert (status, out) == (code, "") and err.startswith("bootfs: ")
    # The first image's packs are there, and nobody refers to them.
    assert not (tmp_path / "b").exists() and not list(store.glob("manifests/*"))


def test_two_of_one_platform_and_nothing_for_us(run: Run, tmp_path: Path) -> None:
    index = Index()
    index.add("linux/amd64", layer_of("amd64"))
    index.add("linux/arm64", layer_of("arm64"))
    second = index.add("linux/arm64/v8", layer_of("other"))
    options = ("--store", tmp_path / "t", "--platform", "all")
    source = index.write(tmp_path / "s")
    status, _, err = run("convert", source, f"oci:{tmp_path}/b:v1", *options)
    assert status == 3 and f"linux/arm64/v8 {second['digest']} left out: an earlier entry" in err
    nothing = Index()
    nothing.add("linux/s390x", layer_of("s390x"))
    nothing.add_attestation()
    source = nothing.write(tmp_path / "n")
    status, _, err = run("convert", source, f"oci:{tmp_path}/c:v1", *options)
    assert status == 10 and "the index has linux/s390x; choose" in err


def test_records_serve_each_image_of_an_index_and_change_nothing(
    run: Run, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = index.write(tmp_path / "s")

    def convert(to: str, records: object, *options: str) -> list[dict[str, Any]]:
        monkeypatch.setenv("BOOTFS_RECORDS", str(records))
        (tmp_path / to).mkdir(exist_ok=True)
        given = ("--store", tmp_path / to / "store", "--platform", "all", "--json", *options)
        status, out, _ = run("convert", source, f"oci:{tmp_path}/{to}/b:v1", *given)
        assert status == 0
        images: list[dict[str, Any]] = json.loads(out)["images"]
        return images

    records = tmp_path / "records"
    for image in convert("with", records):
        assert (image["unread_layers"], image["known_bytes"]) == (0, 0)
    for image in convert("with", records, "--force"):
        assert image["unread_layers"] == 1 and image["new_chunks"] == 0
        assert image["known_bytes"] == image["plain_bytes"] > 0
    for image in convert("with", records, "--force", "--read-all"):
        assert (image["unread_layers"], image["known_bytes"]) == (0, 0)
    convert("without", "none")
    assert files_of(tmp_path / "with") == files_of(tmp_path / "without")


@pytest.mark.parametrize("kind", ["layout", "joined", "apart"])
def test_each_boot_image_gets_a_first_profile_in_every_store(
    run: Run, registry: Registry, url: str, tmp_path: Path, kind: str
) -> None:
    made = Index()
    for number, platform in enumerate(BOTH, 1):
        tool = file("tool", make_elf(text=number << 16), mode=0o755)
        made.add(platform, tar_of(tool), command=["/tool"])
    source = made.write(tmp_path / "s")
    boot, store = {
        "layout": (f"oci:{tmp_path}/b:v1", str(tmp_path / "t")),
        "joined": (f"{url}:v1", url),
        "apart": (f"{url}-lazy:v1", url),
    }[kind]
    convert = ("convert", source, boot, "--store", store, "--platform", "all", "--json")
    for image in json.loads(run(*convert, "--no-profile")[1])["images"]:
        assert image["profile"] is None
    status, out, err = run(*convert, "--force")
    assert status == 0 and "no profile" not in err
    for image in json.loads(out)["images"]:
        assert image["profile"]["problem"] == "" and image["profile"]["chunks"] > 0
    for image in json.loads(run(*convert, "--force")[1])["images"]:
        assert image["profile"] is None  # there is one


def test_a_failure_at_the_end_leaves_a_store_to_go_on_with(
    run: Run, index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    source, boot = index.write(tmp_path / "s"), f"oci:{tmp_path}/b:v1"
    convert = ("convert", source, boot, "--store", tmp_path / "t", "--platform", "all", "--json")
    with monkeypatch.context() as patched:
        patched.setattr(imageindex, "write_index", interrupt)
        assert run(*convert)[0] == 130
    assert not (tmp_path / "b").exists()
    status, out, _ = run(*convert)
    assert status == 0 and [one["new_chunks"] for one in json.loads(out)["images"]] == [0, 0]


def test_a_directory_store_forgets_all_of_an_index(run: Run, index: Index, tmp_path: Path) -> None:
    source, boot, store = index.write(tmp_path / "s"), f"oci:{tmp_path}/b:v1", tmp_path / "t"
    blob_store = ("--blob-store", store)
    assert run("convert", source, boot, "--store", store, "--platform", "all", *blob_store)[0] == 0
    status, out, _ = run("check", "--fetchable", boot)
    assert status == 0 and out.count("all can be fetched") == 2
    assert out.index("linux/arm64:") < out.index("linux/amd64:")
    status, out, _ = run("check", "--store", store, "--image", boot)
    assert status == 0 and "2 images checked, 0 problems" in out
    status, out, _ = run("forget", store, boot)
    assert status == 0 and out.count("blake3:") == 2 and not list(store.glob("manifests/*"))
    assert run("forget", store, boot)[0] == 10


def children(registry: Registry, tag: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = manifest_of(registry, tag)["manifests"]
    return entries


def test_beside_a_store_elsewhere_every_boot_image_has_a_tag(
    run: Run, index: Index, registry: Registry, url: str, tmp_path: Path
) -> None:
    source = index.push(url.replace(REPOSITORY, "source"), "v1")
    boot, store = f"{url}:v1", tmp_path / "t"
    convert = ("convert", source, boot, "--store", store, "--platform", "all")
    assert run(*convert)[0] == 0
    check_each(run, source, boot, store)
    own = [manifest_of(registry, tag) for tag in tags_of(registry) if tag.endswith(".image")]
    assert len({one["config"]["digest"] for one in own}) == 2 and len(tags_of(registry)) == 3
    collect_garbage(registry, "-m")
    check_each(run, source, boot, store)
    assert "nothing to do" in run(*convert)[1]


def test_in_a_registry_alone_it_is_one_tag_that_is_copied_and_forgotten_whole(
    run: Run, index: Index, registry: Registry, url: str, tmp_path: Path
) -> None:
    require("skopeo")
    source = index.push(url.replace(REPOSITORY, "source"), "v1")
    boot = f"{url}:v1"
    convert = ("convert", source, boot, "--store", "registry", "--platform", "all", "--json")
    status, out, _ = run(*convert)
    assert status == 0
    entries = children(registry, "v1")
    assert [entry["platform"]["architecture"] for entry in entries] == [
        *("arm64", "amd64"),
        *("unknown", "unknown"),
    ]
    assert [entry["platform"] for entry in entries[2:]] == [UNKNOWN, UNKNOWN]
    for boot_image, artifact in zip(entries[:2], entries[2:], strict=True):
        subject = manifest_of(registry, artifact["digest"])["subject"]
        assert subject["digest"] == boot_image["digest"]
    check_each(run, source, boot, "registry")
    assert problems_in(url) == []
    assert run("collect", url, "--json")[0] == 0
    status, out, _ = run("check", "--fetchable", boot)
    assert status == 0 and out.count("all can be fetched") == 2
    status, out, _ = run(*convert)
    assert all(one["unchanged"] for one in json.loads(out)["images"])
    # Every manifest has a tag of its own: nothing goes.
    before = blobs_of(registry)
    collect_garbage(registry, "-m")
    assert blobs_of(registry) == before
    copy = url.replace(REPOSITORY, "copy")
    tls = ("--src-tls-verify=false", "--dest-tls-verify=false")
    subprocess.run(["skopeo", "copy", "-q", "--all", *tls, boot, f"{copy}:v1"], check=True)
    check_each(run, source, f"{copy}:v1", copy)
    assert children(registry, "v1") == entries
    # All of it goes, under the one tag that the user knows.
    status, out, _ = run("forget", url, boot)
    assert status == 0 and "1 tag (v1) removed" in out
    assert out.count("boot image sha256:") == 2 and tags_of(registry) == []
    collect_garbage(registry)
    check_each(run, source, f"{copy}:v1", copy)
    assert run("forget", copy, f"{copy}:v1")[0] == 0
    collect_garbage(registry, "-m")
    assert not {entry["digest"] for entry in entries} & blobs_of(registry).keys()


def test_of_an_index_that_shares_a_boot_image_nothing_is_forgotten(
    run: Run, index: Index, registry: Registry, url: str
) -> None:
    source = index.push(url.replace(REPOSITORY, "source"), "v1")
    options = ("--store", "registry", "--platform", "all")
    for tag in ("v1", "latest"):
        assert run("convert", source, f"{url}:{tag}", *options)[0] == 0
    before = tags_of(registry)
    status, _, err = run("forget", url, f"{url}:v1")
    assert status == 2 and "tag (latest) too" in err
    assert tags_of(registry) == before and problems_in(url) == []


def test_a_copy_of_one_does_not_take_it_from_the_others(
    run: Run, index: Index, url: str, tmp_path: Path
) -> None:
    require("skopeo")
    source, boot = index.write(tmp_path / "s"), f"{url}:v1"
    assert run("convert", source, boot, "--store", "registry", "--platform", "all")[0] == 0
    copy = f"oci:{tmp_path}/copy"
    subprocess.run(["skopeo", "copy", "-q", "--src-tls-verify=false", boot, copy], check=True)
    status, _, err = run("forget", url, copy)
    assert status == 2 and "one of 2 in an image index" in err and f"forget {url}:v1" in err
    check_each(run, source, boot, "registry")
    # A copy of all of it names all of it.
    whole = f"oci:{tmp_path}/whole"
    command = ["skopeo", "copy", "-q", "--all", "--src-tls-verify=false", boot, whole]
    subprocess.run(command, check=True)
    assert run("forget", url, whole)[0] == 0
    assert run("inspect", boot)[0] == 10


def test_a_boot_image_for_another_machine_is_found_where_it_is_the_only_one(
    run: Run, index: Index, registry: Registry, url: str, tmp_path: Path
) -> None:
    index.entries = index.entries[:1]
    source, boot = index.push(url.replace(REPOSITORY, "source"), "v1"), f"{url}:arm"
    convert = ("convert", source, boot, "--store", "registry", "--platform", "linux/arm64")
    assert run(*convert)[0] == 0
    assert "nothing to do" in run(*convert)[1]
    assert json.loads(run("inspect", boot, "--json")[1])["reference"] == boot
    assert run("check", "--fetchable", boot)[0] == 0
    assert run("profile", "list", boot, "--store", url)[0] == 0
    assert run("forget", url, boot)[0] == 0


def test_profiles_are_of_the_boot_image_for_a_platform(run: Run, tmp_path: Path) -> None:
    made = Index()
    for number, platform in enumerate(BOTH, 1):
        tool = file("tool", make_elf(text=number << 16), mode=0o755)
        made.add(platform, tar_of(tool), command=["/tool"])
    source, boot = made.write(tmp_path / "s"), f"oci:{tmp_path}/b:v1"
    store = ("--store", str(tmp_path / "t"))
    assert run("convert", source, boot, *store, "--platform", "all")[0] == 0

    def profiles(platform: str) -> list[dict[str, Any]]:
        status, out, _ = run("profile", "list", boot, *store, "--json", "--platform", platform)
        assert status == 0
        return list(json.loads(out))

    amd64, arm64 = map(profiles, BOTH)
    assert [one["name"] for one in (*amd64, *arm64)] == ["default", "default"]
    assert amd64[0]["plain"] < arm64[0]["plain"]
    for_arm64 = (boot, *store, "--platform", "linux/arm64")
    shown = json.loads(run("profile", "show", *for_arm64, "--json")[1])
    assert shown["plain"] == arm64[0]["plain"]
    views = json.loads(run("inspect", boot, "--json", "--platform", "linux/arm64")[1])
    image = bytes.fromhex(views["chunk_index"].removeprefix("blake3:"))
    trace = tmp_path / "trace"
    trace.write_bytes(encode_trace_head(image, [b"/tool"], 1) + ENTRY.pack(0, 0, 1))
    # It is of the one for another machine than this.
    status, _, err = run("profile", "add", boot, *store, "--trace", trace)
    assert status == 11 and "a trace of another image" in err
    assert run("profile", "add", *for_arm64, "--trace", trace)[0] == 0
    assert [one["origin"] for one in profiles("linux/arm64")] == ["recording"]
    assert [one["origin"] for one in profiles("linux/amd64")] == ["analysis"]
    assert run("profile", "add", *for_arm64, "--analyze", "--replace")[0] == 0
    assert run("profile", "remove", *for_arm64, "--all")[0] == 0
    assert profiles("linux/arm64") == [] and len(profiles("linux/amd64")) == 1
    status, _, err = run("profile", "list", boot, *store, "--platform", "linux/s390x")
    assert status == 10 and "s390x" in err
