"""Time from nothing to READY: every way there in turns, over one emulated link.

A registry and a web server stand at the far end of the link; the node starts cold: no image, no
layer, an empty page cache. Clock: from the start of the pull, or mount, until the workload's line
READY has arrived. The ways are in bench/ways; `--ways` takes their keys.

Then warm: image and cache are on the node, `docker run` alone, in turns with the plain image. And
the floor: what a start touches of an image, which has to cross the link whatever is done.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.bootimages import BootImages
from bench.conversion import Conversion
from bench.far import Far, Traffic
from bench.floor import Touched
from bench.images import IMAGES, Image, build_image
from bench.link import parse_rate, parse_time
from bench.node import Node, drop_caches
from bench.results import RESULTS, describe_machine, read_figures, summarize, write_results
from bench.starttables import draw, start_part
from bench.touched import measure_touched
from bench.warm import Warm, measure_warm
from bench.ways import Place, Unavailable, Way
from bench.ways.casync import Casync
from bench.ways.engine import Bare, Docker, Eager, Lazy, Lease
from bench.ways.estargz import Estargz, Traced
from bench.ways.profile import Profile
from bench.ways.whole import AlwaysWhole, NeverWhole

WAYS: dict[str, type[Way]] = {
    way.key: way
    for way in (
        *(Docker, Casync, Estargz, Traced, Bare, Lazy, NeverWhole, AlwaysWhole, Profile),
        *(Lease, Eager),
    )
}
LINKS: dict[str, Sequence[str]] = {
    "100M/10ms": tuple(WAYS),
    "1G/1ms": tuple(WAYS),
    "100M/200ms": ("docker", "bare", "lazy", "profile", "lease"),
}
"""Links, and the ways that are measured over them if no others are asked for."""
FLOOR_TIMES = 3


@dataclass(frozen=True)
class Cold:
    """All cold starts of one image, one way, over one link."""

    link: str
    image: str
    way: str
    """Its label."""
    seconds: dict[str, float]
    received: int
    """Bytes that were put on the link towards the node until READY, the least of all starts."""
    requests: int


@dataclass
class Figures:
    """Everything that one run of this benchmark has measured so far."""

    cold: list[Cold] = field(default_factory=list)
    warm: dict[str, Warm] = field(default_factory=dict)
    source_bytes: dict[str, int] = field(default_factory=dict)
    """Bytes of each source image's layers as a registry stores them."""
    conversions: dict[str, Conversion] = field(default_factory=dict)
    touched: dict[str, Touched] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    """Starts that did not get to READY, and why; no figure of theirs is counted."""

    @classmethod
    def kept(cls, found: Mapping[str, Any]) -> Figures:
        """Return what an earlier run has written; those of one image and link are of one run.

        Raises:
            ValueError: they were taken on another kind of machine.
        """
        machine = describe_machine()
        if found["machine"] != machine:
            raise ValueError(f"taken on another machine: {found['machine']}, this one is {machine}")
        parts = {part.name: found[part.name] for part in fields(cls)}
        parts["cold"] = [Cold(**cold) for cold in parts["cold"]]
        parts["touched"] = {name: Touched(**one) for name, one in parts["touched"].items()}
        return cls(**parts)

    def put(self, link: str, image: str, cold: Iterable[Cold]) -> None:
        """Have the starts of one image over one link, instead of those of an earlier run."""
        is_old = [(one.link, one.image) == (link, image) for one in self.cold]
        at = is_old.index(True) if any(is_old) else len(is_old)
        self.cold = [one for one, old in zip(self.cold, is_old, strict=True) if not old]
        self.failures = [line for line in self.failures if not line.startswith(f"{link} {image},")]
        self.cold[at:at] = cold


def start_cold(way: Way, image: Image, rate: float, rtt_s: float) -> tuple[float, Traffic]:
    """Start one image on a cold node, over a fresh link: the seconds to READY, what crossed.

    Raises:
        RuntimeError: it did not get there.
    """
    with way.place.far.reached(rate, rtt_s) as near, way.cold(image, near):
        drop_caches(way.kept(image), way.client)
        near.begin()
        begun = time.monotonic()
        run = way.start(image, near)
        assert near.traffic
        return run.at - begun, near.traffic


def measure(
    ways: Sequence[Way],
    link: str,
    image: Image,
    times: int,
    once: Sequence[str],
    failures: list[str],
) -> Iterator[Cold]:
    """Take the ways in turns, so that a disturbance meets all of them; those of `once` once."""
    rate, rtt = link.split("/")
    samples: dict[str, list[tuple[float, Traffic]]] = {way.label: [] for way in ways}
    for turn in range(times):
        for way in ways:
            if turn and way.key in once:
                continue
            what = f"{link} {image.name}, {way.label}"
            try:
                sample = start_cold(way, image, parse_rate(rate), parse_time(rtt))
            except RuntimeError as error:
                # The others are worth measuring all the same: a run takes hours.
                failures.append(f"{what}: {error}")
                progress(failures[-1])
                continue
            samples[way.label].append(sample)
            progress(f"{what}: {sample[0]:.2f} s, {sample[1].received / 1e6:.1f} MB")
    for label, taken in samples.items():
        if taken:
            yield Cold(
                link,
                image.name,
                label,
                summarize([seconds for seconds, _ in taken]),
                min(traffic.received for _, traffic in taken),
                min(traffic.requests for _, traffic in taken),
            )


def progress(text: str) -> None:
    """Tell whoever waits what has been measured."""
    print(text, file=sys.stderr, flush=True)


def choose_ways(wanted: Sequence[str] | None) -> dict[str, type[Way]]:
    """Return the ways that are wanted, or else all that this machine can go, by key.

    Raises:
        Unavailable: one that is wanted by name is not to be had here.
    """
    chosen = {}
    for key in wanted or WAYS:
        try:
            WAYS[key].check()
        except Unavailable as missing:
            if wanted:
                raise
            progress(f"left out: {WAYS[key].label}: {missing}")
            continue
        chosen[key] = WAYS[key]
    return chosen


def prepare(place: Place, ways: Sequence[Way], names: Sequence[str], figures: Figures) -> None:
    """Bring every image to the far end in every form."""
    for name in names:
        build_image(IMAGES[name])
        place.far.push(IMAGES[name].reference, name)
        figures.source_bytes[name] = place.far.layer_bytes(name)
        for way in ways:
            begun = time.monotonic()
            way.add(IMAGES[name])
            progress(f"{name}, {way.label}: ready to be measured, {time.monotonic() - begun:.1f} s")
    figures.conversions |= place.boots.conversions


def run(parser: argparse.ArgumentParser, options: argparse.Namespace, figures: Figures) -> None:
    """Prepare what ``options`` ask for, then measure it, or what lines of input ask for."""
    chosen = choose_ways(options.ways)
    with ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="bootfs-bench-", dir="/var/tmp")
        home = Path(stack.enter_context(temporary))
        far = Far(home, stack)
        place = Place(far, stack.enter_context(Node()), BootImages(far), home)
        ways = {key: way(place) for key, way in chosen.items()}
        prepare(place, list(ways.values()), options.images, figures)
        if not options.wait:
            measure_all(place, ways, options, figures)
            return
        progress("all is prepared: each line of options is measured, an empty one as it was asked")
        for line in sys.stdin:
            wanted = argparse.Namespace(**vars(options))
            try:
                parser.parse_args(shlex.split(line), wanted)
            except (SystemExit, ValueError):
                # It has said what is wrong, and what is prepared has taken an hour.
                continue
            asked = {*wanted.images, *(wanted.ways or ())}
            if missing := asked - {*options.images, *ways}:
                progress(f"not prepared: {', '.join(sorted(missing))}")
                continue
            measure_all(place, ways, wanted, figures)


def measure_all(
    place: Place, ways: Mapping[str, Way], options: argparse.Namespace, figures: Figures
) -> None:
    """Measure what is prepared; figures are written after each image, since a run takes hours."""
    images = [IMAGES[name] for name in options.images]
    for image in images:
        if options.floor:
            # How far the kernel reads ahead is not always the same: the least is the floor.
            starts = [measure_touched(place, image) for _ in range(FLOOR_TIMES)]
            figures.touched[image.name] = min(starts, key=lambda touched: touched.bytes)
        if options.warm_times:
            warm = measure_warm(place, image, options.warm_times)
            figures.warm[image.name] = warm
            progress(f"{image.name}, warm: {warm.bootfs}, docker {warm.docker}")
    for link in options.links:
        keys = options.ways or LINKS.get(link, WAYS)
        for image in images:
            going = [ways[key] for key in keys if key in ways]
            failures: list[str] = []
            taken = measure(going, link, image, options.times, options.once, failures)
            figures.put(link, image.name, taken)
            figures.failures += failures
            write_results("startup", asdict(figures))


def main(arguments: list[str] | None = None) -> int:
    """Measure cold and warm starts; write bench/results/startup.json and .png, print tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.startup", description=main.__doc__)
    parser.add_argument("--images", nargs="+", default=list(IMAGES), choices=list(IMAGES))
    parser.add_argument("--links", nargs="+", default=list(LINKS), metavar="RATE/RTT")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), help="default: what is here")
    parser.add_argument("--times", type=int, default=5, help="cold starts of each kind")
    parser.add_argument(
        "--once",
        nargs="+",
        choices=list(WAYS),
        default=(),
        help="ways of which one start is enough, since they take long",
    )
    parser.add_argument("--warm-times", type=int, default=15, help="pairs of warm starts")
    parser.add_argument(
        "--floor",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure what starts touch, too",
    )
    parser.add_argument(
        "--add",
        action="store_true",
        help="keep what bench/results has of other images and links, in the tables too",
    )
    parser.add_argument(
        "--wait",
        action="store_true",
        help="prepare, which takes as long as measuring, then measure for each line of standard "
        "input, which may have other options of these",
    )
    options = parser.parse_args(arguments)
    if not find_spec("matplotlib"):
        parser.error("matplotlib is missing: scripts/setup bench")
    # Servers, daemons and mounts end with the run, however it ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        figures = Figures.kept(read_figures("startup")) if options.add else Figures()
    except (ValueError, FileNotFoundError) as wrong:
        parser.error(f"--add: {wrong}")
    try:
        run(parser, options, figures)
    except Unavailable as missing:
        parser.error(str(missing))
    document = asdict(figures)
    draw(document, RESULTS / "startup.png")
    print(start_part(document))
    return 1 if figures.failures else 0


if __name__ == "__main__":
    sys.exit(main())
