"""Bytes that a store takes: of an image's update, and of a family of images.  No times.

An update is converted after the version before it, into the same store, by bootfs and by `casync
make`.  Against it stand the layers that a registry would be sent, gzipped: those that the version
before has not.  A family is every image of bench/images.py in one store, against their distinct
layers.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import uuid
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.conversion import convert
from bench.convert import measure_store, unpack
from bench.images import BASE, FAMILY, IMAGES, build_image
from bench.report import updates_table
from bench.results import write_results
from converter.convert import DEFAULT_LEVEL

PIECE = 1 << 20
GZIP = 31
"""zlib's window bits for the container that registries keep layers in."""
CLEAN = "rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/ldconfig/*"
INSTALL = "export DEBIAN_FRONTEND=noninteractive && apt-get update && apt-get install -y"
SECURITY = (
    "echo deb http://deb.debian.org/debian-security bookworm-security main"
    " > /etc/apt/sources.list.d/security.list"
)
LEVELS = (DEFAULT_LEVEL, 19)
"""The default, and one for stores that are written once and read often."""
PIP = "pip install --no-cache-dir --break-system-packages --no-compile"


@dataclass(frozen=True)
class Update:
    """Two versions of an image, each as Dockerfiles, of which one builds on the one before it."""

    before: tuple[str, ...]
    after: tuple[str, ...]


def _release(*, patched: bool) -> tuple[str, ...]:
    """Return a Debian base of one layer, and a C compiler and Python on it."""
    patches = f"{SECURITY} && {INSTALL} && apt-get dist-upgrade -y &&" if patched else ":&&"
    packages = "gcc libc6-dev python3 perl"
    return (
        f"FROM {BASE} AS made\nRUN {patches} {CLEAN}\n"
        'FROM scratch\nCOPY --from=made / /\nCMD ["bash"]\n',
        f"FROM BEFORE\nRUN {INSTALL} --no-install-recommends {packages}"
        f" && apt-get clean && {CLEAN}\n",
    )


def _upgrade(numpy: str, pandas: str) -> tuple[str, ...]:
    """Return an image with two packages of these versions, in a layer of their own."""
    return (
        f"FROM {BASE}\nRUN {INSTALL} --no-install-recommends python3-pip"
        f" && apt-get clean && {CLEAN}\n",
        f"FROM BEFORE\nRUN {PIP} numpy=={numpy} pandas=={pandas}\n",
    )


UPDATES = {
    "Debian, security updates": Update(_release(patched=False), _release(patched=True)),
    "pip, numpy and pandas": Update(_upgrade("2.1.1", "2.2.2"), _upgrade("2.1.3", "2.2.3")),
}


@dataclass(frozen=True)
class Stored:
    """What an update, or a family, takes; bytes."""

    layers: int
    """Of the gzipped layers that are new, or distinct."""
    bootfs: int
    """New in the store of bootfs, and the own layer of the boot image."""
    casync: int | None
    """New in the store of casync; it is not asked for a family."""


def build(dockerfiles: tuple[str, ...], name: str) -> str:
    """Build the Dockerfiles one on the other; return the name of the last image.

    Raises:
        SystemExit: a build failed; the last lines of its output are the message.
    """
    for number, text in enumerate(dockerfiles):
        tag = f"{name}:{number}"
        made = subprocess.run(
            ["docker", "build", "--force-rm", "-q", "-t", tag, "-"],
            input=text.replace("FROM BEFORE", f"FROM {name}:{number - 1}"),
            text=True, capture_output=True, check=False,
        )  # fmt: skip
        if made.returncode:
            raise SystemExit(f"{tag} could not be built:\n{made.stderr[-2000:]}")
    return tag


@contextmanager
def built(update: Update) -> Iterator[tuple[str, str]]:
    """Give both versions as images, which are removed in the end."""
    names = [f"bootfs-bench-update/{uuid.uuid4().hex[:8]}" for _ in range(2)]
    try:
        yield build(update.before, names[0]), build(update.after, names[1])
    finally:
        tags = [f"{name}:{number}" for name in names for number in (1, 0)]
        subprocess.run(["docker", "rmi", "-f", *tags], capture_output=True, check=False)


def layer_sizes(archive: Path) -> dict[str, int]:
    """Return the gzipped size of each layer of a docker archive, by its plain bytes' digest."""
    sizes = {}
    with tarfile.open(archive) as opened:
        described = opened.extractfile("manifest.json")
        assert described is not None
        for name in json.load(described)[0]["Layers"]:
            layer = opened.extractfile(name)
            assert layer is not None
            packer, digest, size = zlib.compressobj(6, wbits=GZIP), hashlib.sha256(), 0
            while piece := layer.read(PIECE):
                digest.update(piece)
                size += len(packer.compress(piece))
            sizes[digest.hexdigest()] = size + len(packer.flush())
    return sizes


def measure_update(update: Update, home: Path) -> Stored:
    """Convert both versions with each into one store."""
    ours, theirs = home / "bootfs", home / "casync"
    theirs.mkdir()
    layers: list[dict[str, int]] = []
    grown: list[tuple[int, int]] = []
    own = 0
    with built(update) as images:
        for number, image in enumerate(images):
            place = home / str(number)
            place.mkdir()
            archive, tree = unpack(image, place)
            layers.append(layer_sizes(archive))
            made = convert(f"docker-archive:{archive}", f"oci:{place}/layout:image", ours)
            own = made.own_layer_bytes
            making = ["casync", "make", f"--store={theirs}", str(place / "tree.caidx"), str(tree)]
            subprocess.run(making, stdout=subprocess.DEVNULL, check=True)
            grown.append((measure_store(ours), measure_store(theirs)))
            shutil.rmtree(place)
    new = sum(size for digest, size in layers[1].items() if digest not in layers[0])
    (before, before_theirs), (after, after_theirs) = grown
    return Stored(new, after - before + own, after_theirs - before_theirs)


def measure_family(home: Path, level: int) -> Stored:
    """Convert all images of the family into one store, at a zstd level."""
    layers: dict[str, int] = {}
    own = 0
    for name in FAMILY:
        archive = home / f"{name}.tar"
        image = build_image(IMAGES[name])
        subprocess.run(["docker", "save", "-o", str(archive), image], check=True)
        layers.update(layer_sizes(archive))
        source, boot = f"docker-archive:{archive}", f"oci:{home}/{name}:image"
        own += convert(source, boot, home / "store", "--level", str(level)).own_layer_bytes
        archive.unlink()
    return Stored(sum(layers.values()), measure_store(home / "store") + own, None)


def main(arguments: list[str] | None = None) -> int:
    """Measure updates and a family; write bench/results/updates.json, print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.updates", description=main.__doc__)
    parser.parse_args(arguments)
    measured: dict[str, Stored] = {}
    with ExitStack() as stack:
        for what, update in UPDATES.items():
            place = tempfile.TemporaryDirectory(prefix="bootfs-bench-", dir="/var/tmp")
            measured[what] = measure_update(update, Path(stack.enter_context(place)))
            print(f"{what}: {measured[what]}", file=sys.stderr)
        for level in LEVELS:
            place = tempfile.TemporaryDirectory(prefix="bootfs-bench-", dir="/var/tmp")
            family = f"family of {len(FAMILY)} images, level {level}"
            measured[family] = measure_family(Path(stack.enter_context(place)), level)
            print(f"{family}: {measured[family]}", file=sys.stderr)
    document = {"stored": {what: asdict(stored) for what, stored in measured.items()}}
    write_results("updates", document)
    print(updates_table(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
