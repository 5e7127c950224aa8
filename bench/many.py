"""Many containers at once on one cold node, over one link: a new machine that joins a cluster.

Every image is pulled once, all at the same time, and its containers are started as soon as it is
there. Clock: from the first pull until the last container is READY; also when the first one and
half of them were. bootfs has its runtime layer on the node, and all its containers share one cache
volume, as they would on a real one.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.bootimages import BootImages
from bench.far import Far, Near, Traffic
from bench.images import IMAGES, Image, build_image
from bench.link import parse_rate, parse_time
from bench.node import Node, drop_caches
from bench.report import many_table
from bench.results import summarize, write_results
from bench.startup import progress
from bench.ways import Place
from bench.ways.engine import Docker, Lazy, boot_options

VOLUME = "bench-many"


@dataclass(frozen=True)
class Wave:
    """All containers of one way, started at once; seconds from the first pull."""

    first_s: float
    half_s: float
    last_s: float
    traffic: Traffic
    """Until the last one had ended: while it is READY, others may still be on the line."""


class Many:
    """One node, some images, and so many containers of each."""

    def __init__(self, place: Place, images: Sequence[Image], containers: int) -> None:
        self._place = place
        self._images = images
        self._each = containers // len(images)
        self.ways = (Docker(place), Lazy(place))
        for image in images:
            build_image(image)
            for way in self.ways:
                way.add(image)
                progress(f"{image.name}, {way.label}: ready to be measured")

    def start(self, way: Docker, rate: float, rtt_s: float) -> Wave:
        """Start them all on a cold node, over a fresh link.

        Raises:
            RuntimeError: one of them was not READY, or failed.
        """
        node = self._place.node
        kept = {path for image in self._images for path in way.kept(image)}
        node.docker("volume", "create", VOLUME)
        try:
            with (
                self._place.far.reached(rate, rtt_s) as near,
                way.cold(self._images[0], near),
                ThreadPoolExecutor(len(self._images) * (self._each + 1)) as pool,
            ):
                drop_caches(sorted(kept))
                near.begin()
                begun = time.monotonic()
                started = [
                    pool.submit(self._start_one, way, one, near, pool) for one in self._images
                ]
                ready = sorted(at for future in started for at in future.result())
                near.mark()
        finally:
            node.docker("volume", "rm", "-f", VOLUME)
        assert near.traffic
        seconds = [at - begun for at in ready]
        return Wave(seconds[0], seconds[len(seconds) // 2], seconds[-1], near.traffic)

    def _start_one(
        self, way: Docker, image: Image, near: Near, pool: ThreadPoolExecutor
    ) -> list[float]:
        """Pull one image and start its containers; return when each was READY."""
        node = self._place.node
        reference, options = f"{near.registry}/{image.name}", []
        if isinstance(way, Lazy):
            reference = f"{near.registry}/{self._place.boots.add(image)}"
            options = [*boot_options(near.web), "-v", f"{VOLUME}:/.bootfs/cache"]
        node.docker("pull", "-q", reference)
        runs = [
            pool.submit(node.run_until_ready, reference, options=options) for _ in range(self._each)
        ]
        return [run.result().at for run in runs]


def summarize_waves(waves: Sequence[Wave]) -> dict[str, object]:
    """Summarize the waves of one way; of bytes and requests, the least."""
    return {
        "first_s": summarize([wave.first_s for wave in waves]),
        "half_s": summarize([wave.half_s for wave in waves]),
        "last_s": summarize([wave.last_s for wave in waves]),
        "received": min(wave.traffic.received for wave in waves),
        "requests": min(wave.traffic.requests for wave in waves),
    }


def main(arguments: list[str] | None = None) -> int:
    """Start many containers at once; write bench/results/many.json, print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.many", description=main.__doc__)
    images = ["node", "gcc", "py", "ruby"]
    parser.add_argument("--images", nargs="+", default=images, choices=list(IMAGES))
    parser.add_argument("--links", nargs="+", default=["100M/10ms", "1G/1ms"], metavar="RATE/RTT")
    parser.add_argument("--containers", type=int, default=20, help="of all images together")
    parser.add_argument("--times", type=int, default=3)
    options = parser.parse_args(arguments)
    if options.containers <= 0 or options.containers % len(options.images):
        parser.error("--containers must be so many of each image")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    links: dict[str, dict[str, object]] = {}
    with ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="bootfs-bench-", dir="/var/tmp")
        home = Path(stack.enter_context(temporary))
        far = Far(home, stack)
        place = Place(far, stack.enter_context(Node()), BootImages(far), home)
        many = Many(place, [IMAGES[name] for name in options.images], options.containers)
        for link in options.links:
            rate, rtt = link.split("/")
            waves: dict[str, list[Wave]] = {way.label: [] for way in many.ways}
            for _ in range(options.times):
                for way in many.ways:
                    wave = many.start(way, parse_rate(rate), parse_time(rtt))
                    waves[way.label].append(wave)
                    progress(f"{link}, {way.label}: {wave}")
            links[link] = {label: summarize_waves(taken) for label, taken in waves.items()}
    figures = {"images": options.images, "containers": options.containers, "links": links}
    write_results("many", figures)
    print(many_table(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
