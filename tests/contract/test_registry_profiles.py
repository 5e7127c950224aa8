"""Profiles as a container reads them from a registry: how many requests, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from store.errors import (
    AccessDenied,
    BootfsError,
    FormatError,
    IntegrityError,
    PackNotFound,
    RemoteProtocolError,
    SizeMismatch,
)
from store.format.digest import digest_of
from store.format.distribution import profiles_tag
from store.format.names import hot_pack_name, profiles_name
from store.format.profile import DOCUMENT_LIMIT, Profile, parse_profiles
from store.read.source import open_source
from store.write.backends.registry import RegistryBackend
from store.write.profileartifact import ProfileArtifacts
from store.write.profiles import encode_profiles
from store.write.profilestore import read_profiles
from store.write.registry.manifest import OCI_MANIFEST, Manifest
from tests.support.registries import REPOSITORY, TokenFront, write_docker_config
from tests.support.registrystores import tags_of
from tests.support.require import require
from tests.support.scripted import ScriptedServer, response
from tests.support.servers import Nginx, Registry

IMAGE = digest_of(b"image")
HOT = b"hot pack" * 1000
NAME = profiles_name(IMAGE)


def url_of(registry: Registry, repository: str = REPOSITORY) -> str:
    return f"docker://{registry.host_port}/{repository}"


def document(hot: bytes = HOT) -> bytes:
    profile = Profile("a", [b"/a"])
    profile.hot_pack, profile.hot_pack_size = hashlib.sha256(hot).digest(), len(hot)
    return encode_profiles(IMAGE, [profile])


def hot_name(hot: bytes = HOT) -> str:
    return hot_pack_name(hashlib.sha256(hot).digest())


@pytest.fixture
def backend(registry: Registry) -> RegistryBackend:
    """Give a repository with a hot pack and the document that names it."""
    backend = RegistryBackend(url_of(registry))
    backend.write(hot_name(), iter((HOT[:100], HOT[100:])))
    backend.replace(NAME, iter((document(),)))
    yield backend
    backend.close()


def test_three_requests_lead_to_a_hot_pack(
    registry: Registry, backend: RegistryBackend, tmp_path: Path, serve: Callable[..., Nginx]
) -> None:
    front = TokenFront(registry, tmp_path, serve)
    write_docker_config(tmp_path / "auth", front.server.host_port)
    with closing(open_source(front.url, 5, auth=str(tmp_path / "auth"))) as source:
        source.dial()
        front.server.forget()
        found = bytearray()
        source.stream(NAME, DOCUMENT_LIMIT, found.extend)
        (profile,) = parse_profiles(bytes(found), IMAGE, NAME)
        found.clear()
        name = hot_pack_name(profile.hot_pack)
        assert source.stream(name, profile.hot_pack_size, found.extend) == len(HOT)
        assert found == HOT
    asked = front.server.requests()
    assert [request.path.split("/")[-2] for request in asked] == ["manifests", "blobs", "blobs"]
    assert {request.status for request in asked} <= {200, 206}


def test_what_changes_is_seen(registry: Registry, backend: RegistryBackend) -> None:
    other = b"other" * 999
    with closing(open_source(url_of(registry), 5)) as source:
        for hot in (HOT, other, HOT):
            backend.write(hot_name(hot), iter((hot,)))
            backend.replace(NAME, iter((document(hot),)))
            found = bytearray()
            source.stream(NAME, DOCUMENT_LIMIT, found.extend)
            assert bytes(found) == document(hot)
            # And of the manifests before none is left.
            assert set(backend.iter_names("")) >= {NAME, hot_name(hot)}
    assert tags_of(registry) == [profiles_tag(IMAGE)]


def test_others_see_what_is_there(registry: Registry, backend: RegistryBackend) -> None:
    with closing(RegistryBackend(url_of(registry))) as other:
        assert list(other.iter_names("profiles/")) == [NAME]
        assert list(other.iter_names("hot/")) == [hot_name()]
        assert list(other.iter_names("packs/")) == [] and set(other.iter_names("")) == {
            NAME,
            hot_name(),
        }
        assert other.has(NAME) and other.has(hot_name()) and other.size(hot_name()) == len(HOT)
        assert other.fetch(NAME, 0, other.size(NAME)) == document()
        other.remove([NAME])
        assert not other.has(NAME) and list(other.iter_names("profiles/")) == []
        other.remove([NAME])
    assert tags_of(registry) == []
    with pytest.raises(PackNotFound):
        backend.size(NAME)


def test_a_document_whose_hot_pack_is_not_there_is_not_written(registry: Registry) -> None:
    with closing(RegistryBackend(url_of(registry))) as backend:
        with pytest.raises(PackNotFound, match="hot pack was collected"):
            backend.replace(NAME, iter((document(),)))
        assert not backend.has(NAME)
        with pytest.raises(IntegrityError):
            backend.replace(NAME, iter((document()[:-1],)))
        with pytest.raises(IntegrityError, match="digest is"):
            backend.replace(hot_name(), iter((b"something else",)))
        assert not backend.has(hot_name())


@pytest.mark.parametrize("what", ["another kind", "no document", "another's blob", "later"])
def test_what_else_stands_under_the_tag_is_damage_and_can_go(
    backend: RegistryBackend, what: str
) -> None:
    repository, tag = backend.repository, profiles_tag(IMAGE)
    manifest = json.loads(repository.fetch_manifest(tag).data)
    if what == "another kind":
        del manifest["artifactType"]
    elif what == "no document":
        del manifest["layers"][0]
    elif what == "later":
        manifest["artifactType"] = "application/vnd.bootfs.profiles.v2"
    else:
        manifest["layers"][1]["digest"] = manifest["layers"][0]["digest"]
    repository.push_manifest(tag, Manifest(json.dumps(manifest).encode(), OCI_MANIFEST))
    with pytest.raises(FormatError if what == "later" else IntegrityError):
        read_profiles(backend, IMAGE)
    assert (
        NAME in set(backend.iter_names(""))
        and hot_name() not in ProfileArtifacts(repository).iter_names()
    )
    backend.remove([NAME])
    assert read_profiles(backend, IMAGE) == []


def test_who_may_not_remove_may_replace(
    backend: RegistryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> bool:
        raise AccessDenied("no")

    monkeypatch.setattr(type(backend.repository), "remove_manifest", refuse)
    backend.write(hot_name(b"x"), iter((b"x",)))
    backend.replace(NAME, iter((document(b"x"),)))
    assert read_profiles(backend, IMAGE)[0].hot_pack_size == 1
    with pytest.raises(AccessDenied):
        backend.remove([NAME])


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (response("404 Not Found", b"{}"), PackNotFound, "404"),
        (response("200 OK", b"{"), RemoteProtocolError, "not a manifest"),
        (response("200 OK", b"[]"), RemoteProtocolError, "not a manifest"),
        (response("200 OK", b"[" * 2000), RemoteProtocolError, "not a manifest"),
        (response("200 OK", b"{}"), RemoteProtocolError, "not the profiles"),
        (response("200 OK", b" " * ((1 << 20) + 1)), SizeMismatch, "expected 1048576"),
        (response("500 Oops", b""), BootfsError, "500"),
    ],
)
def test_what_registries_may_answer_is_an_error(
    answer: bytes, error: type[BootfsError], words: str
) -> None:
    with (
        ScriptedServer(("request", answer)) as server,
        closing(open_source(f"docker://127.0.0.1:{server.port}/{REPOSITORY}", 3)) as source,
        pytest.raises(error, match=words),
    ):
        source.stream(NAME, DOCUMENT_LIMIT, lambda _: None)


def test_profiles_are_only_streamed(registry: Registry, backend: RegistryBackend) -> None:
    with closing(open_source(url_of(registry), 3)) as source, pytest.raises(PackNotFound):
        source.fetch(NAME, 0, 10)


def test_skopeo_copies_profiles_by_their_tag(registry: Registry, backend: RegistryBackend) -> None:
    require("skopeo")
    skopeo = shutil.which("skopeo")
    assert skopeo
    tag = profiles_tag(IMAGE)
    places = [f"docker://{registry.host_port}/{name}:{tag}" for name in (REPOSITORY, "copy")]
    insecure = ("--src-tls-verify=false", "--dest-tls-verify=false")
    subprocess.run([skopeo, "copy", *insecure, *places], check=True, capture_output=True)
    with closing(RegistryBackend(url_of(registry, "copy"))) as copied:
        assert read_profiles(copied, IMAGE)[0].name == "a"
        assert copied.fetch(hot_name(), 0, len(HOT)) == HOT
