"""CPU time of walking and of reading a whole image: both modes of bootfs against overlay2.

CPU time is user + system of the container's cgroup, so it holds the workload, the daemon and what
the kernel does in their name; other processes of the machine do not disturb it. What `docker exec`
itself costs there is measured and taken off.

* `cold`: nothing of the image is on the node but the boot image; the page cache is empty.
* `cached`: the cache volume holds everything, the page cache is empty.
* `warm`: everything is in the page cache.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.conversion import convert
from bench.images import IMAGES, PREFIX, build_image
from bench.node import drop_caches
from bench.results import format_table, summarize, write_results
from tests.support.engine import BOOT_OPTIONS, Container, docker
from tests.support.servers import Nginx

MODES = ("overlay2", "erofs", "fuse")
FIND = "find / -xdev -printf '%s %T@ %m %U\\n' >/dev/null"
READ = "find / -xdev -type f -print0 | xargs -0 cat >/dev/null"
WARM_TIMES = 5
"""A warm walk takes some 0.1 s; one alone would drown in what else the machine does."""
CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Cost:
    """What one command has cost."""

    cpu_s: float
    elapsed_s: float


def cpu_clock(pid: int) -> tuple[Path, float]:
    """Find the file that counts the CPU time of a process's cgroup, and its unit in seconds.

    Raises:
        RuntimeError: neither version of cgroups counts it.
    """
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "cpuacct" in controllers.split(","):
            return CGROUPS / "cpuacct" / path.lstrip("/") / "cpuacct.usage", 1e-9
        if not controllers and (CGROUPS / path.lstrip("/") / "cpu.stat").exists():
            return CGROUPS / path.lstrip("/") / "cpu.stat", 1e-6
    raise RuntimeError(f"no cgroup counts the CPU time of process {pid}")


class Measured:
    """A container to run commands in and to know their cost."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._clock, self._unit = cpu_clock(container.pid())
        self._overhead = 0.0
        self._overhead = min(self.cost("true").cpu_s for _ in range(5))

    def _cpu(self) -> float:
        text = self._clock.read_text()
        # cgroup v2: several lines, `usage_usec N` first; v1: the number alone.
        return int(text.split()[1] if "usage_usec" in text else text) * self._unit

    def cost(self, command: str, times: int = 1) -> Cost:
        """Run a shell command inside, `times` times over, and give the cost of one of them."""
        loop = f"n=0; while [ $n -lt {times} ]; do {command}; n=$((n + 1)); done"
        cpu, begun = self._cpu(), time.monotonic()
        self._container.run("sh", "-c", loop)
        elapsed = time.monotonic() - begun
        return Cost(max(0.0, self._cpu() - cpu - self._overhead) / times, elapsed / times)


class Bench:
    """One image in both forms, and a server for its store."""

    def __init__(self, image: str, store: Path, server: Nginx) -> None:
        self._plain = build_image(IMAGES[image])
        self._boot = f"{PREFIX}/{image}-boot:latest"
        self._store = store
        self._server = server
        convert(self._plain, self._boot, store)

    def close(self) -> None:
        """Remove the boot image."""
        docker("rmi", "-f", self._boot, check=False)

    @contextmanager
    def start(self, mode: str) -> Iterator[Measured]:
        """Start a container in a mode, with nothing cached; it is removed at the end."""
        name = f"{PREFIX}-{uuid.uuid4().hex[:8]}"
        image, options = self._plain, ["--network", "host"]
        if mode != "overlay2":
            image = self._boot
            options += [*BOOT_OPTIONS, "-e", f"BOOTFS_MODE={mode}"]
            options += ["-e", f"BLOB_STORE={self._server.url}"]
        drop_caches(keep=[self._store])
        docker("run", "-d", "--name", name, *options, image, "sh", "-c", "echo READY; sleep 3600")
        container = Container(name)
        try:
            container.wait_for_line("READY")
            yield Measured(container)
        finally:
            container.remove()

    def measure(self, mode: str) -> dict[str, Cost]:
        """Take every figure of a mode once."""
        costs = {}
        with self.start(mode) as container:
            drop_caches(keep=[self._store])
            costs["find cold"] = container.cost(FIND)
            costs["find warm"] = container.cost(FIND, WARM_TIMES)
        with self.start(mode) as container:
            drop_caches(keep=[self._store])
            costs["read cold"] = container.cost(READ)
            drop_caches(keep=[self._store])
            costs["read cached"] = container.cost(READ)
            costs["read warm"] = container.cost(READ, WARM_TIMES)
        return costs


def tabulate(figures: dict[str, dict[str, dict[str, float]]]) -> str:
    """Show CPU seconds, and in brackets how many times overlay2's they are."""
    rows = []
    for what, base in figures["overlay2"].items():
        cells = [what]
        for mode in MODES:
            least = figures[mode][what]["min"]
            cells.append(f"{least:.2f} ({least / base['min']:.2f})" if base["min"] else "-")
        rows.append(cells)
    return format_table(("CPU s", *MODES), rows)


def take_all(bench: Bench, times: int) -> dict[str, list[dict[str, Cost]]]:
    """Take all figures `times` times, the modes in turns."""
    taken: dict[str, list[dict[str, Cost]]] = {mode: [] for mode in MODES}
    for _ in range(times):
        for mode in MODES:
            costs = bench.measure(mode)
            taken[mode].append(costs)
            shown = ", ".join(f"{what} {cost.cpu_s:.2f}" for what, cost in costs.items())
            print(f"{mode}: {shown}", file=sys.stderr, flush=True)
    return taken


def summarize_all(
    taken: dict[str, list[dict[str, Cost]]], field: str
) -> dict[str, dict[str, dict[str, float]]]:
    """Summarize one field of the costs by mode and command."""

    def values(runs: Sequence[dict[str, Cost]], what: str) -> list[float]:
        return [float(getattr(run[what], field)) for run in runs]

    return {
        mode: {what: summarize(values(runs, what)) for what in runs[0]}
        for mode, runs in taken.items()
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure walking and reading; write bench/results/filesystem.json, print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.filesystem", description=main.__doc__)
    parser.add_argument("--image", default="py", choices=sorted(IMAGES))
    parser.add_argument("--times", type=int, default=3)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="bootfs-bench-", dir="/var/tmp") as home:
        store = Path(home) / "store"
        store.mkdir()
        with Nginx(store) as server:
            bench = Bench(options.image, store, server)
            try:
                taken = take_all(bench, options.times)
            finally:
                bench.close()
    listed = ["docker", "run", "--rm", build_image(IMAGES[options.image]), "find", "/", "-xdev"]
    entries = len(subprocess.run(listed, capture_output=True, check=True).stdout.splitlines())
    cpu = summarize_all(taken, "cpu_s")
    write_results(
        "filesystem",
        {
            "image": options.image,
            "entries": entries,
            "cpu_s": cpu,
            "elapsed_s": summarize_all(taken, "elapsed_s"),
        },
    )
    print(tabulate(cpu))
    return 0


if __name__ == "__main__":
    sys.exit(main())
