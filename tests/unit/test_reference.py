"""References in the notation of skopeo, and nothing else."""

from __future__ import annotations

import pytest

from converter.reference import Reference, familiar_name, parse_reference
from store.errors import UsageError

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("debian", Reference("docker-daemon", "debian", "latest")),
        ("debian:12", Reference("docker-daemon", "debian", "12")),
        ("docker-daemon:debian", Reference("docker-daemon", "debian", "latest")),
        ("localhost:5000/a/b", Reference("docker-daemon", "localhost:5000/a/b", "latest")),
        ("localhost:5000/a/b:t", Reference("docker-daemon", "localhost:5000/a/b", "t")),
        ("[::1]:5000/a", Reference("docker-daemon", "[::1]:5000/a", "latest")),
        ("Host.example/a__b--c.d", Reference("docker-daemon", "Host.example/a__b--c.d", "latest")),
        (f"sha256:{HEX}", Reference("docker-daemon", f"sha256:{HEX}")),
        (f"docker-daemon:sha256:{HEX}", Reference("docker-daemon", f"sha256:{HEX}")),
        (f"a:1@sha256:{HEX}", Reference("docker-daemon", f"a@sha256:{HEX}")),
        ("docker-archive:/x/y.tar", Reference("docker-archive", "/x/y.tar")),
        ("docker-archive:y.tar:debian:12", Reference("docker-archive", "y.tar", "debian:12")),
        ("docker-archive:y.tar:debian", Reference("docker-archive", "y.tar", "debian:latest")),
        ("oci:dir", Reference("oci", "dir")),
        ("oci:/a b/dir:v1.0", Reference("oci", "/a b/dir", "v1.0")),
        ("oci-archive:x.tar:v1", Reference("oci-archive", "x.tar", "v1")),
        ("oci", Reference("docker-daemon", "oci", "latest")),
        ("dir:/a b/c:d", Reference("dir", "/a b/c:d")),
        ("tar:root.tar.gz", Reference("tar", "root.tar.gz")),
        ("docker://debian", Reference("docker", "docker.io/library/debian", "latest")),
        ("docker://h.example:5/a/b:t", Reference("docker", "h.example:5/a/b", "t")),
        ("docker+http://h/a", Reference("docker+http", "docker.io/h/a", "latest")),
        ("docker+https://localhost/a", Reference("docker+https", "localhost/a", "latest")),
        (f"docker://h.example/a:t@sha256:{HEX}", Reference("docker", f"h.example/a@sha256:{HEX}")),
        ("docker:20", Reference("docker-daemon", "docker", "20")),
    ],
)
def test_means(text: str, expected: Reference) -> None:
    assert parse_reference(text) == expected
    assert parse_reference(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "Debian",
        "a b",
        "-a",
        "a/",
        "/a",
        "a//b",
        "a:",
        "a:b:c",
        "a:tag!",
        "a:" + "t" * 129,
        "n" * 256,
        "a@sha256:12",
        "a@md5:" + HEX,
        "docker://",
        "docker:///debian",
        "docker://h.example/Debian",
        "docker://h.example/debian:",
        "docker://h.example/debian:a:b",
        "docker://h.example/debian@sha256:12",
        "docker:lib/debian",
        "dir:",
        "tar:",
        "dir:a\0b",
        "containers-storage:/a",
        "http://host/image",
        "docker-daemon:",
        "docker-archive:",
        "oci:",
        "oci::tag",
        "oci:dir:",
        "oci:dir:a b",
        "oci:dir:@0",
        "docker-archive:x.tar:Debian",
        "docker-archive:x.tar:@1",
    ],
)
def test_refuses_with_the_forms_that_work(text: str) -> None:
    with pytest.raises(UsageError, match="docker-daemon:NAME"):
        parse_reference(text)


def test_refusal_of_upper_case_says_why() -> None:
    with pytest.raises(UsageError, match="lower case"):
        parse_reference("Debian")


def test_engine_name_joins_name_and_tag() -> None:
    assert parse_reference("debian").engine_name == "debian:latest"
    assert parse_reference(f"sha256:{HEX}").engine_name == f"sha256:{HEX}"


def test_familiar_name_is_without_what_docker_adds() -> None:
    assert familiar_name("docker.io/library/debian:12") == "debian:12"
    assert familiar_name("index.docker.io/me/x:1") == "me/x:1"
    assert familiar_name("host.example/library/x:1") == "host.example/library/x:1"
