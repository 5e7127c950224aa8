"""Warm starts: image and cache are on the node, `docker run` alone, in turns with plain ones."""

from __future__ import annotations

from dataclasses import dataclass

from bench.images import Image
from bench.results import summarize
from bench.ways import Place
from bench.ways.engine import boot_options

VOLUME = "bench-cache"


@dataclass(frozen=True)
class Warm:
    """Warm starts of one image."""

    docker: dict[str, float]
    bootfs: dict[str, float]


def measure_warm(place: Place, image: Image, times: int) -> Warm:
    """Time plain and lazy starts in turns, with everything on the node."""
    node, registry = place.node, place.far.registry.host_port
    place.far.push(image.reference, image.name)
    plain, boot = f"{registry}/{image.name}", f"{registry}/{place.boots.add(image)}"
    node.forget_images()
    for reference in (plain, boot):
        node.docker("pull", "-q", reference)
    node.docker("volume", "create", VOLUME)
    docker, bootfs = [], []
    try:
        web = place.far.nginx.url
        options = [*boot_options(web), "-v", f"{VOLUME}:/.bootfs/cache"]
        for reference, given in ((plain, []), (boot, options)):
            node.run_until_ready(reference, options=given)
        for _ in range(times):
            docker.append(node.run_until_ready(plain).seconds)
            bootfs.append(node.run_until_ready(boot, options=options).seconds)
    finally:
        node.docker("volume", "rm", "-f", VOLUME)
    return Warm(summarize(docker), summarize(bootfs))
