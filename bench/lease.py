"""What mode lease costs beside the network: making the tree, and reading what has been filled.

* `skeleton`: CPU time of PID 1 until the workload runs, of an image with many more files than
  another, by the number of files they differ in. It holds making each file, its name, times, owner,
  lease and entry of the journal.
* `open+read`: time of opening, reading and closing a file, all files of an image in a loop, warm,
  under plain `docker run` and where bootfs has filled them.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.conversion import convert
from bench.images import IMAGES, PREFIX, build_image
from bench.report import lease_table
from bench.results import summarize, write_results
from tests.support.engine import docker
from tests.support.servers import Nginx

FILES = 10_000
"""Fewer than a container may usually open: the others would be filled before the start."""
LABEL = "bootfs-bench-lease"
"""What the containers have, that they are removed by."""
SPENT = "cat /proc/1/task/*/schedstat"
"""Nanoseconds on a processor, time waiting for one, and time slices, of each thread of PID 1."""
PASSES = 5
READ = f"""\
import os, time
paths = []
for top in ("/etc", "/usr"):
    for directory, _, names in os.walk(top):
        for name in names:
            path = os.path.join(directory, name)
            if os.path.isfile(path) and not os.path.islink(path):
                paths.append(path)
for _ in range({PASSES} + 1):
    begun = time.perf_counter()
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        while os.read(fd, 1 << 20):
            pass
        os.close(fd)
    print(len(paths), time.perf_counter() - begun)
"""
"""The first pass, which fills the files or reads them from the disk, does not count."""


def run(image: str, server: Nginx | None, *command: str) -> str:
    """Run a container without any privilege and give what it printed; the container stays.

    ext4 makes files several times more slowly for a minute after as many were removed.
    """
    options = ["--label", LABEL, "--network", "host"]
    if server is not None:
        options += ["-e", "BOOTFS_MODE=lease", "-e", f"BLOB_STORE={server.url}"]
    arguments = ["docker", "run", *options, image, *command]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def build_with_files(base: str) -> str:
    """Build an image with `FILES` small files more than `base`."""
    made = f"FROM {base}\nRUN mkdir /files && cd /files && for n in $(seq {FILES});"
    made += " do echo $n >$n; done\n"
    name = f"{PREFIX}/files:latest"
    subprocess.run(["docker", "build", "-q", "-t", name, "-"], input=made, text=True, check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    return name


def spent_s(image: str, server: Nginx) -> float:
    """Give the CPU time in seconds that PID 1 has taken when the workload runs."""
    lines = run(image, server, "sh", "-c", SPENT).splitlines()
    return sum(int(line.split()[0]) for line in lines) / 1e9


def read_us(image: str, server: Nginx | None) -> float:
    """Give microseconds per file of the median pass over all files."""
    lines = run(image, server, "python3", "-c", READ).splitlines()[1:]
    passes = [(int(count), float(taken)) for count, taken in map(str.split, lines)]
    return statistics.median(taken / count * 1e6 for count, taken in passes)


def measure(times: int, home: Path) -> tuple[list[float], dict[str, list[float]]]:
    """Take µs a file of making the tree, and of reading files, plain and filled; in turns."""
    deb, py = build_image(IMAGES["deb"]), build_image(IMAGES["py"])
    sources = {"few": deb, "many": build_with_files(deb), "py": py}
    boot = {name: f"{PREFIX}/{name}-lease:latest" for name in sources}
    store = home / "store"
    store.mkdir()
    made: list[float] = []
    reads: dict[str, list[float]] = {"plain": [], "filled": []}
    with Nginx(store) as server:
        try:
            for name, source in sources.items():
                convert(source, boot[name], store)
            for _ in range(times):
                few, many = (spent_s(boot[name], server) for name in ("few", "many"))
                made.append((many - few) / FILES * 1e6)
                reads["plain"].append(read_us(py, None))
                reads["filled"].append(read_us(boot["py"], server))
                print(
                    f"skeleton {made[-1]:.1f} us a file; open+read plain"
                    f" {reads['plain'][-1]:.2f}, filled {reads['filled'][-1]:.2f} us",
                    file=sys.stderr, flush=True,
                )  # fmt: skip
        finally:
            listed = docker("ps", "-aq", "--filter", f"label={LABEL}").stdout.split()
            docker("rm", "-f", "-v", *listed, check=False)
            docker("rmi", "-f", *boot.values(), sources["many"], check=False)
    return made, reads


def main(arguments: list[str] | None = None) -> int:
    """Measure what mode lease costs; write bench/results/lease.json, print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.lease", description=main.__doc__)
    parser.add_argument("--times", type=int, default=5)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="bootfs-bench-", dir="/var/tmp") as home:
        made, reads = measure(options.times, Path(home))
    figures = {
        "files": FILES,
        "skeleton_us": summarize(made),
        "read_us": {way: summarize(values) for way, values in reads.items()},
    }
    write_results("lease", figures)
    print(lease_table(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
