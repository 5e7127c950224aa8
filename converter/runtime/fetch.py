"""The inputs of the runtime layer, from the cache or the network, verified.

Packages come by HTTP from a Debian mirror, whatever the host's own release is;
wheels through pip, so that an index, a mirror or a directory of wheels configured
for it is honoured.  Whatever brings a file, the lock file's digest decides.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from converter.runtime.lock import Input, Lock
from store.errors import DigestMismatch, NotFound, SizeMismatch, Unreachable

MIRROR = "http://deb.debian.org/debian"
MIRROR_VARIABLE = "BOOTFS_DEBIAN_MIRROR"
SNAPSHOT_MIRROR = "http://snapshot.debian.org/archive/debian"
APT_HELPER = "/usr/lib/apt/apt-helper"
_TIMEOUT_S = 60.0
_UPDATE_LOCK = "python -m converter.runtime --update-lock"

# What wheels of Debian bookworm's interpreter and C library (2.36) may be tagged with.
_PIP_TARGET = (
    *("--no-deps", "--only-binary", ":all:", "--implementation", "cp"),
    *("--python-version", "3.11", "--abi", "cp311", "--abi", "abi3", "--abi", "none"),
)
_PLATFORMS = ("manylinux_2_34", "manylinux_2_28", "manylinux2014", "manylinux_2_17")


def read_inputs(lock: Lock, directory: Path, report: Callable[[str], None]) -> dict[str, bytes]:
    """Return the contents of each input by its name, fetching into ``directory`` what is not there.

    Every byte returned has the digest the lock file states.

    Raises:
        NotFound: an input is no longer where it was.
        Unreachable: no mirror or index answered.
        IntegrityError: what was fetched is not what the lock file names.

    """
    directory.mkdir(parents=True, exist_ok=True)
    contents = {}
    for entry in lock.inputs:
        path = directory / entry.basename
        if not _is_intact(path, entry):
            report(f"fetching {entry.basename}")
            with tempfile.TemporaryDirectory(dir=directory) as scratch:
                fetched = (fetch_deb if entry.kind == "deb" else fetch_wheel)(
                    entry, lock.snapshot, Path(scratch)
                )
                check_input(fetched, entry)
                os.replace(fetched, path)
        contents[entry.name] = path.read_bytes()
    return contents


def check_input(path: Path, entry: Input) -> None:
    """Return if the file at ``path`` is the input.

    Raises:
        IntegrityError: it is not.

    """
    size = path.stat().st_size
    if size != entry.size:
        raise SizeMismatch(entry.basename, entry.size, size)
    actual = digest_of_file(path)
    if actual != entry.sha256:
        raise DigestMismatch(entry.basename, f"sha256:{entry.sha256}", f"sha256:{actual}")


def digest_of_file(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_intact(path: Path, entry: Input) -> bool:
    return path.is_file() and digest_of_file(path) == entry.sha256


def fetch_deb(entry: Input, snapshot: str, directory: Path) -> Path:
    """Fetch a Debian package into ``directory``, from the mirror or else the archive's past.

    Raises:
        NotFound: no mirror has it any more.
        Unreachable: a mirror did not answer.

    """
    path = directory / entry.basename
    fetch = fetch_with_apt if os.access(APT_HELPER, os.X_OK) else fetch_with_httpx
    problems = []
    for url in iter_deb_urls(entry, snapshot):
        try:
            fetch(url, path)
        except (NotFound, Unreachable) as error:
            problems.append(error)
        else:
            return path
    message = "; ".join(str(error) for error in problems)
    if all(isinstance(error, NotFound) for error in problems):
        raise NotFound(
            f"{entry.basename}: {message}; pin what the archive has now with `{_UPDATE_LOCK}`,"
            f" or name a mirror that keeps it in {MIRROR_VARIABLE}"
        )
    raise Unreachable(f"{entry.basename}: {message}; is {MIRROR_VARIABLE} set to a mirror?")


def iter_deb_urls(entry: Input, snapshot: str) -> Iterator[str]:
    """Yield where a package may be fetched from, best first."""
    below = entry.file.removeprefix("debian")
    yield os.environ.get(MIRROR_VARIABLE, MIRROR).rstrip("/") + below
    archive, _, path = below.partition("/")
    yield f"{SNAPSHOT_MIRROR}{archive}/{snapshot}/{path}"


def fetch_with_apt(url: str, path: Path) -> None:
    """Fetch ``url`` by the host's apt, which knows of proxies set up for it.

    Raises:
        NotFound: the server says so.
        Unreachable: anything else went wrong.

    """
    done = subprocess.run(
        [APT_HELPER, "-o", "Acquire::Retries=1", "download-file", url, path],
        capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"},
    )  # fmt: skip
    if done.returncode:
        problem = "; ".join(
            line.strip() for line in done.stderr.splitlines() if line.startswith("E: ")
        )
        raise (NotFound if " 404 " in problem else Unreachable)(f"{url}: {problem}")


def fetch_with_httpx(url: str, path: Path) -> None:
    """Fetch ``url`` without help of the host.

    Raises:
        NotFound: the server says so.
        Unreachable: anything else went wrong.

    """
    import httpx

    try:
        with (
            httpx.stream("GET", url, follow_redirects=True, timeout=_TIMEOUT_S) as answer,
            path.open("wb") as file,
        ):
            if answer.status_code in (httpx.codes.NOT_FOUND, httpx.codes.GONE):
                raise NotFound(f"{url}: HTTP status {answer.status_code}")
            answer.raise_for_status()
            for piece in answer.iter_bytes():
                file.write(piece)
    except httpx.HTTPError as error:
        raise Unreachable(f"{url}: {error}") from error


def fetch_wheel(entry: Input, _snapshot: str, directory: Path) -> Path:
    """Fetch a wheel into ``directory`` by pip.

    Raises:
        NotFound: pip finds no such wheel.

    """
    # A wheel for any architecture is found for each.
    architecture = "aarch64" if entry.file.endswith("_aarch64.whl") else "x86_64"
    return download_wheel(entry.name, entry.version, directory, architecture)


def download_wheel(name: str, version: str, directory: Path, architecture: str = "x86_64") -> Path:
    """Have pip bring the wheel of a package for the bundle's interpreter.

    Raises:
        NotFound: pip finds no such wheel, or there is no pip.

    """
    if importlib.util.find_spec("pip") is None:
        raise NotFound(
            f"{name} {version}: {sys.executable} has no pip to fetch it with; install it with"
            f" `{sys.executable} -m ensurepip`, or as your system's package python3-pip"
        )
    target = [*_PIP_TARGET, *(f"--platform={kind}_{architecture}" for kind in _PLATFORMS)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
         *target, "--dest", directory, f"{name}=={version}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    wheels = sorted(directory.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        problem = next(iter(done.stderr.strip().splitlines()[-1:]), "pip said nothing")
        raise NotFound(
            f"{name} {version}: {problem}; check that `{Path(sys.executable).name} -m pip"
            f" download {name}=={version}` works"
        )
    return wheels[0]
