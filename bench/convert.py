"""Speed of conversion against `casync make` on the same tree, in turns, into empty stores.

`bootfs convert` reads the image from a docker archive and ends with a boot image in an OCI layout;
casync reads the unpacked tree and ends with an index. MB/s are of file data, each file once.
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
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.conversion import convert
from bench.images import IMAGES, build_image
from bench.results import format_table, summarize, write_results

MB = 1e6


@dataclass(frozen=True)
class Pair:
    """One conversion by each."""

    bootfs_s: float
    casync_s: float
    bootfs_bytes: int
    casync_bytes: int


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


def measure_pair(archive: Path, tree: Path, home: Path) -> Pair:
    """Convert once with each, into stores that are empty before and removed after."""
    ours, theirs = home / "bootfs", home / "casync"
    layout, index = home / "layout", home / "tree.caidx"
    try:
        theirs.mkdir()
        begun = time.monotonic()
        convert(f"docker-archive:{archive}", f"oci:{layout}:image", ours)
        between = time.monotonic()
        making = ["casync", "make", f"--store={theirs}", str(index), str(tree)]
        subprocess.run(making, stdout=subprocess.DEVNULL, check=True)
        ended = time.monotonic()
        return Pair(between - begun, ended - between, measure_store(ours), measure_store(theirs))
    finally:
        for made in (ours, theirs, layout):
            shutil.rmtree(made, ignore_errors=True)


def main(arguments: list[str] | None = None) -> int:
    """Measure conversions in pairs; write bench/results/convert.json, print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.convert", description=main.__doc__)
    parser.add_argument("--image", default="py", choices=sorted(IMAGES))
    parser.add_argument("--times", type=int, default=3, help="pairs")
    options = parser.parse_args(arguments)
    image = build_image(IMAGES[options.image])
    with tempfile.TemporaryDirectory(prefix="bootfs-bench-", dir="/var/tmp") as directory:
        home = Path(directory)
        archive, tree = unpack(image, home)
        data = measure_data(tree)
        # The first one also makes what later ones find: the runtime layer, the page cache.
        measure_pair(archive, tree, home)
        pairs = []
        for _ in range(options.times):
            pairs.append(measure_pair(archive, tree, home))
            print(f"bootfs {pairs[-1].bootfs_s:.1f} s, casync {pairs[-1].casync_s:.1f} s",
                  file=sys.stderr)  # fmt: skip
    ours = summarize([pair.bootfs_s for pair in pairs])
    theirs = summarize([pair.casync_s for pair in pairs])
    write_results(
        "convert",
        {
            "image": options.image,
            "data_bytes": data,
            "bootfs": ours,
            "casync": theirs,
            "ratio": theirs["median"] / ours["median"],
            "pairs": [asdict(pair) for pair in pairs],
        },
    )
    rows = []
    for name, taken, stored in (
        ("bootfs convert", ours, pairs[0].bootfs_bytes),
        ("casync make", theirs, pairs[0].casync_bytes),
    ):
        times = (f"{taken['min']:.1f}", f"{taken['median']:.1f}")
        rows.append((name, *times, f"{data / MB / taken['median']:.0f}", f"{stored / MB:.0f}"))
    print(format_table(("conversion", "min s", "median s", "MB/s", "stored MB"), rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
