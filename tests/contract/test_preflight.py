"""`bootfs check --fetchable`: what mirrors of a store answer, asked without fetching."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from converter.cli import main
from tests.support.layers import docker_archive, file, tar_of
from tests.support.servers import Nginx

Run = Callable[..., tuple[int, str, str]]
Serve = Callable[..., Nginx]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Give a store of one image of two packs, ``oci:boot`` beside it."""
    parts = [file(f"part{n}", Random(n).randbytes(300_000)) for n in range(2)]
    for name, members in {"first": parts[:1], "boot": parts}.items():
        (tmp_path / f"{name}.tar").write_bytes(docker_archive(tar_of(*members)))
        source, boot = f"docker-archive:{tmp_path}/{name}.tar", f"oci:{tmp_path}/{name}"
        assert main(["convert", source, boot, "--store", str(tmp_path / "store")]) == 0
    return tmp_path / "store"


def packs_of(store: Path) -> list[Path]:
    return sorted(path for path in (store / "packs").rglob("*") if path.is_file())


def test_a_whole_store_answers_for_every_pack_by_one_byte(
    run: Run, store: Path, serve: Serve
) -> None:
    server = serve(store)
    status, out, err = run(
        "check", "--fetchable", f"oci:{store.parent}/boot", "--store", server.url
    )
    assert (status, err) == (0, "")
    assert out.startswith(f"{server.url}: 2 packs, ") and out.endswith("all can be fetched\n")
    answered = server.requests()
    assert [r.size for r in answered if r.status == 206] == [1, 1]
    # And once for profiles, of which there are none.
    assert {r.status for r in answered} == {206, 404, 416} and len(answered) <= 3 * 2 + 1


@pytest.mark.parametrize("kind", ["directory", "server"])
@pytest.mark.parametrize(
    ("damage", "code", "words"),
    [("missing", 10, "packs/"), ("short", 11, "expected"), ("long", 11, "more than")],
)
def test_what_is_missing_is_listed_for_its_mirror(
    run: Run, store: Path, serve: Serve, kind: str, damage: str, code: int, words: str
) -> None:
    pack = packs_of(store)[1]
    data = pack.read_bytes()
    if damage == "missing":
        pack.unlink()
    else:
        pack.write_bytes(data[:-1] if damage == "short" else data + b"x")
    url = serve(store).url if kind == "server" else str(store)
    image = f"oci:{store.parent}/boot"
    status, out, err = run("check", "--fetchable", image, "--store", url)
    assert (status, err) == (code, "") and out.count("\n") == 1
    assert out.startswith(f"{url}: ") and words in out and pack.name in out
    status, out, _ = run("check", "--fetchable", image, "--store", url, "--json")
    answers = json.loads(out)
    assert status == code and [answer["packs"] for answer in answers] == [2]
    assert [p["exit_code"] for p in answers[0]["problems"]] == [code]
    assert [p["name"] for p in answers[0]["problems"]] == [str(pack.relative_to(store))]


def test_each_mirror_is_asked_and_the_first_problem_decides(
    run: Run, store: Path, serve: Serve, tmp_path: Path
) -> None:
    refusing = serve(store, extra="location ~ /packs/ { deny all; }").url
    whole = serve(store).url
    urls = f"{whole}|{refusing}|{tmp_path}/none"
    status, out, err = run("check", "--fetchable", f"oci:{tmp_path}/boot", "--store", urls)
    lines = out.splitlines()
    assert (status, err) == (13, "")
    assert lines[0].startswith(whole) and "all can be fetched" in lines[0]
    # Whoever lets nobody in is asked once, and says it once.
    assert len(lines) == 3 and lines[1].startswith(f"{refusing}: ") and "403" in lines[1]
    assert lines[2].startswith(f"{tmp_path}/none: ")


def test_the_store_of_the_image_is_asked_where_none_is_given(
    run: Run, store: Path, tmp_path: Path
) -> None:
    archive = f"docker-archive:{tmp_path}/boot.tar"
    convert = ("convert", archive, f"oci:{tmp_path}/baked", "--store", store)
    assert run(*convert, "--blob-store", store)[0] == 0
    status, out, _ = run("check", "--fetchable", f"oci:{tmp_path}/baked")
    assert status == 0 and out.startswith(f"{store}: 2 packs")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "names no store"),
        (("--store", "ftp://host/"), "not a store"),
        (("--store", "s", "--image", "x"), "--fetchable IMAGE goes with"),
        (("--store", "s", "--repair", "x"), "--fetchable IMAGE goes with"),
        (("a", "b"), "--fetchable IMAGE goes with"),
        (("--platform", "linux/amd64"), "--fetchable IMAGE goes with"),
        (("--progress", "none"), "--fetchable IMAGE goes with"),
        (("--store", "registry"), "is in no registry"),
    ],
)
def test_mixtures_are_usage(run: Run, store: Path, arguments: tuple[str, ...], words: str) -> None:
    image = f"oci:{store.parent}/boot"
    status, out, err = run("check", "--fetchable", image, *arguments)
    assert (status, out) == (2, "") and words in err and err.count("\n") == 1


def test_credentials_that_are_not_there_are_said(run: Run, store: Path, tmp_path: Path) -> None:
    image = ("check", "--fetchable", f"oci:{tmp_path}/boot", "--store", store)
    for name in ("none", ""):
        status, out, err = run(*image, "--auth", name)
        assert (status, out) == (10, "") and f"--auth {name}: " in err
    assert run(*image, "--auth", tmp_path)[0] == 0


def test_an_image_that_is_no_boot_image_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(docker_archive(tar_of(file("x", b"x"))))
    status, _, err = run("check", "--fetchable", f"docker-archive:{tmp_path}/a.tar", "--store", "s")
    assert status == 2 and "not a boot image" in err
