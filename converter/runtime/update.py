"""A new lock file, from what the Debian archive and the package index have now.

Needs apt and Debian's archive keys (any Debian host has both), and no root: apt
works in a directory of its own, for bookworm whatever the host's release, and
verifies the archive's signatures.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import unquote

from converter.runtime import contents
from converter.runtime.fetch import MIRROR, MIRROR_VARIABLE, digest_of_file, download_wheel
from converter.runtime.lock import Input, Lock
from store.errors import NotFound, Unreachable

_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
_CONFIGURATION = """\
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Sandbox::User "";
Acquire::Languages "none";
Dir "{directory}";
Dir::Etc::sourcelist "{directory}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "{directory}/state";
Dir::State::status "/dev/null";
Dir::Cache "{directory}/cache";
"""
_SOURCES = """\
deb [signed-by={keys}] {mirror} bookworm main
deb [signed-by={keys}] {mirror}-security bookworm-security main
"""
_URI = re.compile(r"'(?P<url>[^']+)' \S+ (?P<size>\d+) SHA256:(?P<sha256>[0-9a-f]{64})")
_VERSION = re.compile(r"_(?P<version>[^_]+)_[^_]+\.deb$")


def resolve_lock(
    architecture: str,
    packages: Iterable[str] = contents.DEBIAN_PACKAGES,
    wheels: Mapping[str, str] = contents.WHEELS,
) -> Lock:
    """Return a lock of the newest ``packages`` of bookworm, and of ``wheels`` (name, version).

    Raises:
        Unreachable: apt cannot read the archive.
        NotFound: a package or wheel does not exist.

    """
    with tempfile.TemporaryDirectory(prefix="bootfs-lock-") as scratch:
        inputs = [
            *_resolve_debs(packages, contents.ARCHITECTURES[architecture], Path(scratch)),
            *_resolve_wheels(wheels, architecture, Path(scratch)),
        ]
    return Lock(tuple(sorted(inputs)), time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()))


def _resolve_debs(packages: Iterable[str], architecture: str, directory: Path) -> list[Input]:
    mirror = os.environ.get(MIRROR_VARIABLE, MIRROR).rstrip("/")
    for name in ("state/lists/partial", "cache/archives/partial", "etc/apt"):
        (directory / name).mkdir(parents=True)
    configuration = directory / "apt.conf"
    configuration.write_text(_CONFIGURATION.format(architecture=architecture, directory=directory))
    (directory / "sources.list").write_text(_SOURCES.format(keys=_KEYS, mirror=mirror))
    _run_apt(configuration, "update")
    listing = _run_apt(configuration, "download", "--print-uris", *packages)
    inputs = []
    for name in packages:
        match = next((m for m in _URI.finditer(listing) if f"/{name}_" in m["url"]), None)
        version = match and _VERSION.search(match["url"])
        if not match or not version:
            raise NotFound(f"{name}: apt names no file of it that has a SHA-256")
        file = "debian" + unquote(match["url"].removeprefix(mirror))
        pinned = unquote(version["version"])
        inputs.append(Input("deb", name, pinned, file, int(match["size"]), match["sha256"]))
    return inputs


def _run_apt(configuration: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["apt-get", "--quiet", *arguments],
            capture_output=True, text=True, check=False, cwd=configuration.parent,
            env={**os.environ, "APT_CONFIG": str(configuration), "LC_ALL": "C"},
        )  # fmt: skip
    except FileNotFoundError as error:
        raise NotFound("apt-get is not installed; renew the lock file on a Debian host") from error
    if done.returncode or "\nW: Failed" in f"\n{done.stderr}":
        raise Unreachable(f"apt-get {arguments[0]}: {done.stderr.strip()}")
    return done.stdout


def _resolve_wheels(pinned: Mapping[str, str], architecture: str, directory: Path) -> list[Input]:
    inputs = []
    for name, version in pinned.items():
        wheels = directory / "wheels" / name
        wheels.mkdir(parents=True)
        path = download_wheel(name, version, wheels, architecture)
        size = path.stat().st_size
        inputs.append(Input("wheel", name, version, path.name, size, digest_of_file(path)))
    return inputs
