"""Speed of conversion against `casync make` on the same tree, in turns: twice into one store.

The first conversion is into an empty store.  The second is of a similar image, with a small layer
more, into the same store.  `bootfs convert` reads the images from docker archives, or from a
registry on this machine, and ends with a boot image in an OCI layout; casync reads the unpacked
trees and ends with an index.  MB/s are of file data, each file once.  CPU seconds are the
processes' own, user and system: where others use the machine, they say more.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

from bench.conversion import convert
from bench.images import IMAGES, build_image
from bench.report import convert_table
from bench.results import summarize, write_results
from converter.runtime import open_runtime
from tests.support.servers import Registry

ADDED = "RUN mkdir /srv/app && head -c 3000000 /dev/urandom >/srv/app/data && date >/etc/built"
"""The layer that the second image has more: a file of its own, and one among others."""
WAYS = ("archive", "registry", "casync")


@dataclass(frozen=True)
class Taken:
    """What one conversion took."""

    seconds: float
    cpu_s: float
    bytes: int
    """What the store grew by."""


@dataclass(frozen=True)
class Sources:
    """Two images, each as an archive, in a registry, and as a tree."""

    archives: tuple[Path, Path]
    references: tuple[str, str]
    trees: tuple[Path, Path]


def unpack(image: str, home: Path) -> tuple[Path, Path]:
    """Put the image down twice: as a docker archive, and as a tree."""
    archive, tree = home / "image.tar", home / "tree"
    tree.mkdir()
    subprocess.run(["docker", "save", "-o", str(archive), image], check=True)
    name = f"bootfs-bench-{uuid.uuid4().hex[:8]}"
    subprocess.run(
        ["docker", "create", "--name", name, image], stdout=subprocess.DEVNULL, check=True
    )
    try:
        with subprocess.Popen(["docker", "export", name], stdout=subprocess.PIPE) as export:
            unpacking = ["tar", "-C", str(tree), "--numeric-owner", "--xattrs", "-xp"]
            subprocess.run(unpacking, stdin=export.stdout, check=True)
    finally:
        subprocess.run(["docker", "rm", name], stdout=subprocess.DEVNULL, check=True)
    return archive, tree


def measure_data(tree: Path) -> int:
    """Sum the sizes of all regular files, each inode once."""
    sizes: dict[int, int] = {}
    for directory, _, names in os.walk(tree):
        for name in names:
            path = Path(directory, name)
            if path.is_file() and not path.is_symlink():
                status = path.stat()
                sizes[status.st_ino] = status.st_size
    return sum(sizes.values())


def measure_store(store: Path) -> int:
    """Sum the sizes of all files of a store."""
    return sum(path.stat().st_size for path in store.rglob("*") if path.is_file())


def build_similar(image: str) -> str:
    """Build the second image on the first one; give its reference."""
    name = f"bootfs-bench-similar/{uuid.uuid4().hex[:8]}"
    text = f"FROM {image}\nUSER root\n{ADDED}\n"
    build = ["docker", "build", "--force-rm", "-q", "-t", name, "-"]
    subprocess.run(build, input=text, text=True, capture_output=True, check=True)
    return name


def push(image: str, registry: Registry, name: str) -> str:
    """Push an image; give its reference as bootfs takes it."""
    remote = f"{registry.host_port}/{name}:latest"
    subprocess.run(["docker", "tag", image, remote], check=True)
    try:
        subprocess.run(["docker", "push", "-q", remote], stdout=subprocess.DEVNULL, check=True)
    finally:
        subprocess.run(["docker", "rmi", remote], stdout=subprocess.DEVNULL, check=True)
    return f"docker+http://{remote}"


def prepare(images: tuple[str, str], registry: Registry, home: Path) -> Sources:
    """Put both images down in all three ways."""
    places = (home / "first", home / "second")
    for place in places:
        place.mkdir()
    first, second = (unpack(image, place) for image, place in zip(images, places, strict=True))
    pushed = [push(image, registry, f"image{n}") for n, image in enumerate(images)]
    return Sources((first[0], second[0]), (pushed[0], pushed[1]), (first[1], second[1]))


def measure(store: Path, work: Callable[[], object]) -> Taken:
    """Measure what a conversion into a store takes, by processes that have ended with it."""
    before = measure_store(store)
    usage, begun = getrusage(RUSAGE_CHILDREN), time.monotonic()
    work()
    seconds, used = time.monotonic() - begun, getrusage(RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime - usage.ru_utime - usage.ru_stime
    return Taken(round(seconds, 3), round(cpu, 3), measure_store(store) - before)


def measure_way(way: str, sources: Sources, home: Path) -> list[Taken]:
    """Convert both images, into a store that is empty before and removed after."""
    home.mkdir()
    store = home / "store"
    store.mkdir()

    def work(number: int) -> object:
        if way == "casync":
            index, tree = home / f"{number}.caidx", sources.trees[number]
            making = ["casync", "make", f"--store={store}", str(index), str(tree)]
            return subprocess.run(making, stdout=subprocess.DEVNULL, check=True)
        archive, reference = sources.archives[number], sources.references[number]
        source = f"docker-archive:{archive}" if way == "archive" else reference
        boot = f"oci:{home}/layout:image{number}"
        return convert(source, boot, store, records=home / "records")

    try:
        return [measure(store, partial(work, number)) for number in range(2)]
    finally:
        shutil.rmtree(home)


def main(arguments: list[str] | None = None) -> int:
    """Measure conversions in turns; write bench/results/convert.json, print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.convert", description=main.__doc__)
    parser.add_argument("--image", default="py", choices=sorted(IMAGES))
    parser.add_argument("--times", type=int, default=3, help="turns")
    options = parser.parse_args(arguments)
    image = build_image(IMAGES[options.image])
    turns: list[dict[str, list[Taken]]] = []
    with ExitStack() as stack:
        directory = tempfile.TemporaryDirectory(prefix="bootfs-bench-", dir="/var/tmp")
        home = Path(stack.enter_context(directory))
        registry = stack.enter_context(Registry(home / "blobs"))
        similar = build_similar(image)
        stack.callback(subprocess.run, ["docker", "rmi", similar], stdout=subprocess.DEVNULL)
        sources = prepare((image, similar), registry, home)
        data = measure_data(sources.trees[0])
        # Made once a release, not by every conversion.
        open_runtime()
        for _ in range(options.times):
            turns.append({way: measure_way(way, sources, home / "turn") for way in WAYS})
            print(turns[-1], file=sys.stderr)
    document: dict[str, object] = {
        "image": options.image,
        "data_bytes": data,
        "bootfs": summarize([turn["archive"][0].seconds for turn in turns]),
        "casync": summarize([turn["casync"][0].seconds for turn in turns]),
        "pairs": [
            {
                "bootfs_bytes": turn["archive"][0].bytes,
                "casync_bytes": turn["casync"][0].bytes,
                "bootfs_s": turn["archive"][0].seconds,
                "casync_s": turn["casync"][0].seconds,
            }
            for turn in turns
        ],
        "ways": {
            way: [
                {
                    "seconds": summarize([turn[way][number].seconds for turn in turns]),
                    "cpu_s": summarize([turn[way][number].cpu_s for turn in turns]),
                    "bytes": turns[0][way][number].bytes,
                }
                for number in range(2)
            ]
            for way in WAYS
        },
        "turns": [
            {way: [asdict(taken) for taken in both] for way, both in turn.items()} for turn in turns
        ],
    }
    write_results("convert", document)
    print(convert_table(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
