"""Megabytes a second of reading one large file from its beginning to its end.

The file is a tar of image py's /usr: what programs are made of, and it compresses like that. Store
and cache are on this machine, without any link between: what is measured is bootfs, not a network.
`store`: the cache is empty. `cache`: it holds everything, the page cache is empty. `pages`: the
page cache has it all. Against the same file in the source image under overlay2.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.conversion import convert
from bench.images import IMAGES, PREFIX, build_image
from bench.node import drop_caches
from bench.report import sequential_table
from bench.results import summarize, write_results
from tests.support.engine import BOOT_OPTIONS, Container, docker
from tests.support.servers import Nginx

MODES = ("overlay2", "erofs", "fuse")
SOURCE = f"{PREFIX}/large:latest"
BOOT = f"{PREFIX}/large-boot:latest"


def build_large() -> int:
    """Build the image of one large file, and return the file's bytes."""
    dockerfile = f"FROM {build_image(IMAGES['py'])}\nRUN tar -cf /large /usr\n"
    docker("build", "--force-rm", "-q", "-t", SOURCE, "-", stdin=dockerfile, timeout_s=900)
    return int(docker("run", "--rm", SOURCE, "stat", "-c", "%s", "/large").stdout)


@contextmanager
def running(mode: str, url: str) -> Iterator[Container]:
    """Start a container of the image in a mode; it and its cache are removed at the end."""
    name, image, options = f"{PREFIX}-{uuid.uuid4().hex[:8]}", SOURCE, ["--network", "host"]
    if mode != "overlay2":
        image = BOOT
        options += [*BOOT_OPTIONS, "-e", f"BOOTFS_MODE={mode}", "-e", f"BLOB_STORE={url}"]
    docker("run", "-d", "--name", name, *options, image, "sh", "-c", "echo READY; sleep 3600")
    container = Container(name)
    try:
        container.wait_for_line("READY")
        yield container
    finally:
        container.remove()


def time_read(container: Container) -> float:
    """Read the file once; return the seconds that it took inside: `docker exec` takes its own."""
    # The first of each is to have the programs at hand: what is measured is the file alone.
    script = "date >/dev/null; cat /dev/null; a=$(date +%s%N); cat /large >/dev/null"
    done = container.run("sh", "-c", f"{script}; echo $(($(date +%s%N) - a))")
    return int(done.stdout) / 1e9


def measure(mode: str, store: Path, url: str) -> dict[str, float]:
    """Take each figure of a mode once: seconds."""
    taken = {}
    with running(mode, url) as container:
        for kind in ("store", "cache"):
            drop_caches([store])
            taken[kind] = time_read(container)
        taken["pages"] = time_read(container)
    return taken


def main(arguments: list[str] | None = None) -> int:
    """Measure sequential reads; write bench/results/sequential.json, print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.sequential", description=main.__doc__)
    parser.add_argument("--times", type=int, default=3)
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    taken: dict[str, list[dict[str, float]]] = {mode: [] for mode in MODES}
    with tempfile.TemporaryDirectory(prefix="bootfs-bench-", dir="/var/tmp") as home:
        store = Path(home) / "store"
        store.mkdir()
        size = build_large()
        try:
            convert(SOURCE, BOOT, store)
            with Nginx(store) as server:
                for _ in range(options.times):
                    for mode in MODES:
                        taken[mode].append(measure(mode, store, server.url))
                        print(f"{mode}: {taken[mode][-1]}", file=sys.stderr, flush=True)
        finally:
            docker("rmi", "-f", SOURCE, BOOT, check=False)
    seconds = {
        mode: {kind: summarize([run[kind] for run in runs]) for kind in runs[0]}
        for mode, runs in taken.items()
    }
    figures = {"file_bytes": size, "seconds": seconds}
    write_results("sequential", figures)
    print(sequential_table(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
