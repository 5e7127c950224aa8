"""Time from nothing to READY: `docker pull` and run against bootfs, over one emulated link.

A registry and a store stand at the far end of the same link; the engine is one of the benchmark's
own (bench.node) and starts cold: no image, no layer, an empty page cache. Clock: from the start of
`docker pull` until the workload's line READY has arrived. Three ways there:

* `docker`: the source image is pulled and run.
* `bootfs`: the boot image is pulled and run; nothing of ours is on the node before.
* `bootfs, runtime there`: the shared runtime layer is on the node already, as a peer's plug-in is.
* `lease, runtime there`, `eager, runtime there`: the same, and `docker run` gives no privilege.

Then warm: image and cache are on the node, `docker run` alone, in turns with the plain image.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.conversion import Conversion, convert
from bench.images import IMAGES, PREFIX, build_image
from bench.link import Link, parse_rate, parse_time
from bench.node import Node, drop_caches
from bench.results import RESULTS, format_table, summarize, write_results
from tests.support.engine import BOOT_OPTIONS
from tests.support.servers import Nginx, Registry

LINKS = ("100M/10ms", "1G/1ms")
WAYS = (
    "docker",
    "bootfs",
    "bootfs, runtime there",
    "lease, runtime there",
    "eager, runtime there",
)
UNPRIVILEGED = ("lease", "eager")
"""First words of the ways that are modes without privileges."""
LINK_PARTS = (parse_rate, parse_time)
MB = 1e6


@dataclass(frozen=True)
class Sample:
    """One cold start."""

    seconds: float
    received: int
    """Bytes that crossed the link towards the node until READY."""
    requests: int


def run_docker(*arguments: str, stdin: bytes = b"") -> None:
    """Run a docker command on the machine's engine."""
    subprocess.run(["docker", *arguments], input=stdin, capture_output=True, check=True)


def import_seed() -> str:
    """Make an image of one empty file: converted, it brings the runtime layer and nothing else."""
    reference = f"{PREFIX}/seed:latest"
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("seed"))
    run_docker("import", "-", reference, stdin=archive.getvalue())
    return reference


class Bench:
    """The far end of the link (registry, store), the node at this end, and what they hold."""

    def __init__(self, names: Sequence[str], home: Path, stack: ExitStack) -> None:
        """Build, convert and push the images; `stack` ends the servers and the engine."""
        self.names = tuple(names)
        self._store = home / "store"
        self._store.mkdir()
        self._blobs = home / "blobs"
        self._registry = stack.enter_context(Registry(self._blobs))
        self._nginx = stack.enter_context(Nginx(self._store))
        self.conversions: dict[str, Conversion] = {}
        self.source_bytes: dict[str, int] = {}
        for name in names:
            source = build_image(IMAGES[name])
            self._push(source, name)
            self.source_bytes[name] = self._layer_bytes(name)
            self.conversions[name] = self._convert(source, name)
        seed = import_seed()
        self._convert(seed, "seed")
        run_docker("rmi", seed)
        self.node = stack.enter_context(Node())

    def _convert(self, source: str, name: str) -> Conversion:
        boot = f"{PREFIX}/{name}-boot:latest"
        conversion = convert(source, boot, self._store)
        self._push(boot, f"{name}-boot")
        run_docker("rmi", boot)
        progress(f"{name}: converted in {conversion.seconds:.1f} s")
        return conversion

    def _push(self, image: str, name: str) -> None:
        remote = f"{self._registry.host_port}/{name}:latest"
        for command in (["tag", image, remote], ["push", "-q", remote], ["rmi", remote]):
            run_docker(*command)

    def _layer_bytes(self, name: str) -> int:
        wanted = urllib.request.Request(
            f"{self._registry.url}v2/{name}/manifests/latest",
            headers={"Accept": "application/vnd.docker.distribution.manifest.v2+json"},
        )
        with urllib.request.urlopen(wanted) as answer:
            return sum(layer["size"] for layer in json.load(answer)["layers"])

    def _options(self, store: str, way: str = WAYS[1]) -> list[str]:
        if way == WAYS[0]:
            return []
        mode = way.partition(",")[0]
        given = ["-e", f"BOOTFS_MODE={mode}"] if mode in UNPRIVILEGED else [*BOOT_OPTIONS]
        return [*given, "-e", f"BLOB_STORE=http://{store}/"]

    def start_cold(self, name: str, way: str, rate: float, rtt_s: float) -> Sample:
        """Pull and run one image on a cold node, over a fresh link."""
        node = self.node
        node.forget_images()
        if way.endswith("runtime there"):
            node.docker("pull", "-q", f"{self._registry.host_port}/seed-boot")
        drop_caches(keep=(self._store, self._blobs))
        with (
            Link(self._address(self._registry.port), rate=rate, rtt_s=rtt_s) as registry,
            Link(self._address(self._nginx.port), beside=registry) as store,
        ):
            self._nginx.forget()
            answered = self._registry.answered()
            image = f"{registry.host_port}/{name}{'' if way == 'docker' else '-boot'}"
            options = self._options(store.host_port, way)
            begun = time.monotonic()
            node.docker("pull", "-q", image)
            run = node.run_until_ready(image, options=options)
            requests = self._registry.answered() - answered + len(self._nginx.requests())
            return Sample(run.at - begun, registry.down.bytes, requests)

    def start_warm(self, name: str, times: int) -> Iterator[tuple[float, float]]:
        """Time plain and lazy starts in turns, with everything on the node."""
        node = self.node
        node.forget_images()
        plain = f"{self._registry.host_port}/{name}"
        boot = f"{plain}-boot"
        for image in (plain, boot):
            node.docker("pull", "-q", image)
        node.docker("volume", "create", "bench-cache")
        options = [*self._options(self._nginx.host_port), "-v", "bench-cache:/.bootfs/cache"]
        try:
            for image, given in ((plain, []), (boot, options)):
                node.run_until_ready(image, options=given)
            for _ in range(times):
                yield (
                    node.run_until_ready(plain).seconds,
                    node.run_until_ready(boot, options=options).seconds,
                )
        finally:
            node.docker("volume", "rm", "-f", "bench-cache", check=False)

    @staticmethod
    def _address(port: int) -> tuple[str, int]:
        return "127.0.0.1", port


@dataclass(frozen=True)
class Cold:
    """All cold starts of one image, one way, over one link."""

    link: str
    image: str
    way: str
    seconds: dict[str, float]
    received: int
    requests: int


@dataclass(frozen=True)
class Warm:
    """Warm starts of one image."""

    docker: dict[str, float]
    bootfs: dict[str, float]


@dataclass(frozen=True)
class Figures:
    """Everything that one run of this benchmark measured."""

    cold: list[Cold]
    warm: dict[str, Warm]
    source_bytes: dict[str, int]
    """Bytes of each source image's layers as a registry stores them."""
    conversions: dict[str, Conversion]


def measure(bench: Bench, links: Sequence[str], times: int) -> list[Cold]:
    """Take every cold figure, the ways in turns, so that a disturbance meets all of them."""
    figures = []
    for link in links:
        rate, rtt_s = (parse(text) for parse, text in zip(LINK_PARTS, link.split("/"), strict=True))
        for name in bench.names:
            samples: dict[str, list[Sample]] = {way: [] for way in WAYS}
            for _ in range(times):
                for way in WAYS:
                    sample = bench.start_cold(name, way, rate, rtt_s)
                    samples[way].append(sample)
                    progress(f"{link} {name}, {way}: {sample.seconds:.2f} s")
            figures += [
                Cold(
                    link,
                    name,
                    way,
                    summarize([sample.seconds for sample in samples[way]]),
                    min(sample.received for sample in samples[way]),
                    min(sample.requests for sample in samples[way]),
                )
                for way in WAYS
            ]
    return figures


def measure_warm(bench: Bench, times: int) -> dict[str, Warm]:
    """Take the warm figures of every image."""
    warm = {}
    for name in bench.names:
        pairs = list(bench.start_warm(name, times))
        plain, lazy = (summarize(list(values)) for values in zip(*pairs, strict=True))
        warm[name] = Warm(plain, lazy)
        progress(f"{name}, warm: {lazy['median']:.3f} s, docker {plain['median']:.3f} s")
    return warm


def progress(text: str) -> None:
    """Tell whoever waits what has been measured."""
    print(text, file=sys.stderr, flush=True)


def tabulate(figures: Figures) -> str:
    """Show cold starts as one table: seconds, times faster than docker, bytes, requests."""
    best = {(cold.link, cold.image, cold.way): cold for cold in figures.cold}
    rows = []
    for cold in figures.cold:
        docker = best[cold.link, cold.image, WAYS[0]]
        rows.append(
            (
                f"{cold.link} {cold.image}",
                cold.way,
                f"{cold.seconds['min']:.2f}",
                f"{cold.seconds['median']:.2f}",
                f"{docker.seconds['min'] / cold.seconds['min']:.1f}",
                f"{cold.received / MB:.1f}",
                f"{cold.received / figures.source_bytes[cold.image]:.1%}",
                str(cold.requests),
            )
        )
    header = ("cold start", "way", "min s", "median s", "faster", "MB", "of image", "requests")
    warm = [
        (
            name,
            f"{row.docker['median']:.3f}",
            f"{row.bootfs['median']:.3f}",
            f"{row.bootfs['median'] / row.docker['median']:.2f}",
        )
        for name, row in figures.warm.items()
    ]
    warm_header = ("warm start", "docker run s", "bootfs s", "ratio")
    return format_table(header, rows, texts=2) + "\n\n" + format_table(warm_header, warm)


def draw(figures: Figures, path: Path) -> None:
    """Draw seconds to READY, one panel a link, one group an image."""
    # Drawing is the last step of a long run, and the only one that needs matplotlib.
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    links = list(dict.fromkeys(cold.link for cold in figures.cold))
    images = list(dict.fromkeys(cold.image for cold in figures.cold))
    figure, panels = plt.subplots(1, len(links), figsize=(8 * len(links), 4), squeeze=False)
    for panel, link in zip(panels[0], links, strict=True):
        for at, way in enumerate(WAYS):
            seconds = [
                cold.seconds["min"]
                for image in images
                for cold in figures.cold
                if (cold.link, cold.image, cold.way) == (link, image, way)
            ]
            places = [place + (at - (len(WAYS) - 1) / 2) * 0.17 for place in range(len(images))]
            bars = panel.bar(places, seconds, 0.16, label=way)
            panel.bar_label(bars, fmt="%.1f", fontsize=7)
        panel.set_xticks(range(len(images)), images)
        panel.set_title(f"cold start to READY, {link}")
        panel.set_ylabel("seconds")
        panel.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main(arguments: list[str] | None = None) -> int:
    """Measure cold and warm starts; write bench/results/startup.json and .png, print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.startup", description=main.__doc__)
    parser.add_argument("--images", nargs="+", default=["deb", "node", "gcc", "py"])
    parser.add_argument("--links", nargs="+", default=list(LINKS), metavar="RATE/RTT")
    parser.add_argument("--times", type=int, default=3, help="cold starts of each kind")
    parser.add_argument("--warm-times", type=int, default=15, help="pairs of warm starts")
    options = parser.parse_args(arguments)
    with ExitStack() as stack:
        home = tempfile.TemporaryDirectory(prefix="bootfs-bench-", dir="/var/tmp")
        bench = Bench(options.images, Path(stack.enter_context(home)), stack)
        figures = Figures(
            cold=measure(bench, options.links, options.times),
            warm=measure_warm(bench, options.warm_times),
            source_bytes=bench.source_bytes,
            conversions=bench.conversions,
        )
    write_results("startup", asdict(figures))
    draw(figures, RESULTS / "startup.png")
    print(tabulate(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
