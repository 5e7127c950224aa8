"""Containers with fewer capabilities than Docker's own, in modes that need no more than those.

Each starts, or ends with one line that names what is missing.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from tests.support.engine import docker

if TYPE_CHECKING:
    from tests.support.converted import Converted
    from tests.support.engine import Engine

pytestmark = pytest.mark.system

NEEDED_BY_FILES = {"CHOWN", "DAC_OVERRIDE", "FOWNER"}
"""What the workshop's files and its volume take, in either mode that makes files."""
NEEDED_BY_USERS = {"SETGID", "SETUID"}
CAPABILITIES = (
    *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD"),
    *("NET_BIND_SERVICE", "NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
)
"""What Docker gives without being asked."""


def missing(capability: str, user: str) -> bool:
    """Say whether the workshop cannot be booted without a capability."""
    needed = {"SYS_CHROOT"} | NEEDED_BY_FILES | (NEEDED_BY_USERS if user != "root" else set())
    return capability in needed


def errors(text: str) -> list[str]:
    """Give the lines that tell of an error; which mode is taken is none."""
    return [line for line in text.splitlines() if not line.startswith("bootfs: mode lease: ")]


@pytest.fixture
def bare(converted_workshop: Converted) -> Converted:
    """Give an image with all kinds of programs, booted with nothing given: mode auto."""
    return dataclasses.replace(converted_workshop, mode="lease")


@pytest.mark.parametrize("user", ["root", "worker"])
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_without_one_capability(
    engine: Engine, bare: Converted, capability: str, user: str
) -> None:
    options = ("--cap-drop", capability, "--user", user)
    auto = bare.options(*options, "-e", "BOOTFS_MODE=auto")
    done = engine.run(bare.boot, "id", "-u", options=auto)
    if missing(capability, user):
        assert (done.returncode, done.stdout) == (125, "")
        (line,) = errors(done.stderr)
        assert line.startswith("bootfs: cannot ")
        assert f"add --cap-add {capability}" in line
        assert line.count("--cap-add") == 1
    else:
        plain = bare.run_source(engine, "id", "-u", options=options)
        assert (done.returncode, done.stdout) == (0, plain.stdout)
        assert errors(done.stderr) == []


@pytest.mark.parametrize(
    ("mode", "user", "named"),
    [
        ("auto", "root", ["SYS_CHROOT"]),
        ("auto", "worker", ["SETGID", "SETUID", "SYS_CHROOT"]),
        ("auto", "4242:0", ["SETUID", "SYS_CHROOT"]),
        ("auto", "0:4343", ["SETGID", "SYS_CHROOT"]),
        ("lease", "worker", ["SETGID", "SETUID", "SYS_CHROOT"]),
        ("erofs", "worker", ["DAC_OVERRIDE", "SETGID", "SETUID", "SETPCAP", "SYS_CHROOT"]),
    ],
)
def test_without_any(
    engine: Engine, bare: Converted, mode: str, user: str, named: list[str]
) -> None:
    options = ("--cap-drop", "ALL", "--user", user, "-e", f"BOOTFS_MODE={mode}")
    if mode == "erofs":
        options = (*options, "--device", "/dev/fuse")
    done = engine.run(bare.boot, "true", options=bare.options(*options))
    assert (done.returncode, done.stdout) == (125, "")
    (line,) = done.stderr.splitlines()
    assert all(f"--cap-add {name}" in line for name in named)
    if mode == "erofs":
        assert line.startswith("bootfs: may not mount: start the container with --cap-add SYS_")
    else:
        wanted = " ".join(f"--cap-add {name}" for name in named)
        assert line == f"bootfs: cannot boot with so few capabilities: add {wanted}"


@pytest.mark.parametrize("mode", ["lease", "eager"])
def test_setgid_without_the_right_to_it(engine: Engine, bare: Converted, mode: str) -> None:
    """Which the kernel leaves out without a word, when it may."""
    image = dataclasses.replace(bare, mode=mode)
    script = (
        "stat -c '%a %u %g %n' /content /usr/bin/chage /var/mail; sha256sum /usr/bin/chage;"
        " find / -xdev -perm /7000 ! -path '/.bootfs*' -exec stat -c '%a %u %g %n' {} + | sort"
    )
    options = ("--cap-drop", "FSETID")
    plain = image.run_source(engine, "sh", "-c", script, options=options)
    done = image.run(engine, "sh", "-c", script, options=options)
    assert (done.returncode, done.stdout, done.stderr) == (0, plain.stdout, "")
    assert "2755 0 42 /usr/bin/chage" in done.stdout
    both = (*options, "--cap-drop", "SETGID")
    refused = image.run(engine, "true", options=both)
    assert refused.returncode == 125
    (line,) = refused.stderr.splitlines()
    assert line.endswith("Operation not permitted; add --cap-add FSETID")


def test_what_is_named_is_enough(engine: Engine, bare: Converted) -> None:
    options: tuple[str, ...] = ("--cap-drop", "ALL", "--user", "worker")
    for _ in range(3):
        done = engine.run(bare.boot, "setuid", options=bare.options(*options))
        if done.returncode == 0:
            break
        (line,) = errors(done.stderr)
        advice = line.partition("add ")[2].partition(",")[0]
        options = (*options, *advice.split())
    plain = bare.run_source(engine, "setuid", options=options)
    assert (done.returncode, done.stdout, done.stderr) == (0, plain.stdout, "")


@pytest.mark.parametrize("capability", ["DAC_OVERRIDE", "SETUID"])
def test_a_second_start_names_what_the_first_did_without(
    engine: Engine, bare: Converted, capability: str
) -> None:
    options = ("--cap-drop", capability, "--tmpfs", "/content")
    container = bare.start(engine, "true", options=options)
    assert container.wait() == 0
    again = docker("start", "-a", container.name, check=False)
    if again.returncode == 0:
        return  # all was filled
    assert again.returncode == 125
    (line,) = again.stderr.splitlines()
    assert line.endswith(f"Permission denied; add --cap-add {capability}")
