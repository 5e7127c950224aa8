"""The command line from end to end, on images in files: what it does, says and exits with."""

import errno
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest

from converter import RELEASE, cli, convert, earlier, making
from converter.cli import main
from converter.convert import DEFAULT_LEVEL
from converter.records.directory import VARIABLE
from store.format.chunkindex import parse_chunk_index
from store.format.digest import digest_of
from store.write.backends.directory import DirectoryBackend
from store.write.catalogue import read_catalogue
from store.write.manifest import parse_manifest
from tests.support.elves import make_elf
from tests.support.layers import config_of, directory, docker_archive, file, symlink, tar_of
from tests.support.require import require
from tests.support.servers import Nginx

Run = Callable[..., tuple[int, str, str]]

BIG = Random(1).randbytes(700_000)
LAYER = tar_of(
    directory("etc/"),
    file("etc/passwd", b"root:x:0:0::/root:/bin/sh\n"),
    file("big", BIG),
    file("text", b"some text " * 50_000),
    symlink("link", "etc/passwd"),
)
CONFIG = config_of([LAYER], config={"Entrypoint": ["/bin/sh"], "Cmd": ["-c"], "Env": ["A=b"]})
IMAGE = docker_archive(LAYER, config=CONFIG)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Give a function that runs the command and returns its status, output and errors."""

    def call(*arguments: object) -> tuple[int, str, str]:
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def source(tmp_path: Path) -> str:
    (tmp_path / "image.tar").write_bytes(IMAGE)
    return f"docker-archive:{tmp_path}/image.tar"


def objects(store: Path) -> dict[str, str]:
    """Return every object of a store with the digest of its bytes."""
    return {
        str(path.relative_to(store)): digest_of(path.read_bytes()).hex()
        for path in store.rglob("*")
        if path.is_file()
    }


def check_store(store: Path) -> None:
    """Check that everything in a store is whole, and that all a manifest names is there."""
    with closing(DirectoryBackend(str(store))) as backend:
        packs = dict(read_catalogue(backend).packs)
        for name in backend.iter_names("indexes/"):
            parse_chunk_index((store / name).read_bytes())
        for name in backend.iter_names("manifests/"):
            index, needed = parse_manifest((store / name).read_bytes())
            assert (store / "indexes" / index.hex()).exists()
            assert (store / "bootstraps" / index.hex()).exists()
            assert dict(needed).items() <= packs.items()
    assert not list(store.rglob("*.part"))


def tree_of(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def test_the_last_line_says_what_was_done(run: Run, source: str, tmp_path: Path) -> None:
    status, out, err = run("convert", source, f"oci:{tmp_path}/b", "--store", tmp_path / "store")
    assert (status, err) == (0, "")
    assert out.startswith(f"oci:{tmp_path}/b: ") and out.count("\n") == 1
    for words in (" chunks, ", " new, ", " MB stored; boot image ", " MB shared; ", " s\n"):
        assert words in out
    check_store(tmp_path / "store")


def test_json_has_the_figures(run: Run, source: str, tmp_path: Path) -> None:
    store = tmp_path / "store"
    arguments = ("convert", source, f"oci:{tmp_path}/b", "--store", store, "--json")
    report = json.loads(run(*arguments)[1])
    assert report["new_chunks"] == report["chunks"] > 5
    assert report["plain_bytes"] >= 1_200_000
    assert report["new_stored_bytes"] == sum(
        path.stat().st_size for path in store.glob("packs/*/*")
    )
    assert report["boot_image"]["reference"] == f"oci:{tmp_path}/b"


def test_a_second_conversion_finds_all_chunks(run: Run, source: str, tmp_path: Path) -> None:
    store = tmp_path / "store"
    run("convert", source, f"oci:{tmp_path}/a", "--store", store)
    before = objects(store)
    out = run("convert", source, f"oci:{tmp_path}/b", "--store", store, "--json")[1]
    assert (json.loads(out)["new_chunks"], json.loads(out)["new_stored_bytes"]) == (0, 0)
    assert objects(store) == before
    assert tree_of(tmp_path / "a") == tree_of(tmp_path / "b")


def test_equal_images_of_two_sources_share_all_of_the_store(
    run: Run, source: str, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    run("convert", source, f"oci:{tmp_path}/a", "--store", store)
    before = objects(store)
    (tmp_path / "other.tar").write_bytes(IMAGE)
    other = f"docker-archive:{tmp_path}/other.tar"
    run("convert", other, f"oci:{tmp_path}/b", "--store", store)
    run("convert", other, f"oci:{tmp_path}/c", "--store", tmp_path / "other-store")
    assert objects(store) == before == objects(tmp_path / "other-store")
    names = [
        json.loads(run("inspect", f"oci:{tmp_path}/{image}", "--json")[1])["source"]
        for image in "ab"
    ]
    assert names == ["docker-archive:image.tar", "docker-archive:other.tar"]


def test_a_changed_image_stores_what_changed(run: Run, source: str, tmp_path: Path) -> None:
    run("convert", source, f"oci:{tmp_path}/a", "--store", tmp_path / "store")
    more = tar_of(file("more", Random(9).randbytes(20_000)))
    (tmp_path / "image2.tar").write_bytes(docker_archive(LAYER, more))
    source = f"docker-archive:{tmp_path}/image2.tar"
    destination = f"oci:{tmp_path}/b"
    out = run("convert", source, destination, "--store", tmp_path / "store", "--json")[1]
    assert 0 < json.loads(out)["new_stored_bytes"] < 50_000
    assert run("check", source, destination, "--store", tmp_path / "store")[0] == 0
    check_store(tmp_path / "store")


def test_equal_input_gives_equal_bytes_anywhere(
    source: str, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From another checkout, temporary directory, source directory, umask and time zone."""
    run("convert", source, f"oci:{tmp_path}/a", "--store", tmp_path / "store-a")
    checkout = tmp_path / "another checkout"
    top = Path(__file__).parents[2]
    checkout.mkdir()
    for package in ("boot", "converter", "store"):
        shutil.copytree(top / package, checkout / package)
    for name in ("scratch", "elsewhere"):
        (checkout / name).mkdir()
    shutil.copy(tmp_path / "image.tar", checkout / "elsewhere")
    command = [
        *(sys.executable, "-m", "converter.cli", "convert"),
        *("docker-archive:elsewhere/image.tar", f"oci:{tmp_path}/b"),
        *("--store", tmp_path / "store-b"),
    ]
    environment = os.environ | {
        "TMPDIR": str(checkout / "scratch"),
        "TZ": "Asia/Kathmandu",
        "LC_ALL": "C",
        "PYTHONHASHSEED": "7",
        "PYTHONPATH": "",
    }
    subprocess.run(command, cwd=checkout, env=environment, umask=0o077, check=True)
    assert objects(tmp_path / "store-a") == objects(tmp_path / "store-b")
    assert tree_of(tmp_path / "a") == tree_of(tmp_path / "b")


def test_check_finds_nothing_then_what_was_planted(run: Run, source: str, tmp_path: Path) -> None:
    store, boot = tmp_path / "store", f"oci:{tmp_path}/b"
    run("convert", source, boot, "--store", store)
    assert run("check", source, boot, "--store", store) == (
        0,
        "6 entries compared, 0 differences\n",
        "",
    )
    other = tar_of(file("big", BIG[:-1] + bytes([BIG[-1] ^ 1])))
    (tmp_path / "other.tar").write_bytes(docker_archive(LAYER, other))
    other_source = f"docker-archive:{tmp_path}/other.tar"
    status, out, _ = run("check", other_source, boot, "--store", store)
    assert status == 4
    assert "/big: bytes differ from 699999 on\n" in out and "1 differences" in out
    status, out, _ = run("check", other_source, boot, "--store", store, "--json")
    assert status == 4
    assert json.loads(out)["differences"] == [
        {"path": "/big", "what": "bytes differ from 699999 on"}
    ]


def test_check_reads_through_http(
    run: Run, source: str, tmp_path: Path, serve: Callable[..., Nginx]
) -> None:
    store, boot = tmp_path / "store", f"oci:{tmp_path}/b"
    run("convert", source, boot, "--store", store)
    server = serve(store)
    assert run("check", source, boot, "--store", server.url)[0] == 0
    assert server.requests()


def test_check_tells_a_missing_and_a_damaged_pack(run: Run, source: str, tmp_path: Path) -> None:
    store, boot = tmp_path / "store", f"oci:{tmp_path}/b"
    run("convert", source, boot, "--store", store)
    pack = next(store.glob("packs/*/*"))
    data = bytearray(pack.read_bytes())
    data[1000] ^= 1
    pack.write_bytes(data)
    status, out, err = run("check", source, boot, "--store", store)
    assert status == 4 and "cannot be read" in out and "damaged" in err
    pack.unlink()
    status, out, _ = run("check", source, boot, "--store", store)
    assert status == 4 and "cannot be read" in out and pack.name in out


def test_check_without_its_store_is_no_difference(run: Run, source: str, tmp_path: Path) -> None:
    boot = f"oci:{tmp_path}/b"
    run("convert", source, boot, "--store", tmp_path / "store")
    status, out, err = run("check", source, boot, "--store", tmp_path / "none")
    assert (status, out) == (14, "") and str(tmp_path / "none") in err


def test_check_reads_what_one_mirror_lacks_from_another(
    run: Run, source: str, tmp_path: Path
) -> None:
    boot = f"oci:{tmp_path}/b"
    run("convert", source, boot, "--store", tmp_path / "store")
    (tmp_path / "empty").mkdir()
    mirrors = f"{tmp_path}/empty|{tmp_path}/store"
    status, out, err = run("check", source, boot, "--store", mirrors)
    assert status == 0 and "0 differences" in out
    assert f"mirror {tmp_path}/empty is left for packs/" in err


def test_inspect_shows_what_an_image_is(run: Run, source: str, tmp_path: Path) -> None:
    boot = f"oci:{tmp_path}/b"
    blob_store = "http://example/store|/store"
    arguments = ("--store", tmp_path / "store", "--blob-store", blob_store)
    run("convert", source, boot, *arguments)
    facts: dict[str, Any] = json.loads(run("inspect", boot, "--json")[1])
    assert facts["release"] == RELEASE
    assert facts["source"] == "docker-archive:image.tar"
    assert facts["blob_store"] == blob_store
    assert facts["entrypoint"] == ["/bin/sh"]
    assert facts["chunk_index"].startswith("blake3:")
    assert (tmp_path / "store" / "manifests" / facts["chunk_index"][7:]).exists()
    status, out, _ = run("inspect", boot)
    assert status == 0 and "chunk index" in out and "docker-archive:image.tar" in out


def test_inspect_shows_the_same_sizes_wherever_an_image_lies(
    run: Run, source: str, tmp_path: Path
) -> None:
    sizes = []
    for kind in ("oci", "oci-archive", "docker-archive"):
        boot = f"{kind}:{tmp_path}/{kind}"
        run("convert", source, boot, "--store", tmp_path / "store")
        facts = json.loads(run("inspect", boot, "--json")[1])
        sizes.append((facts["own_layer_plain_bytes"], facts["runtime_layer_plain_bytes"]))
    assert sizes[0] == sizes[1] == sizes[2]
    with tarfile.open(tmp_path / "docker-archive") as archive:
        layers = [member.size for member in archive if member.name.endswith(".tar")]
    assert sorted(sizes[0]) == sorted(layers)


def test_progress_is_json_lines_when_asked_for(run: Run, source: str, tmp_path: Path) -> None:
    boot = f"oci:{tmp_path}/b"
    _, out, err = run(
        *("convert", source, boot, "--store", tmp_path / "s", "--json", "--progress", "json")
    )
    steps = [json.loads(line) for line in err.splitlines()]
    assert [s["step"] for s in steps if s["finished"]] == [
        *("open", "read", "runtime", "store", "bootstrap", "image", "profile")
    ]
    read = next(s for s in steps if s["finished"] and s["step"] == "read")
    assert read["done"] == read["total"] == len(LAYER)
    stored = next(s for s in steps if s["finished"] and s["step"] == "store")
    assert stored["done"] == stored["total"] == json.loads(out)["plain_bytes"]


def test_a_first_profile_is_made_unless_it_is_not_wanted(run: Run, tmp_path: Path) -> None:
    root = tmp_path / "root/bin"
    root.mkdir(parents=True)
    (root / "tool").write_bytes(make_elf())
    (root / "tool").chmod(0o755)
    source, boot, store = f"dir:{tmp_path}/root", f"oci:{tmp_path}/b", tmp_path / "s"
    convert = ("convert", source, boot, "--store", store, "--entrypoint", "tool", "--json")
    without = json.loads(run(*convert, "--no-profile")[1])
    assert without["profile"] is None
    assert json.loads(run("profile", "list", boot, "--store", store, "--json")[1]) == []
    made = json.loads(run(*convert, "--force")[1])["profile"]
    assert (made["name"], made["chunks"], made["problem"]) == ("default", 1, "")
    (listed,) = json.loads(run("profile", "list", boot, "--store", store, "--json")[1])
    assert (listed["origin"], listed["command"]) == ("analysis", ["tool"])
    # It costs no bytes: its chunks are in the packs.
    assert listed["hot_pack"] == 0
    assert not (store / "hot").exists()
    assert json.loads(run(*convert, "--force")[1])["profile"] is None  # there is one


def test_the_first_profile_is_the_same_when_layers_are_not_read(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "records"))
    program = make_elf(text=1 << 20)
    layer = tar_of(directory("bin/"), file("bin/tool", program, mode=0o755), file("big", BIG))
    config = config_of([layer], config={"Cmd": ["tool"]})
    (tmp_path / "image.tar").write_bytes(docker_archive(layer, config=config))
    convert = ("convert", f"docker-archive:{tmp_path}/image.tar", f"oci:{tmp_path}/b", "--store")
    first = json.loads(run(*convert, tmp_path / "s", "--json")[1])
    run("profile", "remove", f"oci:{tmp_path}/b", "--store", tmp_path / "s", "--all")
    again = json.loads(run(*convert, tmp_path / "s", "--json", "--force")[1])
    assert (first["unread_layers"], again["unread_layers"]) == (0, 1)
    assert first["profile"] == again["profile"]
    assert first["profile"]["chunks"] > 0


def test_a_profile_can_be_told_of_an_image_that_is_there(run: Run, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "tool").write_bytes(make_elf())
    source, boot, store = f"dir:{root}", f"oci:{tmp_path}/b", tmp_path / "s"
    run("convert", source, boot, "--store", store, "--no-profile", "--entrypoint", "/tool")
    add = ("profile", "add", boot, "--store", store, "--analyze")
    code, out, _ = run(*add)
    assert (code, out.startswith("default: ")) == (0, True)
    code, _, err = run(*add, "--trace", "file")
    assert (code, "--analyze needs no --trace, --from" in err) == (2, True)
    other = f"{boot}-of-nothing"
    run("convert", source, other, "--store", store, "--no-profile", "--entrypoint", "/none")
    code, _, err = run("profile", "add", other, "--store", store, "--analyze")
    assert (code, "names no program" in err) == (10, True)


def test_nothing_is_glued_to_the_bar(run: Run, source: str, tmp_path: Path) -> None:
    damaged = bytearray(IMAGE)
    damaged[IMAGE.index(b"some text")] ^= 1
    (tmp_path / "bad.tar").write_bytes(damaged)
    store, boot, bar = tmp_path / "s", f"oci:{tmp_path}/b", ("--progress", "bar")
    bad = f"docker-archive:{tmp_path}/bad.tar"
    err = run("convert", bad, boot, "--store", store, *bar)[2]
    assert err.count("bootfs: ") == 1 and "\r\x1b[Kbootfs: layer sha256:" in err
    run("convert", source, boot, "--store", store)
    pack = next(store.glob("packs/*/*"))
    pack.write_bytes(pack.read_bytes()[:1000] + b"\0\xff\0" + pack.read_bytes()[1003:])
    err = run("check", source, boot, "--store", store, *bar)[2]
    assert err.count("bootfs: ") == err.count("\r\x1b[Kbootfs: ") > 0


def test_a_store_in_a_directory_of_something_else_is_refused_before_the_work(
    run: Run, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert, "open_image", lambda *_: pytest.fail("the work began"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis").touch()
    status, _, err = run("convert", source, f"oci:{tmp_path}/b", "--store", tmp_path / "home")
    assert status == 2 and "not empty" in err
    assert os.listdir(tmp_path / "home") == ["thesis"] and not (tmp_path / "b").exists()


@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive", "oci"])
def test_a_destination_that_would_be_lost_is_refused_before_the_work(
    run: Run, source: str, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "oci":
        (tmp_path / "there").mkdir()
        (tmp_path / "there" / "file").write_text("precious")
    else:
        (tmp_path / "there").write_text("precious")
    monkeypatch.setattr(convert, "open_image", lambda *_: pytest.fail("the work began"))
    status, _, err = run("convert", source, f"{kind}:{tmp_path}/there", "--store", tmp_path / "s")
    assert status == 2 and str(tmp_path / "there") in err
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive", "oci"])
def test_a_destination_in_no_directory_is_refused_before_the_work(
    run: Run, source: str, tmp_path: Path, kind: str
) -> None:
    status, _, err = run("convert", source, f"{kind}:{tmp_path}/no/x", "--store", tmp_path / "s")
    assert status == 10 and f"{tmp_path}/no" in err
    assert not (tmp_path / "s").exists()


BAD_SOURCES: dict[str, tuple[bytes | None, tuple[int, ...]]] = {
    "no such file": (None, (10,)),
    "nothing": (b"", (12,)),
    "noise": (Random(1).randbytes(5000), (12,)),
    "cut in a layer": (IMAGE[:300_000], (11, 12)),
    "cut before the manifest": (IMAGE[: len(IMAGE) - 10_240], (11, 12)),
    "a layer's bit flipped": (IMAGE[:200_000] + b"\xff\0\xff" + IMAGE[200_003:], (11, 12)),
    "a path that leaves the root": (docker_archive(tar_of(file("../x", b""))), (15,)),
}


@pytest.fixture
def no_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that has no runtime layer yet: nothing may ask for one."""
    monkeypatch.setattr(
        earlier, "open_runtime", lambda *_: pytest.fail("the runtime layer was asked")
    )


@pytest.mark.usefixtures("no_runtime")
@pytest.mark.parametrize("case", BAD_SOURCES)
def test_a_bad_source_has_its_code_and_one_line(run: Run, tmp_path: Path, case: str) -> None:
    data, statuses = BAD_SOURCES[case]
    if data is not None:
        (tmp_path / "bad.tar").write_bytes(data)
    source = f"docker-archive:{tmp_path}/bad.tar"
    status, out, err = run("convert", source, f"oci:{tmp_path}/b", "--store", tmp_path / "s")
    assert status in statuses and out == ""
    assert err.startswith("bootfs: ") and err.count("\n") == 1
    assert any(step in err for step in ("check the path", "again", "build the image without it"))
    assert not (tmp_path / "b").exists() and not (tmp_path / "s").exists()


TOO_LONG = "x" * 300


@pytest.mark.parametrize("kind", ["docker-archive", "oci-archive", "oci"])
@pytest.mark.parametrize("place", ["source", "destination", "below the destination"])
def test_a_path_that_no_file_can_have_is_one_line(
    run: Run, source: str, tmp_path: Path, kind: str, place: str
) -> None:
    path = f"{kind}:{tmp_path}/{TOO_LONG}{'/x' if place == 'below the destination' else ''}"
    images = (path, f"oci:{tmp_path}/b") if place == "source" else (source, path)
    status, out, err = run("convert", *images, "--store", tmp_path / "s")
    assert (status, out) == (2, "") and err.startswith("bootfs: ") and err.count("\n") == 1
    assert TOO_LONG in err and "use another path" in err
    assert run("check", path, source, "--store", tmp_path)[0] == 2


def test_a_name_may_be_as_long_as_names_can_be(run: Run, source: str, tmp_path: Path) -> None:
    for kind in ("docker-archive", "oci-archive", "oci"):
        name = kind + "x" * (255 - len(kind))
        assert (
            run("convert", source, f"{kind}:{tmp_path}/{name}", "--store", tmp_path / "s")[0] == 0
        )


def test_a_path_that_is_no_text_is_shown_all_the_same(
    run: Run, source: str, tmp_path: Path
) -> None:
    destination = f"oci:{tmp_path}/" + os.fsdecode(b"\xff")
    status, out, _ = run("convert", source, destination, "--store", tmp_path / "s")
    assert status == 0 and "\\udcff" in out
    assert os.path.isdir(os.fsencode(tmp_path) + b"/\xff")


def test_what_nobody_foresaw_of_the_system_is_one_line(
    run: Run, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error", "/some/file")

    monkeypatch.setattr(making, "lay_out", fail)
    status, out, err = run("convert", source, f"oci:{tmp_path}/b", "--store", tmp_path / "s")
    assert (status, out) == (1, "")
    assert err == "bootfs: /some/file: Input/output error; check the path and its disk\n"


@pytest.mark.parametrize("platform", [{"architecture": "s390x"}, {"os": "windows"}])
def test_an_image_of_another_platform_is_refused(
    run: Run, tmp_path: Path, platform: dict[str, str]
) -> None:
    archive = tmp_path / "other.tar"
    archive.write_bytes(docker_archive(LAYER, config=config_of([LAYER], **platform)))
    source = f"docker-archive:{archive}"
    status, out, err = run("convert", source, f"oci:{tmp_path}/b", "--store", tmp_path / "s")
    assert (status, out) == (15, "") and err.count("\n") == 1 and "linux/amd64" in err
    assert not (tmp_path / "b").exists() and not list(tmp_path.glob("s/packs/*/*"))


def test_a_boot_image_is_not_converted_again(run: Run, source: str, tmp_path: Path) -> None:
    run("convert", source, f"oci:{tmp_path}/b", "--store", tmp_path / "s")
    before = objects(tmp_path / "s")
    status, out, err = run(
        *("convert", f"oci:{tmp_path}/b", f"oci:{tmp_path}/c", "--store", tmp_path / "s")
    )
    assert (status, out) == (2, "") and "made of docker-archive:image.tar" in err
    assert objects(tmp_path / "s") == before and not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    "options",
    [
        ("--level", "0"),
        ("--level", "23"),
        ("--store", "http://host/"),
        ("--store", ""),
        ("--store", "/bootfs-nowhere/store", "--mounted"),
        ("--store", "file:///bootfs-nowhere/store", "--mounted"),
        ("--blob-store", "ftp://host/"),
        ("--blob-store", "http://user@host/"),
        ("--blob-store", "relative/path"),
        ("--blob-store", "http://host/|"),
        ("--blob-store", "http://host/|relative"),
    ],
)
def test_options_that_cannot_be_are_usage(
    run: Run, source: str, tmp_path: Path, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, err = run("convert", source, f"oci:{tmp_path}/b", *options)
    assert status == 2 and err.startswith("bootfs: ")


def test_a_store_on_a_mount_is_taken(run: Run, source: str, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as mounted:
        store = Path(mounted) / "not" / "yet"
        store.parent.mkdir()
        status, _, err = run("convert", source, f"oci:{tmp_path}/b", "--store", store, "--mounted")
        assert (status, err) == (0, "")
        check_store(store)


@pytest.mark.parametrize("arguments", [(), ("nothing",), ("convert",), ("convert", "a", "b", "c")])
def test_argparse_says_usage(arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2


def test_the_source_itself_is_no_boot_image(run: Run, source: str, tmp_path: Path) -> None:
    status, _, err = run("inspect", source)
    assert status == 2 and "convert it first" in err
    (tmp_path / "store").mkdir()
    assert run("check", source, source, "--store", tmp_path / "store")[0] == 2


def test_an_interruption_exits_130_and_leaves_a_valid_store(
    run: Run, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(making, "add_bootstrap", interrupt)
    status, _, err = run("convert", source, f"oci:{tmp_path}/b", "--store", tmp_path / "s")
    assert status == 130 and "valid" in err
    assert not (tmp_path / "b").exists()
    check_store(tmp_path / "s")
    assert not (tmp_path / "s" / "manifests").exists()


STEPS = {
    **dict.fromkeys(("store_region", "add_bootstrap", "build_own_layer", "build_config"), making),
    "write_image": convert,
}


@pytest.mark.parametrize("step", STEPS)
def test_whatever_fails_the_store_is_valid_and_the_next_conversion_goes_on(
    run: Run, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    real = getattr(STEPS[step], step)

    def fail_after(*arguments: Any) -> None:
        if step != "write_image":
            real(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(STEPS[step], step, fail_after)
    store, boot = tmp_path / "s", f"oci:{tmp_path}/b"
    assert run("convert", source, boot, "--store", store)[0] == 130
    assert not (tmp_path / "b").exists()
    check_store(store)
    assert bool(list(store.glob("manifests/*"))) == (step == "write_image")
    monkeypatch.setattr(STEPS[step], step, real)
    status, out, _ = run("convert", source, boot, "--store", store, "--json")
    assert status == 0 and json.loads(out)["new_chunks"] == 0
    assert run("check", source, boot, "--store", store)[0] == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    require("root")
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", path], check=True)
    yield path
    subprocess.run(["umount", path], check=True)


def test_a_disk_that_fills_up_leaves_a_valid_store_and_no_destination(
    run: Run, tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.write.packwriter.PACK_TARGET", 1 << 20)
    layer = tar_of(*(file(f"file{n}", Random(n).randbytes(500_000)) for n in range(40)))
    (tmp_path / "large.tar").write_bytes(docker_archive(layer))
    source = f"docker-archive:{tmp_path}/large.tar"
    store = small_disk / "store"
    status, out, err = run("convert", source, f"oci:{tmp_path}/b", "--store", store)
    assert (status, out) == (15, "") and "No space left" in err and "make room" in err
    assert not (tmp_path / "b").exists()
    check_store(store)
    assert list(store.glob("packs/*/*")) and not list(store.glob("manifests/*"))

    # With room made, the same line goes on from there.
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    status, out, _ = run("convert", source, f"oci:{tmp_path}/b", "--store", store, "--json")
    report = json.loads(out)
    assert status == 0 and 0 < report["new_chunks"] < report["chunks"]
    assert run("check", source, f"oci:{tmp_path}/b", "--store", store)[0] == 0


def test_the_help_names_the_default_level(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["convert", "--help"])
    assert f"default: {DEFAULT_LEVEL}" in capsys.readouterr().out
    assert cli.DEFAULT_STORE == "bootfs-store"


def test_what_only_the_engine_and_a_new_runtime_need_is_not_imported() -> None:
    code = (
        "import sys, converter.cli\n"
        "print(*sorted({'docker', 'requests', 'httpx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "the following arguments are required: COMMAND; see `bootfs --help`"),
        (("frob",), "invalid choice: 'frob'"),
        (("convert", "a"), "convert: the following arguments are required: DEST; see `bootfs "),
        (("collect", "s", "--grace", "x"), "collect: argument --grace: 'x' is no duration"),
        (("check", "--fetchable"), "check: argument --fetchable: expected one argument"),
    ],
)
def test_errors_of_arguments_are_one_line(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    out, err = capsys.readouterr()
    assert (raised.value.code, out) == (2, "")
    assert err.startswith("bootfs: ") and words in err and err.count("\n") == 1


def test_a_report_without_a_name_is_no_directory(run: Run, source: str, tmp_path: Path) -> None:
    store = tmp_path / "store"
    status, _, err = run("convert", source, f"oci:{tmp_path}/b", "--store", store, "--report", "")
    assert status == 2 and "--report: its name is empty" in err and not store.exists()


@pytest.mark.parametrize("command", ["forget", "check"])
def test_half_a_digest_is_not_taken_for_an_image(run: Run, command: str, tmp_path: Path) -> None:
    rest = (tmp_path, "blake3:00")
    if command == "check":
        rest = ("--store", tmp_path, "--image", "blake3:00")
    status, _, err = run(command, *rest)
    assert status == 2 and "blake3:00: no digest of a chunk index; that is blake3: and 64" in err


def test_what_is_no_tar_is_called_as_the_user_calls_it(run: Run, tmp_path: Path) -> None:
    plain = tmp_path / "notes"
    plain.write_text("no tar\n" * 200)
    for compressed in (False, True):
        name = f"tar:{plain}"
        if compressed:
            subprocess.run(["gzip", "-k", str(plain)], check=True)
            name += ".gz"
        status, _, err = run("convert", name, f"oci:{tmp_path}/b", "--store", tmp_path / "store")
        assert status == 12 and err.startswith(f"bootfs: {name}: at byte 0: ")


@pytest.mark.parametrize("command", ["diff", "inspect", "export", "fetchable", "image", "forget"])
def test_a_root_alone_is_no_boot_image_and_nothing_is_copied_to_see_it(
    run: Run, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("opened")

    monkeypatch.setattr("converter.bootimages.open_image", refuse)
    monkeypatch.setattr("converter.bootimages.list_images", refuse)
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "root.tar").write_bytes(b"x" * 1024)
    for name in (f"dir:{root}", f"tar:{tmp_path}/root.tar", f"dir:{tmp_path}/none"):
        calls: dict[str, tuple[object, ...]] = {
            "diff": ("diff", source, name),
            "inspect": ("inspect", name),
            "export": ("export", name, f"oci:{tmp_path}/back", "--store", tmp_path),
            "fetchable": ("check", "--fetchable", name),
            "image": ("check", "--store", tmp_path, "--image", name),
            "forget": ("forget", tmp_path, name),
        }
        status, _, err = run(*calls[command])
        if name.endswith("none"):
            assert status == 10 and err == f"bootfs: {name}: {tmp_path}/none is missing\n"
        else:
            assert status == 2 and err == f"bootfs: {name} is not a boot image; convert it first\n"
