"""A URL of a registry means one repository, to who writes a store and to who reads it."""

from __future__ import annotations

import ipaddress
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from store.errors import UsageError
from store.format.distribution import parse_repository_url
from store.format.repositoryurl import is_loopback
from store.write.registry.endpoint import (
    COMPONENT,
    HOST,
    NAME_LIMIT,
    normalised_url,
    parse_endpoint,
)

PIECES = (
    *("docker", "docker+http", "docker+https", "DOCKER", "http", "://", ":", "/", "//", "@", "?"),
    *("docker.io", "index.docker.io", "registry-1.docker.io", "localhost", "user", "app", "Host"),
    *("127.0.0.1", "127.1", "127.0.0.01", "10.0.0.1", "[::1]", "[", "]", "::", ":5000", ":0"),
    *(".", "..", "_", "__", "___", "-", "--", "a", "b.example", "é", "٣", "\n", " ", "x" * 127),
)
TEXTS = st.one_of(
    st.text(max_size=40),
    st.lists(st.sampled_from(PIECES), max_size=8).map("".join),
    st.builds(
        "{}://{}{}/{}".format,
        st.sampled_from(["docker", "docker+http", "docker+https", "Docker"]),
        st.sampled_from(PIECES),
        st.sampled_from(["", ":5000", ":65536", ":", ":00080"]),
        st.lists(st.sampled_from(PIECES), max_size=6).map("".join),
    ),
)


def as_writer(url: str) -> tuple[str, str] | None:
    try:
        found = parse_endpoint(url)
    except UsageError:
        return None
    return found.api, found.base.removeprefix(found.api).removesuffix("/")


def as_reader(url: str) -> tuple[str, str] | None:
    try:
        server, repository = parse_repository_url(url)
    except UsageError:
        return None
    return f"{server}/v2/", repository


def without_default_port(api: str) -> str:
    scheme, _, rest = api.partition("://")
    authority = rest.removesuffix("/v2/")
    name, colon, port = authority.rpartition(":")
    if not colon or port.endswith("]"):
        return api
    default = 443 if scheme == "https" else 80
    return f"{scheme}://{name}{'' if int(port) == default else f':{int(port)}'}/v2/"


@given(TEXTS)
@example("docker://user/app")
@example("docker://index.docker.io/debian")
@example("docker+http://docker.io/me/a")
@example("docker://host.example/a/")
@example("docker://user/app/")
@example("DOCKER://host.example/a")
@example("docker://127.1/a")
@example("docker://host.example/a..b")
@example("docker://host.example:0/a")
def test_reader_and_writer_mean_the_same(url: str) -> None:
    writes, reads = as_writer(url), as_reader(url)
    if writes is None or reads is None:
        assert writes == reads
        return
    assert (without_default_port(writes[0]), writes[1]) == reads


@given(TEXTS)
def test_the_normalised_url_means_the_same_and_is_normalised(url: str) -> None:
    normalised = normalised_url(url)
    assert (as_writer(normalised), as_reader(normalised)) == (as_writer(url), as_reader(url))
    assert normalised_url(normalised) == normalised


@given(TEXTS)
def test_the_grammar_is_the_one_of_references(url: str) -> None:
    """That of names in an engine, written as regular expressions."""
    scheme, _, rest = url.partition("://")
    if scheme != "docker" or not rest.startswith("host.example/"):
        rest = f"host.example/{url}"
    name = rest.removeprefix("host.example/")
    is_name = re.fullmatch(rf"{COMPONENT}(?:/{COMPONENT})*", name.removesuffix("/") or name)
    fits = len("host.example") + len(name.removesuffix("/")) < NAME_LIMIT
    assert (as_writer(f"docker://host.example/{name}") is not None) == (bool(is_name) and fits)


@given(st.lists(st.sampled_from(PIECES), max_size=4).map("".join))
def test_hosts_are_those_of_references(host: str) -> None:
    port = host.rpartition(":")[2] if not host.endswith("]") and ":" in host else "1"
    is_port = port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 65536
    is_host = bool(re.fullmatch(HOST, host)) and is_port
    # What has neither dot nor port is a user of Docker Hub.
    if "/" not in host and ("." in host or ":" in host) and len(host) < 200:
        assert (as_writer(f"docker://{host}/a") is not None) == is_host


@pytest.mark.parametrize(
    "text",
    ["127.0.0.1", "127.255.0.9", "10.0.0.1", "127.1", "127.0.0.01", "127.0.0.256", "127.0.0.",
     "::1", "0:0:0:0:0:0:0:1", "::2", "1::"],
)  # fmt: skip
def test_loopback_addresses_are_those_of_the_standard_library(text: str) -> None:
    try:
        is_one = ipaddress.ip_address(text).is_loopback
    except ValueError:
        is_one = False
    host = f"[{text}]" if ":" in text else text
    assert is_loopback(host) == is_loopback(f"{host}:5000") == is_one
