"""Boot image and data under one tag of one repository."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest

from converter.cli import main
from store.errors import PackNotFound
from store.write.backends import open_backend
from store.write.backends.registry import RegistryBackend
from store.write.collecting import forget
from tests.support.layers import docker_archive, file, tar_of
from tests.support.registries import REPOSITORY, basic_registry, proxied, write_docker_config
from tests.support.registrystores import (
    blobs_of,
    collect_garbage,
    manifest_of,
    problems_in,
    tags_of,
)
from tests.support.require import require
from tests.support.servers import Nginx, Registry
from tests.support.tokenserver import PASSWORD

LARGE = file("large", Random(1).randbytes(150_000))
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
ARTIFACT = "application/vnd.bootfs.store.v1"
Convert = Callable[..., dict[str, Any]]


@pytest.fixture
def url(registry: Registry) -> str:
    return f"docker://{registry.host_port}/{REPOSITORY}"


@pytest.fixture
def convert_image(tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]) -> Convert:
    """Give a function that converts an image, made of a number, into a tag."""

    def call(number: int, tag: str, *options: str) -> dict[str, Any]:
        own = file("own", Random(number).randbytes(150_000))
        archive = tmp_path / f"{number}.tar"
        archive.write_bytes(docker_archive(tar_of(own, LARGE)))
        capsys.readouterr()
        command = ["convert", f"docker-archive:{archive}", f"{url}:{tag}", "--store", "registry"]
        assert main([*command, "--json", *options]) == 0
        report: dict[str, Any] = json.loads(capsys.readouterr().out)
        return report

    return call


def children(registry: Registry, tag: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Give the entries of the boot image and of the artifact under a tag."""
    index = manifest_of(registry, tag)
    assert index["mediaType"] == INDEX
    boot, artifact = index["manifests"]
    return boot, artifact


def check_child_tags(registry: Registry) -> None:
    """Every manifest that an index lists has a tag of its own."""
    tagged = {}
    for tag in tags_of(registry):
        document = manifest_of(registry, tag)
        tagged[tag] = document
    listed = {m["digest"] for d in tagged.values() for m in d.get("manifests", [])}
    own = [t for t in tagged if t.startswith("bootfs-")]
    assert listed
    for tag in own:
        assert tagged[tag]["mediaType"] == MANIFEST
    assert len(own) == len(listed)


def test_one_tag_has_both(registry: Registry, url: str, convert_image: Convert) -> None:
    report = convert_image(1, "v1", "--mounted")
    boot, artifact = children(registry, "v1")
    assert boot["mediaType"] == artifact["mediaType"] == MANIFEST
    assert boot["platform"] == {"architecture": "amd64", "os": "linux"}
    assert artifact["platform"] == {"architecture": "unknown", "os": "unknown"}
    assert artifact["artifactType"] == ARTIFACT
    assert report["boot_image"]["reference"] == f"{url}:v1"
    stored = manifest_of(registry, artifact["digest"])
    assert stored["artifactType"] == ARTIFACT
    assert stored["subject"] == {key: boot[key] for key in ("digest", "mediaType", "size")}
    # This registry has no referrers API.
    referrers = manifest_of(registry, boot["digest"].replace(":", "-"))
    assert referrers["manifests"] == [
        {key: artifact[key] for key in ("artifactType", "digest", "mediaType", "size")}
    ]
    image = stored["layers"][0]["annotations"]["org.opencontainers.image.title"]
    tag = f"bootfs-{image.removeprefix('manifests/')}.{boot['digest'].removeprefix('sha256:')[:32]}"
    assert tags_of(registry) == sorted(
        [tag, f"{tag}.image", boot["digest"].replace(":", "-"), "v1"]
    )
    check_child_tags(registry)
    assert problems_in(url) == []


def test_the_boot_image_knows_its_store(
    url: str, convert_image: Convert, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    convert_image(1, "v1")
    convert_image(1, "elsewhere", "--blob-store", "https://mirror.example/a|/store")
    command = ["convert", f"docker-archive:{tmp_path}/1.tar", f"{url}:v1", "--store", "registry"]
    assert main(command) == 0
    assert f"the image's store is {url}, where a container finds itself" in capsys.readouterr().err
    assert main([*command[:2], f"{url}:other", *command[3:], "--blob-store", "/store"]) == 0
    assert capsys.readouterr().err == ""
    # Every release reads the one URL that the store of a registry has.
    convert_image(1, "user", "--blob-store", "DOCKER://user/app|/store|docker://index.docker.io/b/")
    in_hub = "docker://docker.io/user/app|/store|docker://docker.io/library/b"
    stores = {"v1": url, "elsewhere": "https://mirror.example/a|/store", "user": in_hub}
    convert_image(1, "slash", "--store", f"{url.replace('docker', 'Docker', 1)}/")
    for tag, store in (stores | {"slash": url}).items():
        assert main(["inspect", f"{url}:{tag}", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["blob_store"] == store


def test_it_is_the_source_s_tree(
    url: str, convert_image: Convert, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    convert_image(1, "v1")
    for store in (url, "registry", f"{url}|/nowhere"):
        command = ["check", f"docker-archive:{tmp_path}/1.tar", f"{url}:v1", "--store", store]
        assert main(command) == 0
        assert "0 differences" in capsys.readouterr().out
    assert main(["check", "--fetchable", f"{url}:v1"]) == 0
    assert "all can be fetched" in capsys.readouterr().out


def test_with_an_account_from_the_usual_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    archive = tmp_path / "image.tar"
    archive.write_bytes(docker_archive(tar_of(LARGE)))
    with basic_registry(tmp_path) as registry:
        url = f"docker://{registry.host_port}/{REPOSITORY}"
        convert = ["convert", f"docker-archive:{archive}", f"{url}:v1", "--store", "registry"]
        check = ["check", f"docker-archive:{archive}", f"{url}:v1", "--store", "registry"]
        for command in (convert, check):
            assert main(command) == 13
            assert f"{tmp_path}/docker/config.json" in capsys.readouterr().err
        write_docker_config(tmp_path / "docker", registry.host_port)
        for command in (convert, check, ["check", "--store", url], ["collect", url]):
            assert main(command) == 0
        # As this user, as a container without credentials, and as one that has them.
        fetchable = ["check", "--fetchable", f"{url}:v1"]
        (tmp_path / "empty").mkdir()
        capsys.readouterr()
        for auth, code in (((), 0), (("empty",), 13), (("docker",), 0)):
            given = [f"--auth={tmp_path}/{name}" for name in auth]
            assert main([*fetchable, *given]) == code
        said = "".join(capsys.readouterr())
        assert PASSWORD not in said


def test_again_is_the_same_and_sends_nothing(registry: Registry, convert_image: Convert) -> None:
    first = convert_image(1, "v1")
    blobs, tags = blobs_of(registry), tags_of(registry)
    second = convert_image(1, "v1")
    assert first["boot_image"] == second["boot_image"] and second["new_stored_bytes"] == 0
    assert (blobs_of(registry), tags_of(registry)) == (blobs, tags)


def test_two_boot_images_of_one_tree_each_have_their_artifact(
    registry: Registry, url: str, convert_image: Convert
) -> None:
    convert_image(1, "a")
    convert_image(1, "b", "--blob-store", "/store")
    (boot_a, artifact_a), (boot_b, artifact_b) = children(registry, "a"), children(registry, "b")
    assert boot_a["digest"] != boot_b["digest"] and artifact_a["digest"] != artifact_b["digest"]
    check_child_tags(registry)
    collect_garbage(registry, "-m")
    assert children(registry, "a")[1] == artifact_a
    for digest in (boot_a, boot_b, artifact_a, artifact_b):
        assert manifest_of(registry, digest["digest"])
    assert problems_in(url) == []


@pytest.mark.parametrize("options", [(), ("-m",)], ids=["referenced", "untagged too"])
def test_of_two_images_the_other_stays_whole(
    registry: Registry,
    url: str,
    convert_image: Convert,
    options: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    convert_image(1, "v1")
    second = convert_image(2, "v2")
    assert 150_000 < second["new_stored_bytes"] < 160_000
    boot, artifact = children(registry, "v2")
    assert main(["forget", url, f"{url}:v2"]) == 0
    assert "v2" not in tags_of(registry) and len(tags_of(registry)) == 4
    before = blobs_of(registry)
    collect_garbage(registry, *options)
    left = blobs_of(registry)
    assert sum(before.values()) - sum(left.values()) > 150_000
    assert not {boot["digest"], artifact["digest"]} & left.keys()
    assert problems_in(url) == []
    capsys.readouterr()
    command = ["check", f"docker-archive:{tmp_path}/1.tar", f"{url}:v1", "--store", url]
    assert main(command) == 0
    check_child_tags(registry)


@pytest.fixture
def of_one_tree(registry: Registry, url: str, convert_image: Convert, tmp_path: Path) -> str:
    """Convert one tree for several boot images; return the digest of its chunk index.

    Tag ``1`` is one boot image, ``2`` another; a third, ``apart``, is in no registry.
    """
    convert_image(1, "1")
    convert_image(1, "2", "--blob-store", "/store")
    apart = ["convert", f"docker-archive:{tmp_path}/1.tar", f"oci:{tmp_path}/apart"]
    assert main([*apart, "--store", url]) == 0
    titles = manifest_of(registry, children(registry, "1")[1]["digest"])["layers"]
    title: str = titles[0]["annotations"]["org.opencontainers.image.title"]
    return title.removeprefix("manifests/")


def check_whole(url: str, source: Path, boot_image: str) -> None:
    assert main(["check", f"docker-archive:{source}", boot_image, "--store", url]) == 0
    assert problems_in(url) == []


def test_of_two_boot_images_of_one_tree_the_named_one_is_forgotten(
    registry: Registry,
    url: str,
    of_one_tree: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (boot, artifact), other = children(registry, "1"), children(registry, "2")
    capsys.readouterr()
    assert main(["forget", url, f"{url}:1"]) == 0
    said = capsys.readouterr().out
    assert f"boot image {boot['digest']} forgotten, 1 tag (1) removed" in said
    assert "garbage collector" in said
    collect_garbage(registry, "-m")
    assert not {boot["digest"], artifact["digest"]} & blobs_of(registry).keys()
    assert children(registry, "2") == other
    short = boot["digest"].removeprefix("sha256:")[:32]
    assert not [tag for tag in tags_of(registry) if short in tag]
    check_whole(url, tmp_path / "1.tar", f"{url}:2")
    # What is elsewhere has an artifact of its own; that one goes without the others.
    capsys.readouterr()
    assert main(["forget", url, f"oci:{tmp_path}/apart"]) == 0
    said = capsys.readouterr().out
    assert f"blake3:{of_one_tree} forgotten, for every boot image outside" in said
    assert "0 tags removed" in said and "other settings" in said
    assert f"bootfs-{of_one_tree}" not in tags_of(registry)
    check_whole(url, tmp_path / "1.tar", f"{url}:2")
    # By then there is none for it, and the other's data are not its own.
    command = ["convert", f"docker-archive:{tmp_path}/1.tar", f"oci:{tmp_path}/apart"]
    shutil.rmtree(tmp_path / "apart")
    for _ in range(2):
        assert main([*command, "--store", url]) == 0
        assert f"bootfs-{of_one_tree}" in tags_of(registry)
    assert main(["forget", url, f"oci:{tmp_path}/apart"]) == 0
    capsys.readouterr()
    assert main(["forget", url, f"oci:{tmp_path}/apart"]) == 10
    assert f"for other boot images alone: {other[0]['digest']}" in capsys.readouterr().err
    assert main(["forget", url, f"{url}:2"]) == 0
    assert tags_of(registry) == []
    assert main(["forget", url, f"oci:{tmp_path}/apart"]) == 10


def test_what_has_other_tags_too_is_refused_and_they_are_listed(
    registry: Registry, url: str, convert_image: Convert, capsys: pytest.CaptureFixture[str]
) -> None:
    for tag in ("v1", "latest", "stable"):
        convert_image(1, tag)
    convert_image(2, "next")
    boot, _ = children(registry, "v1")
    # Also where it is without its data, by itself or as one of several images.
    with closing(open_backend(url)) as backend:
        assert isinstance(backend, RegistryBackend)
        from converter.images.joined import _index_of

        alone = backend.repository.fetch_manifest(boot["digest"])
        backend.repository.push_manifest("alone", alone)
        several = [boot, children(registry, "next")[0]]
        backend.repository.push_manifest("several", _index_of(several))
    before = tags_of(registry)
    capsys.readouterr()
    assert main(["forget", url, f"{url}:v1"]) == 2
    refusal = capsys.readouterr().err
    assert "4 tags (alone, latest, several, stable) too" in refusal
    assert f"forget {url}@{boot['digest']} to remove them all" in refusal
    assert tags_of(registry) == before and problems_in(url) == []
    assert main(["forget", url, f"{url}@{boot['digest']}"]) == 0
    # The image that is one of several stays, as what lists it has something else.
    assert "3 tags (latest, stable, v1) removed" in capsys.readouterr().out
    assert manifest_of(registry, "several")["manifests"] == several
    assert manifest_of(registry, boot["digest"]) and "next" in tags_of(registry)
    assert problems_in(url) == []


def test_a_copy_from_elsewhere_names_a_boot_image_that_has_one_tag(
    registry: Registry,
    url: str,
    convert_image: Convert,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    require("skopeo")
    convert_image(1, "v1")
    convert_image(2, "v2")
    # An archive has no manifest: there the boot image is known by its config.
    kinds = {"v1": f"oci:{tmp_path}/copy", "v2": f"docker-archive:{tmp_path}/copy.tar"}
    for tag, copy in kinds.items():
        command = ["skopeo", "copy", "-q", "--src-tls-verify=false", f"{url}:{tag}", copy]
        subprocess.run(command, check=True)
        convert_image(int(tag[1:]), f"again-{tag}")
        assert main(["forget", url, copy]) == 2
        assert f"2 tags (again-{tag}, {tag})," in capsys.readouterr().err
        convert_image(3, f"again-{tag}")
        capsys.readouterr()
        assert main(["forget", url, copy]) == 0
        assert f"1 tag ({tag}) removed" in capsys.readouterr().out
        assert problems_in(url) == []
    boot, _ = children(registry, "again-v1")
    assert main(["forget", url, f"{url}@{boot['digest']}"]) == 0
    assert tags_of(registry) == []


def test_by_its_chunk_index_every_boot_image_of_it_is_forgotten(
    registry: Registry,
    url: str,
    of_one_tree: str,
    convert_image: Convert,
    capsys: pytest.CaptureFixture[str],
) -> None:
    convert_image(1, "again")
    convert_image(2, "other")
    capsys.readouterr()
    image = of_one_tree
    assert main(["forget", url, f"blake3:{image}"]) == 0
    said = capsys.readouterr().out
    assert f"blake3:{image} forgotten, 3 tags (1, 2, again) removed; the registry's" in said
    assert "other" in tags_of(registry) and len(tags_of(registry)) == 4
    assert problems_in(url) == []
    assert main(["forget", url, f"blake3:{image}"]) == 10


def test_an_older_image_keeps_its_data_when_its_tag_moves_on(
    registry: Registry, url: str, convert_image: Convert
) -> None:
    convert_image(1, "latest")
    boot, artifact = children(registry, "latest")
    convert_image(2, "latest")
    collect_garbage(registry, "-m")
    assert manifest_of(registry, boot["digest"]) and manifest_of(registry, artifact["digest"])
    assert problems_in(url) == []


def test_an_index_with_something_else_in_it_stays(
    registry: Registry, url: str, convert_image: Convert
) -> None:
    convert_image(1, "v1")
    convert_image(2, "v2")
    entries = [*children(registry, "v1"), *children(registry, "v2")]
    with closing(open_backend(url)) as backend:
        assert isinstance(backend, RegistryBackend)
        from converter.images.joined import _index_of

        backend.repository.push_manifest("both", _index_of(entries))
        title = manifest_of(registry, entries[1]["digest"])["layers"][0]["annotations"]
        image = title["org.opencontainers.image.title"].removeprefix("manifests/")
        forget(backend, bytes.fromhex(image))
        with pytest.raises(PackNotFound):
            backend.find_artifact(bytes.fromhex(image))
    tags = tags_of(registry)
    assert "both" in tags and "v2" in tags and "v1" not in tags
    assert problems_in(url) == []


def test_where_the_registry_lists_referrers_it_has_no_tag_for_them(
    registry: Registry,
    url: str,
    convert_image: Convert,
    serve: Callable[..., Nginx],
    tmp_path: Path,
) -> None:
    """This registry does not: here a server before it says what another would."""
    convert_image(1, "v1")
    boot, artifact = children(registry, "v1")
    listed = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [artifact]})
    with Registry() as other:
        answer = f"default_type {INDEX}; if ($uri ~ /referrers/) {{ return 200 '{listed}'; }}"
        front = serve(tmp_path, extra=proxied(other, answer))
        there = f"docker://{front.host_port}/{REPOSITORY}"
        # The boot image, and with it the artifact, is the same when it names the same store.
        command = ["convert", f"docker-archive:{tmp_path}/1.tar", f"{there}:v1"]
        assert main([*command, "--store", "registry", "--blob-store", url]) == 0
        assert children(other, "v1") == (boot, artifact)
        assert boot["digest"].replace(":", "-") not in tags_of(other)
        assert len(tags_of(other)) == 3
        with closing(open_backend(there)) as backend:
            names = list(backend.iter_names("manifests/"))
            forget(backend, bytes.fromhex(names[0].removeprefix("manifests/")))
        assert tags_of(other) == []


def test_a_conversion_that_fails_last_of_all_shows_nothing_and_is_repeated(
    registry: Registry,
    url: str,
    serve: Callable[..., Nginx],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    refusal = "set $m $request_method$uri; if ($m ~ ^PUT.*/manifests/v1$) { return 403; }"
    front = serve(tmp_path, extra=proxied(registry, refusal))
    archive = tmp_path / "image.tar"
    archive.write_bytes(docker_archive(tar_of(LARGE)))
    command = ["convert", f"docker-archive:{archive}"]
    through = f"docker://{front.host_port}/{REPOSITORY}:v1"
    options = ["--store", "registry", "--blob-store", url, "--json"]
    assert main([*command, through, *options]) == 13
    assert "v1" not in tags_of(registry)
    # The data is whole, and used again.
    assert problems_in(url) == []
    capsys.readouterr()
    assert main([*command, f"{url}:v1", *options]) == 0
    assert json.loads(capsys.readouterr().out)["new_stored_bytes"] == 0
    check_child_tags(registry)


def test_skopeo_copies_both(
    registry: Registry, url: str, convert_image: Convert, tmp_path: Path
) -> None:
    require("skopeo")
    convert_image(1, "v1")
    with Registry() as second:
        there = f"docker://{second.host_port}/copied/to"
        command = ["skopeo", "copy", "-q", "--all", "--src-tls-verify=false"]
        subprocess.run(
            [*command, "--dest-tls-verify=false", f"{url}:v1", f"{there}:v1"], check=True
        )
        copied = [entry["digest"] for entry in manifest_of(second, "v1", "copied/to")["manifests"]]
        assert copied == [entry["digest"] for entry in children(registry, "v1")]
        # What was copied is a store: found by the index, since its own tags are not.
        assert tags_of(second, "copied/to") == ["v1"]
        assert problems_in(there) == []
        with closing(open_backend(there)) as backend:
            assert len(list(backend.iter_names("packs/"))) == 1


def test_a_destination_in_no_registry_has_none_for_a_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["convert", "docker-archive:/none.tar", f"oci:{tmp_path}/boot", "--store", "registry"]
    assert main(command) == 2
    assert "is in no registry; give DEST as docker://" in capsys.readouterr().err
    assert main([*command[:3], "--mount-from", "docker://127.0.0.1:1/a"]) == 2
    assert "mounted into a registry's store alone" in capsys.readouterr().err
