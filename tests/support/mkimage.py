"""The image of Dockerfile.mkimage."""

from __future__ import annotations

from pathlib import Path

from tests.support.engine import docker

TOP = Path(__file__).parents[2]
AUTHORITIES = Path("/usr/local/share/ca-certificates")


def build_mkimage(reference: str) -> None:
    """Build it, as somebody would who is behind this machine's proxy.

    Raises:
        EngineError: it cannot be built.
    """
    authorities = "".join(path.read_text() for path in sorted(AUTHORITIES.glob("*.crt")))
    command = ["build", "--force-rm", "-f", str(TOP / "Dockerfile.mkimage"), "-t", reference]
    docker(*command, "--build-arg", f"EXTRA_CA={authorities}", str(TOP), timeout_s=600)
