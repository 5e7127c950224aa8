"""`bootfs check --store`: what it finds, and how it repairs from directories and servers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from converter.cli import main
from store.format.chunkindex import encode_chunk_index, parse_chunk_index
from store.format.digest import digest_of
from store.format.names import STORE_MARK
from store.format.packfile import ENTRY, FOOTER
from store.write.manifest import encode_manifest
from tests.support.layers import docker_archive, file, tar_of
from tests.support.servers import Nginx
from tests.support.wholestores import files_of, problems_of

Run = Callable[..., tuple[int, str, str]]
Serve = Callable[..., Nginx]

IMAGE = f"blake3:{'5' * 64}"
KINDS = ("packs", "indexes", "bootstraps", "manifests")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a store of two images, the second of which uses two packs; nobody may change it."""
    path = tmp_path_factory.mktemp("made")
    shared = file("shared", Random(1).randbytes(300_000))
    texts = file("text", b"".join(b"line %d\n" % n for n in range(20_000)))
    for name, members in {"a": (shared,), "b": (shared, texts)}.items():
        (path / f"{name}.tar").write_bytes(docker_archive(tar_of(*members)))
        source, boot = f"docker-archive:{path}/{name}.tar", f"oci:{path}/boot-{name}"
        assert main(["convert", source, boot, "--store", str(path / "store")]) == 0
    return path / "store"


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "store"))


@pytest.fixture(params=["directory", "server"])
def mirror(request: pytest.FixtureRequest, made: Path) -> str:
    """Give the URL of a whole copy of the store."""
    if request.param == "directory":
        return str(made)
    serve: Serve = request.getfixturevalue("serve")
    return serve(made).url


def objects(store: Path, kind: str) -> list[Path]:
    return sorted(path for path in (store / kind).rglob("*") if path.is_file())


def contents(store: Path) -> dict[str, bytes]:
    return {name: (store / name).read_bytes() for name in files_of(store)}


def test_a_whole_store_has_no_problems(run: Run, store: Path) -> None:
    before = contents(store)
    status, out, err = run("check", "--store", store)
    assert (status, out, err) == (0, "2 packs, 2 images checked, 0 problems\n", "")
    status, out, _ = run("check", "--store", store, "--json")
    assert (status, json.loads(out)) == (
        0,
        {"packs": 2, "indexes": 2, "bootstraps": 2, "manifests": 2}
        | {"profiles": 0, "hot": 0, "problems": []},
    )
    assert contents(store) == before


def places(kind: str, size: int) -> list[int]:
    """Return offsets in an object of this kind and size, in each of its parts."""
    table = FOOTER.size + 3 * ENTRY.size
    parts = [size - 1, size - FOOTER.size + 3, size - table + 1] if kind == "packs" else []
    return sorted({0, 9, 20, size // 2, size * 3 // 4, size - 2, *parts})


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_byte_anywhere_is_found(store: Path, kind: str) -> None:
    path = objects(store, kind)[-1]
    data = path.read_bytes()
    for at in places(kind, len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        problems = problems_of(store)
        assert [p.name for p in problems] == [str(path.relative_to(store))], at
        assert problems[0].is_fetchable and path.name in str(problems[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 1, 70, -1])
def test_an_object_that_was_cut_or_grew_is_found(store: Path, kind: str, size: int) -> None:
    path = objects(store, kind)[0]
    data = path.read_bytes()
    # JSON may end with more than one newline, and says the same.
    for changed in (data[:size], data + (b"0" if kind == "manifests" else b"\n")):
        if changed.strip() == data.strip():
            continue
        path.write_bytes(changed)
        assert [p.name for p in problems_of(store)] == [str(path.relative_to(store))]


@pytest.mark.parametrize("kind", ["packs", "indexes", "bootstraps"])
def test_an_object_that_is_missing_is_told_once_with_who_needs_it(store: Path, kind: str) -> None:
    needed = 0
    for path in objects(store, kind):
        path.unlink()
        needed += 1
    problems = problems_of(store)
    assert len(problems) == needed
    assert all(p.is_fetchable and "needs it" in p.what for p in problems)


def test_an_object_under_the_name_of_another_is_found(store: Path) -> None:
    for kind in KINDS:
        first, second = objects(store, kind)
        first.write_bytes(second.read_bytes())
    assert sorted(p.name for p in problems_of(store)) == sorted(
        str(objects(store, kind)[0].relative_to(store))
        for kind in KINDS
        # Whose chunk index is damaged, of that neither can be told.
        if kind not in ("bootstraps", "manifests")
    )


def test_files_that_are_no_objects_are_named_and_cannot_be_fetched(store: Path) -> None:
    name = objects(store, "packs")[0].name
    strangers = {"packs/x", f"packs/00/{name}", "manifests/README", "notes", "indexes/" + "A" * 64}
    for stranger in strangers:
        (store / stranger).parent.mkdir(exist_ok=True)
        (store / stranger).touch()
    (store / "packs" / "tmp.part").touch()
    problems = problems_of(store)
    assert {p.name for p in problems} == strangers
    assert not any(p.is_fetchable for p in problems)


def test_a_chunk_index_that_is_right_in_itself_and_not_about_its_packs_is_found(
    store: Path,
) -> None:
    old = objects(store, "indexes")[0]
    data = old.read_bytes()
    for change in ("digest", "place", "size"):
        index = parse_chunk_index(data)
        if change == "digest":
            index.digests = digest_of(b"other") + bytes(index.digests[32:])
        elif change == "place":
            index.offsets[0] += 1
        else:
            index.pack_sizes[0] += 1
        encoded = encode_chunk_index(index)
        image = digest_of(encoded)
        packs = list(zip(index.pack_digests, index.pack_sizes, strict=True))
        (store / "indexes" / image.hex()).write_bytes(encoded)
        (store / "manifests" / image.hex()).write_bytes(encode_manifest(image, packs))
        bootstrap = store / "bootstraps" / image.hex()
        shutil.copy(store / "bootstraps" / old.name, bootstrap)
        problems = problems_of(store)
        assert [p.name for p in problems] == [f"indexes/{image.hex()}"]
        assert not problems[0].is_fetchable and "convert again" in problems[0].what
        for kind in ("indexes", "bootstraps", "manifests"):
            (store / kind / image.hex()).unlink()


def test_what_a_later_release_wrote_is_not_replaced(run: Run, store: Path, made: Path) -> None:
    manifest = objects(store, "manifests")[0]
    later = json.dumps(json.loads(manifest.read_bytes()) | {"version": 2}).encode()
    manifest.write_bytes(later)
    status, out, _ = run("check", "--store", store, "--repair", made)
    assert status == 4 and "version 2" in out and "0 repaired" in out
    assert manifest.read_bytes() == later


def test_what_a_killed_conversion_left_is_no_problem(store: Path) -> None:
    for manifest in objects(store, "manifests"):
        manifest.unlink()
    objects(store, "indexes")[0].unlink()
    assert problems_of(store) == []


def test_everything_that_is_damaged_or_missing_comes_from_a_mirror(
    run: Run, store: Path, made: Path, mirror: str
) -> None:
    for kind in KINDS:
        first, second = objects(store, kind)
        first.write_bytes(first.read_bytes()[:-1] + b"?")
        if kind != "manifests":
            second.unlink()
    status, out, _ = run("check", "--store", store)
    assert status == 4 and "--repair URL" in out
    status, out, _ = run("check", "--store", store, "--repair", mirror)
    assert status == 0, out
    assert "2 packs, 2 images checked, 7 problems, 7 repaired\n" in out
    assert contents(store) == contents(made)
    assert run("check", "--store", store)[0] == 0
    assert all((store / name).stat().st_mode & 0o777 == 0o644 for name in files_of(store))


def test_what_the_mirror_has_no_better_is_left_as_it_is_and_said(
    run: Run, store: Path, mirror: str, made: Path, tmp_path: Path
) -> None:
    first, second = objects(store, "packs")
    damaged = first.read_bytes()[:-1] + b"?"
    first.write_bytes(damaged)
    second.unlink()
    (store / "stranger").touch()
    poor = shutil.copytree(made, tmp_path / "poor")
    (poor / second.relative_to(store)).unlink()
    data = bytearray((poor / first.relative_to(store)).read_bytes())
    data[len(data) // 2] ^= 1
    (poor / first.relative_to(store)).write_bytes(data)
    status, out, _ = run("check", "--store", store, "--repair", poor, "--json")
    assert status == 4
    problems = {p["name"]: p for p in json.loads(out)["problems"]}
    assert not any(p["repaired"] for p in problems.values())
    assert "digest is" in problems[str(first.relative_to(store))]["left"]
    assert "does not exist" in problems[str(second.relative_to(store))]["left"]
    assert "no other store" in problems["stranger"]["left"]
    assert first.read_bytes() == damaged and not list(store.rglob("*.part"))
    status, out, _ = run("check", "--store", store, "--repair", mirror)
    assert status == 4 and "3 problems, 2 repaired" in out and "not repaired" in out


def test_a_mirror_whose_answers_are_made_up_is_not_believed(
    run: Run, store: Path, serve: Serve, made: Path
) -> None:
    """A server that gives the same bytes for everything but the mark."""
    server = serve(made, extra=f"location ~ /.+/ {{ try_files /{STORE_MARK} =404; }}")
    before = contents(store)
    for kind in KINDS:
        objects(store, kind)[0].write_bytes(b"damaged")
        before[str(objects(store, kind)[0].relative_to(store))] = b"damaged"
    status, out, _ = run("check", "--store", store, "--repair", server.url)
    assert status == 4 and ", 0 repaired" in out
    assert contents(store) == before


@pytest.mark.parametrize("what", ["nothing there", "no store", "no server"])
def test_a_mirror_that_is_none_is_said_before_the_work(
    run: Run, store: Path, tmp_path: Path, what: str
) -> None:
    objects(store, "packs")[0].unlink()
    (tmp_path / "empty").mkdir()
    mirror, status = {
        "nothing there": (tmp_path / "none", 10),
        "no store": (tmp_path / "empty", 10),
        "no server": ("ftp://host/", 2),
    }[what]
    got, out, err = run("check", "--store", store, "--repair", mirror)
    assert (got, out) == (status, "") and err.startswith("bootfs: ") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give SOURCE and DEST"),
        (("a",), "DEST is missing"),
        (("a", "--store", "s"), "DEST is missing"),
        (("--repair", "m"), "--store URL"),
        (("a", "b", "--repair", "m"), "leave SOURCE and DEST out"),
        (("--store", "http://host/s"), "--image"),
        (("--store", "http://host/s", "--image", "a:b:c"), "a:b:c"),
        (("--store", "http://host/s", "--repair", "m", "--image", IMAGE), "cannot be written"),
        (("a", "b", "--image", IMAGE), "leave SOURCE and DEST out"),
        (("a", "b", "--auth", "/"), "goes with --fetchable"),
        (("--store", "s", "--auth", "/"), "goes with --fetchable"),
        (("--store", "s", "--platform", "linux/amd64"), "--platform is of SOURCE"),
        (("--store", ""), "not a store"),
        (("--store", "ftp://host"), "not a store"),
        (("--store", "s3://b"), "no bucket"),
    ],
)
def test_mixtures_are_usage(run: Run, arguments: tuple[str, ...], words: str) -> None:
    status, out, err = run("check", *arguments)
    assert (status, out) == (2, "") and words in err and err.count("\n") == 1


@pytest.fixture(params=["directory", "server"])
def there(request: pytest.FixtureRequest, store: Path) -> str:
    """Give the URL of a store that may be changed."""
    if request.param == "directory":
        return str(store)
    serve: Serve = request.getfixturevalue("serve")
    return serve(store).url


def test_what_named_images_need_is_verified_through_a_server_too(
    run: Run, made: Path, store: Path, there: str
) -> None:
    small, large = (f"oci:{made.parent}/boot-{name}" for name in "ab")
    status, out, err = run("check", "--store", there, "--image", small)
    assert (status, out, err) == (0, "1 packs, 1 images checked, 0 problems\n", "")
    both = ("--image", small, "--image", large, "--image", small)
    status, out, _ = run("check", "--store", there, *both)
    assert (status, out) == (0, "2 packs, 2 images checked, 0 problems\n")
    # The pack that only the second image needs.
    needed = json.loads(run("inspect", small, "--json")[1])["chunk_index"].removeprefix("blake3:")
    manifest = json.loads((store / "manifests" / needed).read_bytes())
    used = manifest["packs"][0]["digest"].removeprefix("sha256:")
    other = next(path for path in objects(store, "packs") if path.name != used)
    other.write_bytes(other.read_bytes()[:-1] + b"?")
    assert run("check", "--store", there, "--image", small)[0] == 0
    status, out, _ = run("check", "--store", there, *both)
    assert status == 4 and other.name in out.splitlines()[0] and len(out.splitlines()) == 2
    other.unlink()
    status, out, _ = run("check", "--store", there, "--image", f"blake3:{needed}")
    assert status == 0
    status, out, _ = run("check", "--store", there, *both)
    assert status == 4 and "missing" in out.splitlines()[0] and len(out.splitlines()) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_of_a_named_image_everything_is_looked_at(
    run: Run, made: Path, store: Path, there: str, kind: str
) -> None:
    image = ("--image", f"oci:{made.parent}/boot-b")
    for path in objects(store, kind):
        path.write_bytes(b"damaged")
    status, out, _ = run("check", "--store", there, *image)
    assert status == 4 and objects(store, kind)[0].parent.name in out
    for path in objects(store, kind):
        path.unlink()
    status, out, err = run("check", "--store", there, *image)
    if kind == "manifests":
        assert (status, out) == (10, "") and "no image blake3:" in err and err.count("\n") == 1
    else:
        assert status == 4 and "missing" in out


def test_what_a_named_image_lacks_is_repaired(
    run: Run, made: Path, store: Path, mirror: str
) -> None:
    image = ("--image", f"oci:{made.parent}/boot-b")
    for kind in ("packs", "indexes", "bootstraps"):
        objects(store, kind)[0].unlink()
    status, out, _ = run("check", "--store", store, *image, "--repair", mirror)
    lacked = out.count("  repaired from")
    assert status == 0 and lacked >= 1 and f"{lacked} repaired" in out.splitlines()[-1]
    assert run("check", "--store", store, *image)[0] == 0


def test_without_a_store_there_is_nothing_to_check(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for place in ("none", "empty"):
        assert run("check", "--store", tmp_path / place)[0] == 10
    (tmp_path / "empty" / "thesis").touch()
    assert run("check", "--store", tmp_path / "empty")[0] == 2


def test_progress_counts_the_bytes_of_packs(run: Run, store: Path) -> None:
    _, _, err = run("check", "--store", store, "--progress", "json")
    last = json.loads(err.splitlines()[-1])
    size = sum(path.stat().st_size for path in objects(store, "packs"))
    assert last == {"step": "check", "done": size, "total": size, "finished": True}


def test_an_interruption_is_one_line_and_changes_nothing(
    run: Run, store: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects(store, "packs")[0].write_bytes(b"damaged")
    before = contents(store)
    calls = 0

    def interrupt(*_: object) -> str:
        nonlocal calls
        calls += 1
        raise KeyboardInterrupt

    monkeypatch.setattr("store.write.repairing._fetch_whole", interrupt)
    monkeypatch.setattr("store.write.repairing._iter_pieces", interrupt)
    status, _, err = run("check", "--store", store, "--repair", made)
    assert status == 130 and err.count("\n") == 1 and calls == 1
    assert contents(store) == before
