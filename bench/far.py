"""The far end of an emulated link: a registry and a web server, what they hold, what crosses."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.link import Link
from tests.support.servers import Nginx, Registry

_MANIFESTS = ", ".join(
    f"application/vnd.{kind}+json"
    for kind in (
        "docker.distribution.manifest.v2",
        "docker.distribution.manifest.list.v2",
        "oci.image.manifest.v1",
        "oci.image.index.v1",
    )
)


def run_docker(*arguments: str, stdin: bytes = b"") -> None:
    """Run a docker command on the machine's engine."""
    subprocess.run(["docker", *arguments], input=stdin, capture_output=True, check=True)


@dataclass(frozen=True)
class Traffic:
    """What has crossed a link."""

    received: int
    """Bytes that were put on the line towards the node."""
    requests: int
    """Requests that the servers have answered."""


class Near:
    """The far end as the node sees it over one link: two addresses, and a meter."""

    def __init__(self, far: Far, registry: Link, web: Link) -> None:
        """Count from here on; the caller closes both links, which share one line."""
        self._far = far
        self._line = registry.down
        self.registry = registry.host_port
        """HOST:PORT of the registry."""
        self.web = f"http://{web.host_port}/"
        """URL of the web server, with a slash at its end."""
        self._received = 0
        self._answered = 0
        self.traffic: Traffic | None = None
        """What had crossed when `mark` was called last."""
        self.begin()

    def begin(self) -> None:
        """Count from here on."""
        self._far.nginx.forget()
        self._answered = self._far.registry.answered()
        self._received = self._line.bytes
        self.traffic = None

    def mark(self) -> None:
        """Keep what has crossed so far as `traffic`: bytes at once, requests as they are logged."""
        received = self._line.bytes - self._received
        requests = self._far.registry.answered() - self._answered
        self.traffic = Traffic(received, requests + len(self._far.nginx.requests()))


class Far:
    """A registry and a web server; a link to them is opened for each start."""

    def __init__(self, home: Path, stack: ExitStack) -> None:
        """Serve directories below `home`; `stack` ends the servers."""
        self._pushed: set[str] = set()
        self.web = home / "web"
        self.web.mkdir()
        self.blobs = home / "blobs"
        self.registry = stack.enter_context(Registry(self.blobs))
        self.nginx = stack.enter_context(Nginx(self.web))

    @contextmanager
    def reached(self, rate: float | None, rtt_s: float) -> Iterator[Near]:
        """Open a link of `rate` bit/s and `rtt_s`, which both servers are at the end of."""
        with (
            Link(("127.0.0.1", self.registry.port), rate=rate, rtt_s=rtt_s) as registry,
            Link(("127.0.0.1", self.nginx.port), beside=registry) as web,
        ):
            yield Near(self, registry, web)

    def push(self, image: str, name: str) -> None:
        """Push an image of the machine's engine as NAME:latest, unless that is done."""
        if name in self._pushed:
            return
        self._pushed.add(name)
        remote = f"{self.registry.host_port}/{name}:latest"
        for command in (["tag", image, remote], ["push", "-q", remote], ["rmi", remote]):
            run_docker(*command)

    def layers(self, name: str) -> list[dict[str, Any]]:
        """Return the descriptors of an image's layers, as its manifest in the registry has them."""
        manifest = self._manifest(name, "latest")
        if "manifests" in manifest:
            (entry,) = (
                entry
                for entry in manifest["manifests"]
                if entry.get("platform", {}).get("os", "linux") == "linux"
            )
            manifest = self._manifest(name, entry["digest"])
        layers: list[dict[str, Any]] = manifest["layers"]
        return layers

    def layer_bytes(self, name: str) -> int:
        """Return the bytes of an image's layers, as the registry keeps them."""
        return sum(layer["size"] for layer in self.layers(name))

    def layer_files(self, name: str) -> list[Path]:
        """Return the files in which the registry keeps an image's layers."""
        digests = (layer["digest"].partition(":") for layer in self.layers(name))
        top = self.blobs / "docker" / "registry" / "v2" / "blobs"
        return [top / kind / value[:2] / value / "data" for kind, _, value in digests]

    def _manifest(self, name: str, which: str) -> dict[str, Any]:
        wanted = urllib.request.Request(
            f"{self.registry.url}v2/{name}/manifests/{which}", headers={"Accept": _MANIFESTS}
        )
        with urllib.request.urlopen(wanted) as answer:
            manifest: dict[str, Any] = json.load(answer)
        return manifest
