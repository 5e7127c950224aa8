"""What is particular to stores in registries: what others see, and who frees what."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from converter.cli import main
from converter.convert import convert
from converter.progress import Silent
from converter.reference import parse_reference
from store.errors import (
    AccessDenied,
    DigestMismatch,
    NotFound,
    PackNotFound,
    UnsupportedVersion,
    UsageError,
)
from store.format.names import STORE_MARK, STORE_MARK_TEXT, manifest_name, pack_name
from store.write.artifact import ARTIFACT_TYPE
from store.write.backends import open_backend
from store.write.backends.registry import RegistryBackend
from store.write.collecting import collect, forget
from store.write.roots import commit
from tests.support.layers import docker_archive, file, tar_of
from tests.support.registries import REPOSITORY, basic_registry, push_blob, write_docker_config
from tests.support.registrystores import (
    as_text,
    blobs_of,
    collect_garbage,
    convert_into,
    manifest_of,
    problems_in,
    tags_of,
)
from tests.support.servers import Registry

SHARED = file("shared", Random(1).randbytes(150_000))
IMAGES = {
    name: docker_archive(tar_of(file("own", Random(n).randbytes(150_000)), SHARED))
    for n, name in enumerate("ab", 2)
}


@pytest.fixture
def url(registry: Registry) -> str:
    return f"docker://{registry.host_port}/{REPOSITORY}"


@pytest.fixture
def convert_image(tmp_path: Path, url: str) -> Callable[[str], tuple[bytes, int]]:
    for name, data in IMAGES.items():
        (tmp_path / f"{name}.tar").write_bytes(data)
    return lambda name: convert_into(url, tmp_path / f"{name}.tar", f"oci:{tmp_path}/boot-{name}")


def tag_of(image: bytes) -> str:
    return f"bootfs-{image.hex()}"


def packs_of(document: dict[str, list[dict[str, str]]]) -> set[str]:
    kind = "application/vnd.bootfs.pack.v1"
    return {layer["digest"] for layer in document["layers"] if layer["mediaType"] == kind}


def test_an_image_is_one_artifact_that_anybody_can_read(
    registry: Registry, url: str, convert_image: Callable[[str], tuple[bytes, int]]
) -> None:
    image, _ = convert_image("a")
    assert tags_of(registry) == [tag_of(image)]
    document = manifest_of(registry, tag_of(image))
    with closing(open_backend(url)) as backend:
        assert STORE_MARK in list(backend.iter_names(""))
        assert backend.fetch(STORE_MARK, 0, len(STORE_MARK_TEXT)) == STORE_MARK_TEXT
        names = [name for name in backend.iter_names("") if name != STORE_MARK]
        titles = {
            layer["annotations"]["org.opencontainers.image.title"]: layer
            for layer in document["layers"]
        }
        assert sorted(titles) == names
        for name, layer in titles.items():
            assert backend.size(name) == layer["size"]
            data = backend.fetch(name, 0, layer["size"])
            assert layer["digest"] == f"sha256:{hashlib.sha256(data).hexdigest()}"
        assert backend.age_s(names[0], 1e12) == 0.0
        assert backend.refresh(names[0])
        assert list(backend.iter_unfinished()) == []
        with pytest.raises(PackNotFound):
            backend.age_s("packs/none", 0.0)
    assert problems_in(url) == []


def test_the_artifact_is_byte_for_byte_what_the_document_says(
    registry: Registry, convert_image: Callable[[str], tuple[bytes, int]]
) -> None:
    image, _ = convert_image("a")
    document = manifest_of(registry, tag_of(image))
    layers = document["layers"]
    kinds = [layer["mediaType"].removeprefix("application/vnd.bootfs.") for layer in layers]
    assert kinds == ["manifest.v1+json", "chunk-index.v1", "bootstrap.v1", "pack.v1"]
    titles = [layer["annotations"]["org.opencontainers.image.title"] for layer in layers]
    pack = layers[-1]["digest"].removeprefix("sha256:")
    name = image.hex()
    assert titles == [
        *(f"manifests/{name}", f"indexes/{name}", f"bootstraps/{name}"),
        f"packs/{pack[:2]}/{pack}",
    ]
    empty = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert document == {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.bootfs.store.v1",
        "config": {
            "mediaType": "application/vnd.oci.empty.v1+json",
            "digest": f"sha256:{empty}",
            "size": 2,
        },
        "layers": layers,
    }
    digest = f"sha256:{hashlib.sha256(as_text(document).encode()).hexdigest()}"
    assert digest in blobs_of(registry)


def test_what_a_repository_has_is_not_stored_again(
    url: str, convert_image: Callable[[str], tuple[bytes, int]]
) -> None:
    _, first = convert_image("a")
    _, second = convert_image("b")
    assert first > 300_000
    assert 150_000 < second < 160_000
    assert problems_in(url) == []


@pytest.mark.parametrize("options", [(), ("-m",)], ids=["referenced", "untagged too"])
def test_the_registry_keeps_what_is_needed_and_frees_the_rest(
    registry: Registry,
    url: str,
    convert_image: Callable[[str], tuple[bytes, int]],
    options: tuple[str, ...],
) -> None:
    a, _ = convert_image("a")
    b, _ = convert_image("b")
    of_a, of_b = (packs_of(manifest_of(registry, tag_of(image))) for image in (a, b))
    before = blobs_of(registry)
    collect_garbage(registry, *options)
    assert blobs_of(registry).keys() == before.keys()
    with closing(open_backend(url)) as backend:
        forget(backend, b)
        with pytest.raises(NotFound):
            forget(backend, b)
        assert not backend.has(manifest_name(b))
    assert tags_of(registry) == [tag_of(a)]
    collect_garbage(registry, *options)
    left = blobs_of(registry).keys()
    # What both need, a pack of the first conversion, stays.
    assert of_a & of_b and of_a <= left
    assert of_b - of_a and not (of_b - of_a) & left
    assert problems_in(url) == []
    again, new = convert_image("b")
    assert again == b and new > 150_000 and problems_in(url) == []


def test_a_conversion_whose_packs_were_collected_ends_in_an_error(
    registry: Registry, url: str, convert_image: Callable[[str], tuple[bytes, int]], tmp_path: Path
) -> None:
    a, _ = convert_image("a")
    packs = packs_of(manifest_of(registry, tag_of(a)))
    with closing(open_backend(url)) as backend:
        named = [(bytes.fromhex(p.removeprefix("sha256:")), 1) for p in packs]
        with closing(open_backend(url)) as other:
            forget(other, a)
        collect_garbage(registry)
        backend.write(f"indexes/{a.hex()}", iter((b"index",)))
        backend.write(f"bootstraps/{a.hex()}", iter((b"bootstrap",)))
        with pytest.raises(PackNotFound, match="convert again"):
            commit(backend, a, named)
    assert tags_of(registry) == []


def test_the_registry_checks_what_a_manifest_names(registry: Registry, url: str) -> None:
    """Where a pack goes after it was looked for and before the manifest is written."""
    image = bytes(32)
    with closing(open_backend(url)) as backend:
        backend.write(f"indexes/{image.hex()}", iter((b"index",)))
        backend.write(f"bootstraps/{image.hex()}", iter((b"bootstrap",)))
        gone = hashlib.sha256(b"never written").digest()
        manifest = {
            "kind": "bootfs store manifest",
            "version": 1,
            "chunkIndex": f"blake3:{image.hex()}",
            "packs": [{"digest": f"sha256:{gone.hex()}", "size": 7}],
        }
        data = json.dumps(manifest).encode()
        with pytest.raises(PackNotFound, match="collected meanwhile; convert again"):
            backend.replace(manifest_name(image), iter((data,)))
        assert not backend.has(manifest_name(image))
    assert tags_of(registry) == []


def test_a_pack_is_what_its_name_says(registry: Registry, url: str) -> None:
    with closing(open_backend(url)) as backend:
        with pytest.raises(DigestMismatch):
            backend.write(pack_name(bytes(32)), iter((b"something else",)))
        assert not backend.has(pack_name(bytes(32)))


def test_a_blob_that_no_manifest_names_is_found_by_its_name(registry: Registry, url: str) -> None:
    """Left by a conversion that was killed: another one goes on with it."""
    digest = push_blob(registry, b"a pack")
    name = pack_name(bytes.fromhex(digest.removeprefix("sha256:")))
    with closing(open_backend(url)) as backend:
        assert list(backend.iter_names("packs/")) == []
        assert backend.has(name) and backend.size(name) == 6 and backend.refresh(name)
        with pytest.raises(UsageError, match="garbage collector"):
            backend.remove([name])


def test_nothing_is_left_to_collect(
    url: str,
    convert_image: Callable[[str], tuple[bytes, int]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    a, _ = convert_image("a")
    with closing(open_backend(url)) as backend:
        found = collect(backend, 0.0, 1e12, delete=False)
    assert (found.old, found.young, found.images) == ([], [], [a])
    assert main(["collect", url]) == 0
    assert capsys.readouterr().out.startswith("0 objects, 0.0 MB")
    assert main(["collect", url, "--delete"]) == 2
    assert "the registry frees by itself" in capsys.readouterr().err
    assert main(["forget", url, f"blake3:{a.hex()}"]) == 0
    assert "garbage collector" in capsys.readouterr().out
    assert main(["collect", url]) == 10
    assert "there is no bootfs store" in capsys.readouterr().err


def test_packs_of_another_repository_are_mounted(
    registry: Registry, url: str, convert_image: Callable[[str], tuple[bytes, int]], tmp_path: Path
) -> None:
    a, _ = convert_image("a")
    packs = packs_of(manifest_of(registry, tag_of(a)))
    other = f"docker://{registry.host_port}/other/place"
    with closing(open_backend(other)) as backend:
        assert isinstance(backend, RegistryBackend)
        backend.mount_from(url)
        (name,) = backend.iter_names("packs/")
        assert not backend.has(name) and backend.size(name) > 300_000
        with pytest.raises(UsageError, match="another repository"):
            backend.mount_from(other)
        with pytest.raises(UsageError, match="another repository"):
            backend.mount_from("docker://127.0.0.1:1/other")
        report = convert(
            parse_reference(f"docker-archive:{tmp_path}/b.tar"),
            parse_reference(f"oci:{tmp_path}/boot-b"),
            backend,
            1,
            "",
            Silent(),
        )
        assert backend.has(name)
    assert 150_000 < report.new_stored_bytes < 160_000
    (tag,) = tags_of(registry, "other/place")
    assert packs < packs_of(manifest_of(registry, tag, "other/place"))
    assert problems_in(other) == []
    # What was mounted is the other repository's own from now on.
    with closing(open_backend(url)) as backend:
        forget(backend, a)
    collect_garbage(registry)
    assert problems_in(other) == []


def test_another_version_is_refused(registry: Registry, url: str) -> None:
    import urllib.request

    empty = push_blob(registry, b"{}")
    config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": empty, "size": 2}
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": ARTIFACT_TYPE[:-1] + "2",
        "config": config,
        "layers": [config],
    }
    request = urllib.request.Request(
        f"{registry.url}v2/{REPOSITORY}/manifests/other",
        data=json.dumps(manifest).encode(),
        method="PUT",
        headers={"Content-Type": manifest["mediaType"]},
    )
    urllib.request.urlopen(request).close()
    with closing(open_backend(url)) as backend, pytest.raises(UnsupportedVersion):
        backend.check()


def test_who_may_not_write_learns_it_before_a_conversion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    with basic_registry(tmp_path) as registry:
        url = f"docker://{registry.host_port}/{REPOSITORY}"
        for password in ("", "wrong horse"):
            if password:
                write_docker_config(tmp_path / "docker", registry.host_port, password)
            with closing(open_backend(url)) as backend, pytest.raises(AccessDenied, match="docker"):
                backend.check()
        write_docker_config(tmp_path / "docker", registry.host_port)
        with closing(open_backend(url)) as backend:
            backend.check()
            backend.create()
            assert backend.has(STORE_MARK)
