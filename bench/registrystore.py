"""The registry as the store against a directory behind a web server, over one emulated link.

Both stand at the far end of the same link and hold the same packs; the clock is that of
bench/startup.py, with the shared runtime layer on the node.  Then conversion, everything on
loopback: `bootfs convert` from the registry into it, against what somebody with casync would do,
`docker pull`, `casync make` and sending the chunks to a web server.  And the memory that a
conversion takes, also of a layer of 5 GB.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.bootimages import import_seed
from bench.conversion import bootfs
from bench.far import run_docker
from bench.images import IMAGES, PREFIX, build_image
from bench.link import Link, parse_rate, parse_time
from bench.node import Node, drop_caches
from bench.report import registry_table
from bench.results import summarize, write_results
from tests.support.engine import BOOT_OPTIONS
from tests.support.servers import Nginx, Registry

STORES = ("directory", "registry")
LINK = "100M/10ms"
LARGE = 5 << 30
"""Bytes of the large layer, of which nothing can be compressed."""


@dataclass(frozen=True)
class Conversion:
    """One conversion from the registry into it, and the same by casync; seconds."""

    bootfs_s: float
    casync_s: float
    memory_bytes: int
    """Resident at most, of all processes of the conversion so far."""


class Far:
    """Registry and web server, what they hold, and the node that reads from them."""

    def __init__(self, names: list[str], home: Path, stack: ExitStack) -> None:
        """Convert and push every image; ``stack`` ends the servers and the node."""
        self.store, self.blobs = home / "store", home / "blobs"
        self.store.mkdir()
        self.registry = stack.enter_context(Registry(self.blobs))
        self.nginx = stack.enter_context(Nginx(self.store))
        for name in names:
            self.push(build_image(IMAGES[name]), name)
            self._convert(name)
        seed = import_seed()
        self.push(seed, "seed")
        run_docker("rmi", seed)
        self._convert("seed")
        self.node = stack.enter_context(Node())

    def address(self, name: str) -> str:
        """Return the reference of an image in the registry, as bootfs takes it."""
        return f"docker+http://{self.registry.host_port}/{name}"

    def push(self, image: str, name: str) -> None:
        """Have the engine push an image."""
        remote = f"{self.registry.host_port}/{name}:latest"
        for command in (["tag", image, remote], ["push", "-q", remote], ["rmi", remote]):
            run_docker(*command)

    def _convert(self, name: str) -> None:
        for kind, store in (("directory", str(self.store)), ("registry", self.address("packs"))):
            source, boot = self.address(name), self.address(f"{name}-{kind}")
            bootfs("convert", source, boot, "--store", store)

    def start(self, name: str, kind: str) -> float:
        """Pull and run on a cold node over a fresh link; return the seconds until READY."""
        node = self.node
        node.forget_images()
        node.docker("pull", "-q", f"{self.registry.host_port}/seed-{kind}")
        drop_caches(keep=(self.store, self.blobs))
        rate, rtt = LINK.split("/")
        with (
            Link(
                ("127.0.0.1", self.registry.port), rate=parse_rate(rate), rtt_s=parse_time(rtt)
            ) as registry,
            Link(("127.0.0.1", self.nginx.port), beside=registry) as web,
        ):
            is_web = kind == "directory"
            url = (
                f"http://{web.host_port}/"
                if is_web
                else f"docker+http://{registry.host_port}/packs"
            )
            options = [*BOOT_OPTIONS, "-e", f"BLOB_STORE={url}"]
            image = f"{registry.host_port}/{name}-{kind}"
            begun = time.monotonic()
            node.docker("pull", "-q", image)
            return node.run_until_ready(image, options=options).at - begun


def measure_ready(far: Far, name: str, times: int) -> dict[str, dict[str, float]]:
    """Start an image cold from both stores, in turns."""
    taken: dict[str, list[float]] = {kind: [] for kind in STORES}
    for _ in range(times):
        for kind in STORES:
            taken[kind].append(far.start(name, kind))
            print(f"{name}, {kind}: {taken[kind][-1]:.2f} s", file=sys.stderr, flush=True)
    return {kind: summarize(seconds) for kind, seconds in taken.items()}


def convert_once(far: Far, name: str, number: int, home: Path) -> Conversion:
    """Convert an image with each, into what holds nothing of it yet."""
    source = far.address(name)
    begun = time.monotonic()
    bootfs("convert", source, far.address(f"once-{number}"), "--store", "registry")
    between = time.monotonic()
    remote = f"{far.registry.host_port}/{name}"
    chunks, tree = home / "chunks", home / "tree"
    chunks.mkdir()
    tree.mkdir()
    far.node.forget_images()
    casync_begun = time.monotonic()
    far.node.docker("pull", "-q", remote)
    made = far.node.docker("create", remote).stdout.strip()
    with subprocess.Popen(
        ["docker", "--host", far.node.host, "export", made], stdout=subprocess.PIPE
    ) as export:
        unpacking = ["tar", "-C", str(tree), "--numeric-owner", "-xp"]
        subprocess.run(unpacking, stdin=export.stdout, check=True)
    making = ["casync", "make", f"--store={chunks}", str(home / "tree.caidx"), str(tree)]
    subprocess.run(making, stdout=subprocess.DEVNULL, check=True)
    # To a web server on this machine: what sending costs beyond a network of no delay is nothing.
    shutil.copytree(chunks, home / "sent")
    casync_s = time.monotonic() - casync_begun
    far.node.docker("rm", made)
    for path in (chunks, tree, home / "sent"):
        shutil.rmtree(path)
    return Conversion(between - begun, casync_s, peak_of_children())


def peak_of_children() -> int:
    """Return the most bytes that one ended process of this one has had resident."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def measure_large(far: Far) -> int:
    """Convert an image of one large layer; return the bytes resident at most."""
    image = f"{PREFIX}/large:latest"
    fill = f"head -c {LARGE} /dev/urandom > /large"
    dockerfile = f"FROM debian:bookworm-slim\nRUN {fill}\n"
    run_docker("build", "--force-rm", "-q", "-t", image, "-", stdin=dockerfile.encode())
    far.push(image, "large")
    run_docker("rmi", image)
    command = [sys.executable, "-m", "bench.registrystore", "--convert", far.address("large")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout)


def main(arguments: list[str] | None = None) -> int:
    """Measure; write bench/results/registrystore.json, print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.registrystore", description=main.__doc__)
    parser.add_argument("--images", nargs="+", default=["gcc", "py"], choices=sorted(IMAGES))
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--large", action="store_true", help="also a layer of 5 GB: 15 GB of disk")
    parser.add_argument("--convert", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.convert:
        # In a process of its own: the peak is of its children alone.
        bootfs("convert", options.convert, f"{options.convert}-boot", "--store", "registry")
        print(peak_of_children())
        return 0
    with ExitStack() as stack:
        place = tempfile.TemporaryDirectory(prefix="bootfs-bench-", dir="/var/tmp")
        home = Path(stack.enter_context(place))
        far = Far(options.images, home, stack)
        ready = {name: measure_ready(far, name, options.times) for name in options.images}
        conversions = [
            convert_once(far, options.images[-1], number, home) for number in range(options.times)
        ]
        large = measure_large(far) if options.large else None
    document = {
        "link": LINK,
        "ready_s": ready,
        "converted": options.images[-1],
        "conversions": [asdict(conversion) for conversion in conversions],
        "large_layer_memory_bytes": large,
    }
    write_results("registrystore", document)
    print(registry_table(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
