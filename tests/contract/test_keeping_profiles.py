"""Profiles and hot packs in stores that are kept: collected, forgotten, checked, asked for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from store.format.names import hot_pack_name, manifest_name, profiles_name
from store.format.profile import HEADER, MAGIC, Profile
from store.write.backends import open_backend
from store.write.backends.directory import DirectoryBackend
from store.write.collecting import GRACE_S, collect
from store.write.profilestore import read_profiles
from tests.support.profiled import Profiled, make_profiled, store_url
from tests.support.servers import Nginx, Registry
from tests.support.wholestores import LONG_AGO, files_of, make_old, problems_of

Run = Callable[..., tuple[int, str, str]]
Serve = Callable[..., Nginx]
NOW_S = LONG_AGO + 10 * GRACE_S


@pytest.fixture
def kept(run: Run, tmp_path: Path) -> Profiled:
    """Give a boot image in a directory, with one profile, and a hot pack of an older one."""
    stored = make_profiled(str(tmp_path / "store"), tmp_path)
    for number, reads in enumerate([[(0, 4)], [(80, 4)]]):
        assert add(run, stored, stored.trace(str(number), *reads)) == 0
    return stored


def add(run: Run, stored: Profiled, trace: Path) -> int:
    return run("profile", "add", stored.boot, "--store", stored.url, "--trace", trace)[0]


def profile_of(stored: Profiled) -> Profile:
    with closing(open_backend(stored.url)) as backend:
        (profile,) = read_profiles(backend, stored.image)
    return profile


def hot_packs(stored: Profiled) -> set[str]:
    return {name for name in files_of(Path(stored.url)) if name.startswith("hot/")}


def collected(stored: Profiled) -> set[str]:
    with closing(DirectoryBackend(stored.url)) as backend:
        return {one.name for one in collect(backend, GRACE_S, NOW_S, delete=True).old}


def test_a_collection_takes_hot_packs_that_no_profile_names(kept: Profiled) -> None:
    named = hot_pack_name(profile_of(kept).hot_pack)
    (old,) = hot_packs(kept) - {named}
    assert collected(kept) == set()
    make_old(Path(kept.url))
    assert collected(kept) == {old}
    assert hot_packs(kept) == {named} and collected(kept) == set()
    assert problems_of(Path(kept.url)) == []


def test_a_collection_takes_the_profiles_of_an_image_that_is_gone(kept: Profiled) -> None:
    (Path(kept.url) / manifest_name(kept.image)).unlink()
    make_old(Path(kept.url))
    taken = collected(kept)
    assert profiles_name(kept.image) in taken and not hot_packs(kept)
    assert files_of(Path(kept.url)) == {"bootfs-store"}


def test_damaged_profiles_go_and_no_hot_pack_with_them(kept: Profiled) -> None:
    document = Path(kept.url) / profiles_name(kept.image)
    document.write_bytes(document.read_bytes()[:-1])
    before = hot_packs(kept)
    # A young one may be about to be mended.
    assert collected(kept) == set() and document.exists()
    make_old(Path(kept.url))
    assert collected(kept) == {profiles_name(kept.image)}
    assert hot_packs(kept) == before
    assert collected(kept) == before and problems_of(Path(kept.url)) == []


def test_what_a_later_release_wrote_keeps_all_hot_packs(kept: Profiled) -> None:
    later = HEADER.pack(MAGIC, 2, 0, 0, kept.image, bytes(32))
    (Path(kept.url) / profiles_name(kept.image)).write_bytes(later)
    make_old(Path(kept.url))
    assert collected(kept) == set() and len(hot_packs(kept)) == 2
    (problem,) = problems_of(Path(kept.url))
    assert "version 2" in problem.what and not problem.is_fetchable


def test_a_forgotten_image_has_no_profiles_and_hot_packs_have_their_grace(
    run: Run, kept: Profiled
) -> None:
    named = hot_pack_name(profile_of(kept).hot_pack)
    make_old(Path(kept.url))
    assert run("forget", kept.url, kept.boot)[0] == 0
    assert not (Path(kept.url) / profiles_name(kept.image)).exists()
    assert named not in collected(kept) and hot_packs(kept) == {named}


def test_a_forgotten_image_with_damaged_profiles_is_forgotten(run: Run, kept: Profiled) -> None:
    (Path(kept.url) / profiles_name(kept.image)).write_bytes(b"damaged")
    assert run("forget", kept.url, kept.boot)[0] == 0
    assert not (Path(kept.url) / profiles_name(kept.image)).exists()


@pytest.mark.parametrize("kind", ["hot", "profiles"])
@pytest.mark.parametrize("images", [False, True])
def test_damage_is_found(run: Run, kept: Profiled, kind: str, images: bool) -> None:
    name = hot_pack_name(profile_of(kept).hot_pack)
    if kind == "profiles":
        name = profiles_name(kept.image)
    path = Path(kept.url) / name
    data = path.read_bytes()
    check = ("check", "--store", kept.url, *(("--image", kept.boot) if images else ()))
    assert run(*check)[0] == 0
    for at in (0, 50, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        status, out, _ = run(*check)
        assert status == 4 and name in out and "1 problems" in out
    path.unlink()
    status, out, _ = run(*check)
    if kind == "profiles":
        assert status == 0
    else:
        assert status == 4 and "missing, and profile 'app'" in out and "profile add" in out


@pytest.mark.parametrize("kind", ["directory", "server"])
def test_what_is_damaged_comes_from_a_mirror(
    run: Run, kept: Profiled, tmp_path: Path, serve: Serve, kind: str
) -> None:
    mirror = shutil.copytree(kept.url, tmp_path / "mirror")
    profile = profile_of(kept)
    hot_pack = Path(kept.url) / hot_pack_name(profile.hot_pack)
    document = Path(kept.url) / profiles_name(kept.image)
    hot_pack.write_bytes(b"damaged")
    document.write_bytes(b"damaged")
    url = str(mirror) if kind == "directory" else serve(mirror).url
    status, out, _ = run("check", "--store", kept.url, "--repair", url)
    assert status == 0 and "2 problems, 2 repaired" in out
    assert profile_of(kept).hot_pack == profile.hot_pack
    hot_pack.unlink()
    assert run("check", "--store", kept.url, "--repair", url)[0] == 0 and hot_pack.exists()


def test_what_no_mirror_has_is_removed_since_it_only_costs_time(
    run: Run, kept: Profiled, tmp_path: Path
) -> None:
    mirror = shutil.copytree(kept.url, tmp_path / "mirror")
    shutil.rmtree(mirror / "hot")
    (mirror / profiles_name(kept.image)).write_bytes(b"damaged too")
    damaged = [*hot_packs(kept), profiles_name(kept.image)]
    for name in damaged:
        (Path(kept.url) / name).write_bytes(b"damaged")
    repair = ("check", "--store", kept.url, "--repair", mirror)
    status, out, _ = run(*repair)
    assert status == 4 and out.count("removed, since it only makes starts faster") == 3
    assert not files_of(Path(kept.url)) & set(damaged)
    assert run(*repair)[0] == 0


def test_a_mirror_that_fails_removes_nothing(
    run: Run, kept: Profiled, serve: Serve, tmp_path: Path
) -> None:
    server = serve(shutil.copytree(kept.url, tmp_path / "mirror"), extra=DENIED)
    hot_pack = Path(kept.url) / hot_pack_name(profile_of(kept).hot_pack)
    hot_pack.write_bytes(b"damaged")
    status, out, _ = run("check", "--store", kept.url, "--repair", server.url)
    assert status == 4 and "not repaired" in out and hot_pack.read_bytes() == b"damaged"


DENIED = "location ~ /(hot|profiles)/ { deny all; }"


def test_what_is_fetchable_is_so_without_profiles(
    run: Run, kept: Profiled, serve: Serve, tmp_path: Path
) -> None:
    ask = ("check", "--fetchable", kept.boot, "--store")
    name = hot_pack_name(profile_of(kept).hot_pack)
    urls = [kept.url, serve(tmp_path / "store").url]
    for url in urls:
        assert run(*ask, url)[1].count("\n") == 1
    hot_pack = Path(kept.url) / name
    data = hot_pack.read_bytes()
    for damage in (None, data[:-1], data + b"x"):
        if damage is None:
            hot_pack.unlink()
        else:
            hot_pack.write_bytes(damage)
        for url in urls:
            status, out, err = run(*ask, url)
            assert (status, err) == (0, "") and out.count("\n") == 2
            assert f"{url}: warning: " in out and name in out and "do without" in out
    (Path(kept.url) / profiles_name(kept.image)).write_bytes(b"damaged")
    status, out, _ = run(*ask, urls[1], "--json")
    (answer,) = json.loads(out)
    assert status == 0 and answer["problems"] == [] and len(answer["warnings"]) == 1
    # Who denies what they do not have, of an image without profiles, is no matter.
    denying = serve(tmp_path / "store", extra=DENIED).url
    status, out, _ = run(*ask, denying)
    assert status == 0 and "403" in out
    assert run("check", "--store", denying, "--image", kept.boot)[0] == 0


def test_a_registry_keeps_profiles_and_frees_them(
    run: Run, registry: Registry, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    from tests.support.registrystores import blobs_of, collect_garbage, tags_of

    stored = make_profiled(store_url("registry", tmp_path, request), tmp_path)
    other = make_profiled(stored.url, tmp_path, "other", 7)
    for one in (stored, other):
        assert add(run, one, one.trace("1", (0, 4))) == 0
    replaced = profile_of(stored)
    assert add(run, stored, stored.trace("2", (80, 4))) == 0
    tags = [tag for tag in tags_of(registry) if tag.startswith("bootfs-profiles-")]
    assert tags == sorted(f"bootfs-profiles-{one.image.hex()}" for one in (stored, other))
    assert run("check", "--store", stored.url)[0] == 0
    assert run("check", "--fetchable", stored.boot, "--store", stored.url)[1].count("\n") == 1
    status, out, _ = run("collect", stored.url)
    assert status == 0 and out.startswith("0 objects")
    for options in ((), ("-m",)):
        collect_garbage(registry, *options)
        blobs = blobs_of(registry)
        for one in (stored, other):
            profile = profile_of(one)
            assert blobs[f"sha256:{profile.hot_pack.hex()}"] == profile.hot_pack_size
        assert f"sha256:{replaced.hot_pack.hex()}" not in blobs
    assert run("forget", stored.url, f"blake3:{stored.image.hex()}")[0] == 0
    assert [tag for tag in tags_of(registry) if "profiles" in tag] == [
        f"bootfs-profiles-{other.image.hex()}"
    ]
    gone = profile_of(other)
    collect_garbage(registry)
    assert f"sha256:{gone.hot_pack.hex()}" in blobs_of(registry)
    assert run("profile", "remove", other.boot, "--store", other.url, "--all")[0] == 0
    collect_garbage(registry)
    assert f"sha256:{gone.hot_pack.hex()}" not in blobs_of(registry)
    assert run("check", "--store", stored.url)[0] == 0
