"""Boot images with traces to make profiles of, in stores of every kind."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from converter.cli import main
from store.format.chunkindex import BLOCK, ChunkIndex, parse_chunk_index
from store.format.trace import ENTRY, encode_trace_head
from store.write.backends import open_backend
from tests.support.layers import docker_archive, file, tar_of
from tests.support.registries import REPOSITORY

if TYPE_CHECKING:
    import pytest

    from tests.support.s3server import S3Server
    from tests.support.servers import Registry
    from tests.support.sshd import Sshd

KINDS = ("directory", "ssh", "s3", "registry")
Read = tuple[int, int]


@dataclass(frozen=True)
class Profiled:
    """A boot image, ``oci:boot``, its store, and a directory for traces."""

    url: str
    boot: str
    image: bytes
    index: ChunkIndex
    place: Path

    @property
    def first(self) -> int:
        """First page of the data region."""
        return self.index.data_start // BLOCK

    def trace(
        self,
        name: str,
        *reads: Read,
        command: tuple[bytes, ...] = (b"/bin/app", b"-x"),
        image: bytes = b"",
    ) -> Path:
        """Write a trace of reads, pages counted from the data region on; return the file."""
        path = self.place / name
        body = b"".join(
            ENTRY.pack(number, self.first + page, pages)
            for number, (page, pages) in enumerate(reads)
        )
        path.write_bytes(encode_trace_head(image or self.image, list(command), 1) + body)
        return path


def store_url(kind: str, place: Path, request: pytest.FixtureRequest) -> str:
    """Return the URL of a store of a kind, below ``place`` if it is on this machine's disk."""
    if kind == "directory":
        return str(place / "store")
    if kind == "s3":
        s3: S3Server = request.getfixturevalue("s3_server")
        return s3.store_url("store")
    if kind == "registry":
        registry: Registry = request.getfixturevalue("registry")
        return f"docker://{registry.host_port}/{REPOSITORY}"
    sshd: Sshd = request.getfixturevalue("sshd")
    monkeypatch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    monkeypatch.setenv("PATH", f"{sshd.path}:{os.environ['PATH']}")
    return sshd.url_of(place / "store")


def make_profiled(url: str, place: Path, name: str = "boot", seed: int = 0) -> Profiled:
    """Convert an image of three files into a store."""
    members = [file(f"part{n}", Random(seed + n).randbytes(300_000)) for n in range(2)]
    members.append(file("text", b"".join(b"line %d\n" % n for n in range(30_000))))
    (place / f"{name}.tar").write_bytes(docker_archive(tar_of(*members)))
    boot = f"oci:{place}/{name}"
    backend = open_backend(url)
    try:
        before = set(backend.iter_names("manifests/"))
        assert main(["convert", f"docker-archive:{place}/{name}.tar", boot, "--store", url]) == 0
        (made,) = set(backend.iter_names("manifests/")) - before
        image = bytes.fromhex(made.removeprefix("manifests/"))
        index_name = f"indexes/{image.hex()}"
        encoded = backend.fetch(index_name, 0, backend.size(index_name))
    finally:
        backend.close()
    return Profiled(url, boot, image, parse_chunk_index(encoded), place)
