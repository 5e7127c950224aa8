"""casync: the tree is mounted over a chunk store behind the web server, and run by runc.

There is neither an engine nor an image to pull. Timed are `casync mount` of the index, an overlay
over it, since a container wants to write, and `runc run`. The image's config is taken to be there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.bundle import find_user, inspect_config, write_bundle
from bench.far import Near
from bench.images import Image
from bench.ready import Run, run_checked, run_until_ready
from bench.ways import Place, Unavailable, Way

MOUNT_S = 60.0
NEEDED = ("casync", "runc")


class Casync(Way):
    """Chunks of 16 to 256 KiB, one fetched after the other through FUSE."""

    key = "casync"
    label = "casync"
    client = "casync"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self._web = place.far.web / self.key
        self._web.mkdir()
        (self._web / "chunks.castr").mkdir()
        self._users: dict[str, tuple[int, int]] = {}

    @classmethod
    def check(cls) -> None:
        """Look for casync and runc."""
        if lacking := [name for name in NEEDED if not shutil.which(name)]:
            raise Unavailable(f"missing: {', '.join(lacking)}; see scripts/setup bench")

    def add(self, image: Image) -> None:
        """Unpack the image's tree, and have casync make chunks and an index of it."""
        tree = self.home / "tree"
        tree.mkdir()
        export_tree(image.reference, tree)
        passwd = (tree / "etc" / "passwd").read_text()
        self._users[image.name] = find_user(image.user, passwd)
        store, index = self._web / "chunks.castr", self._web / f"{image.name}.caidx"
        making = ["casync", "make", f"--store={store}", str(index), str(tree)]
        subprocess.run(making, stdout=subprocess.DEVNULL, check=True)
        shutil.rmtree(tree)

    def kept(self, image: Image) -> Iterable[Path]:
        """Return the directory of chunks and indexes."""
        return [self._web]

    @contextmanager
    def cold(self, image: Image, near: Near) -> Iterator[None]:
        """Have empty directories to mount on, and a bundle for runc."""
        self._run = self.home / uuid.uuid4().hex
        for part in ("", "lower", "upper", "work", "root"):
            (self._run / part).mkdir()
        config, user = inspect_config(image.reference), self._users[image.name]
        write_bundle(self._run / "bundle", self._run / "root", config, user)
        try:
            yield
        finally:
            shutil.rmtree(self._run)

    def start(self, image: Image, near: Near) -> Run:
        """Mount the index and an overlay over it, and run the command there."""
        run, web = self._run, f"{near.web}{self.key}/"
        mounting = ["casync", "mount", f"--store={web}chunks.castr", f"{web}{image.name}.caidx"]
        with (
            (run / "casync.log").open("wb") as log,
            subprocess.Popen([*mounting, str(run / "lower")], stdout=log, stderr=log) as casync,
        ):
            try:
                self._wait_until_mounted(casync)
                return self._start_over(image, near)
            finally:
                casync.terminate()

    def _start_over(self, image: Image, near: Near) -> Run:
        run = self._run
        parts = f"lowerdir={run}/lower,upperdir={run}/upper,workdir={run}/work"
        run_checked(["mount", "-t", "overlay", "overlay", "-o", parts, str(run / "root")])
        try:
            command = ["runc", "run", "--bundle", str(run / "bundle"), f"bench-{run.name}"]
            return run_until_ready(command, f"casync {image.name}", near.mark)
        finally:
            run_checked(["umount", str(run / "root")])

    def _wait_until_mounted(self, casync: subprocess.Popen[bytes]) -> None:
        lower = self._run / "lower"
        deadline = time.monotonic() + MOUNT_S
        while not os.path.ismount(lower):
            if casync.poll() is not None or time.monotonic() > deadline:
                said = (self._run / "casync.log").read_text(errors="replace")
                raise RuntimeError(f"casync does not mount: {said}")
            time.sleep(0.001)


def export_tree(reference: str, tree: Path) -> None:
    """Unpack the merged tree of an image of the machine's engine.

    Raises:
        CalledProcessError: docker or tar failed.
    """
    made = subprocess.run(["docker", "create", reference], capture_output=True, check=True)
    container = made.stdout.decode().strip()
    try:
        with subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE) as export:
            unpacking = ["tar", "-C", str(tree), "--numeric-owner", "-xp"]
            subprocess.run(unpacking, stdin=export.stdout, check=True)
    finally:
        subprocess.run(["docker", "rm", container], capture_output=True, check=True)
