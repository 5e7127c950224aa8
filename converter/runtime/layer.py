"""The finished layer on disk: found in the cache, or built into it."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from converter.images.gzipping import gzip_deterministic
from converter.runtime import contents
from converter.runtime.assemble import assemble
from converter.runtime.fetch import digest_of_file, read_inputs
from converter.runtime.foreign import read_interpreter
from converter.runtime.lock import parse_lock, read_lock_text
from converter.runtime.sources import read_builder_sources, read_launcher, read_own_sources
from converter.runtime.tarball import encode_tar
from store.errors import AccessDenied, StorageFull, UsageError

CACHE_VARIABLE = "BOOTFS_RUNTIME_CACHE"
_PLAIN = "layer.tar"
_STORED = "layer.tar.gz"
_SUMMARY = "digests"
_KEPT = 4  # layers: of other releases, and of a source tree that is being worked on
_GZIP_LEVEL = 12  # compressed once a release, fetched by every node


@dataclass(frozen=True, slots=True)
class RuntimeLayer:
    """A layer that boot images share; the files belong to the cache and are only read."""

    plain_path: Path
    """The layer as an uncompressed tar."""
    stored_path: Path
    """The layer as it is pushed: the tar, gzipped."""
    diff_id: str
    """Digest (``sha256:...``) of the plain bytes."""
    digest: str
    """Digest (``sha256:...``) of the stored bytes."""
    size: int
    """Bytes of the stored layer."""


def open_runtime(
    architecture: str = "x86_64", report: Callable[[str], None] = lambda _: None
) -> RuntimeLayer:
    """Return the runtime layer of this release, built if the cache does not hold it intact.

    The same release gives the same bytes on every machine.  ``report`` gets a line for
    every step that takes long.  Concurrent callers build once.

    Raises:
        UsageError: no layer can be made for ``architecture``.
        NotFound: an input is no longer where it was.
        RemoteError: an input could not be fetched.
        IntegrityError: an input is not what the lock file names.
        AccessDenied, StorageFull: the cache cannot be written.
        ConvertError: this machine cannot run the bundle's interpreter.

    """
    if architecture not in contents.ARCHITECTURES:
        known = ", ".join(contents.ARCHITECTURES)
        raise UsageError(f"no runtime layer for {architecture!r}; there is one for {known}")
    own = read_own_sources(architecture)
    launcher = read_launcher(architecture)

    def build(inputs: Path) -> bytes:
        lock = parse_lock(read_lock_text(architecture=architecture))
        contained = read_inputs(lock, inputs, report)
        here = read_interpreter(architecture, inputs, report)
        report("building the runtime layer")
        return encode_tar(assemble(lock, contained, own, architecture, here), launcher)

    return open_layer(directory_of("layers", architecture), {**own, "init": launcher}, build)


def directory_of(kind: str, architecture: str) -> str:
    """Return where in the cache the layers of a kind are that are for an architecture."""
    return kind if architecture == "x86_64" else f"{kind}-{architecture}"


def open_layer(
    kind: str, parts: Mapping[str, bytes], build: Callable[[Path], bytes]
) -> RuntimeLayer:
    """Return a shared layer, built if the cache does not hold it intact.

    ``kind`` is the directory of such layers in the cache; ``parts`` are what decides the bytes
    beside this builder; ``build`` returns the plain layer, with a directory for its inputs.

    Raises:
        AccessDenied, StorageFull: the cache cannot be written.
        as ``build``.

    """
    cache = cache_directory()
    place = cache / kind / _key(parts)
    if layer := _read_layer(place):
        return layer
    with _translated(cache), _locked(cache):
        if layer := _read_layer(place):
            return layer
        layer = _write_layer(place, build(cache / "inputs"))
        _forget_old(place.parent)
    return layer


def cache_directory() -> Path:
    """Return where inputs and layers are kept; losing it costs only time."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen)
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "bootfs" / "runtime"


def _key(own: Mapping[str, bytes]) -> str:
    """Return the name of what decides the layer's bytes.

    That is the lock file and the rest of this builder, our own part, and the compressor.
    """
    parts = {**own, **read_builder_sources(), "deflate": version("deflate").encode()}
    key = hashlib.sha256()
    for path, body in sorted(parts.items()):
        key.update(f"\0{path}\0{hashlib.sha256(body).hexdigest()}".encode())
    return key.hexdigest()


def _read_layer(place: Path) -> RuntimeLayer | None:
    try:
        diff_id, digest, size = (place / _SUMMARY).read_text().split()
    except (OSError, ValueError):  # absent, or not readable here: then it is built
        return None
    layer = RuntimeLayer(place / _PLAIN, place / _STORED, diff_id, digest, int(size))
    for path, expected in ((layer.plain_path, diff_id), (layer.stored_path, digest)):
        if not path.is_file() or f"sha256:{digest_of_file(path)}" != expected:
            return None
    # What is in use is not old; in a cache that is only read nothing is forgotten.
    with suppress(OSError):
        os.utime(place)
    return layer


def _write_layer(place: Path, plain: bytes) -> RuntimeLayer:
    place.parent.mkdir(parents=True, exist_ok=True)
    stored = gzip_deterministic(plain, _GZIP_LEVEL)
    diff_id, digest = (f"sha256:{hashlib.sha256(body).hexdigest()}" for body in (plain, stored))
    scratch = Path(tempfile.mkdtemp(dir=place.parent, prefix="new-"))
    try:
        (scratch / _PLAIN).write_bytes(plain)
        (scratch / _STORED).write_bytes(stored)
        (scratch / _SUMMARY).write_text(f"{diff_id} {digest} {len(stored)}\n")
        scratch.chmod(0o755)
        shutil.rmtree(place, ignore_errors=True)  # a damaged one
        scratch.rename(place)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return RuntimeLayer(place / _PLAIN, place / _STORED, diff_id, digest, len(stored))


def _forget_old(layers: Path) -> None:
    by_age = sorted(layers.iterdir(), key=lambda path: path.stat().st_mtime)
    for path in by_age[:-_KEPT]:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _translated(cache: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kind = StorageFull if error.errno in (errno.ENOSPC, errno.EDQUOT) else AccessDenied
        raise kind(
            f"cannot keep the runtime layer in {cache}: {error.strerror} ({error.filename});"
            f" name a directory with 100 MB free in {CACHE_VARIABLE}"
        ) from error


@contextmanager
def _locked(cache: Path) -> Iterator[None]:
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
