"""Whom commands of this machine say they are, and by which proxies they go."""

from contextlib import closing
from pathlib import Path

import pytest

from store.errors import AccessDenied, UsageError
from store.format.repositoryurl import SCHEMES as REGISTRY_SCHEMES
from store.format.sshurl import SCHEMES as SSH_SCHEMES
from store.format.sshurl import is_ssh_url
from store.read.local import DirectorySource
from store.read.registry import RegistrySource
from store.read.remote import HttpSource
from store.read.source import open_one
from store.read.ssh import SshSource
from store.write.backends import open_backend
from store.write.backends.registry import RegistryBackend
from store.write.backends.sftp import SftpBackend
from store.write.hostaccess import auth_directory, environment_proxy
from store.write.hostregistry import HostRegistrySource
from store.write.hosts3 import HostS3Source
from store.write.hostsource import open_host_source


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("http", "https", "all", "no"):
        monkeypatch.delenv(f"{name}_proxy", raising=False)
        monkeypatch.delenv(f"{name.upper()}_PROXY", raising=False)
    for name in ("BOOTFS_AUTH", "XDG_CONFIG_HOME", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("origin", "proxy"),
    [
        ("http://store.example", "http://plain:1"),
        ("https://store.example:8443", "http://tls:2"),
        ("https://inside.example", ""),
        ("http://10.0.0.1:80", ""),
    ],
)
def test_proxies_are_those_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, origin: str, proxy: str
) -> None:
    assert environment_proxy(origin) == ""
    monkeypatch.setenv("HTTP_PROXY", "http://plain:1")
    monkeypatch.setenv("https_proxy", "http://tls:2")
    monkeypatch.setenv("NO_PROXY", "inside.example,10.0.0.1")
    assert environment_proxy(origin) == proxy


def test_one_proxy_may_be_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://all:3")
    assert environment_proxy("https://store.example") == "http://all:3"


def test_the_directory_is_the_user_s_or_the_one_that_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert auth_directory() == f"{tmp_path}/.config/bootfs/auth"
    monkeypatch.setenv("XDG_CONFIG_HOME", "/c")
    assert auth_directory() == "/c/bootfs/auth"
    monkeypatch.setenv("BOOTFS_AUTH", "/a")
    assert auth_directory() == "/a"


def test_each_kind_of_store_is_opened_with_it(tmp_path: Path) -> None:
    for url, kind in (
        ("http://store.example", HttpSource),
        (str(tmp_path), DirectorySource),
        ("s3://images/a", HostS3Source),
    ):
        with closing(open_host_source(url, 1)) as source:
            assert isinstance(source, kind) and source.location == url
    with pytest.raises(UsageError):
        open_host_source("ftp://store.example", 1)
    auth = tmp_path / ".config/bootfs/auth"
    auth.mkdir(parents=True)
    (auth / "http").write_text("nonsense\n")
    with pytest.raises(AccessDenied, match=f"{auth}/http: line 1"):
        open_host_source("http://store.example", 1)


def test_a_proxy_of_the_environment_that_is_none_is_said_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("http_proxy", "socks5://me:topsecret@p:1")
    with (
        closing(open_host_source("http://store.example", 1)) as source,
        pytest.raises(AccessDenied, match="the environment's proxy: not a proxy") as caught,
    ):
        source.fetch("name", 0, 1)
    assert "topsecret" not in str(caught.value)


def test_each_scheme_of_a_kind_is_known_wherever_stores_are_opened() -> None:
    """The boot path has them by heart, so as not to import what it does not open."""
    for scheme in REGISTRY_SCHEMES:
        url = f"{scheme}://h.example/a"
        with closing(open_one(url, 1, "", "")) as source:
            assert isinstance(source, RegistrySource)
        with closing(open_backend(url)) as backend:
            assert isinstance(backend, RegistryBackend)
        with closing(open_host_source(url, 1)) as source:
            assert isinstance(source, HostRegistrySource)
    for scheme in SSH_SCHEMES:
        url = f"{scheme}://h.example/a"
        assert is_ssh_url(url)
        for opened in (open_one(url, 1, "", ""), open_host_source(url, 1)):
            with closing(opened) as source:
                assert isinstance(source, SshSource)
        with closing(open_backend(url)) as backend:
            assert isinstance(backend, SftpBackend)
