"""Where the milliseconds of a warm boot go, from `docker run` to the workload's exec.

How it is taken: the boot image gets another /.bootfs/runtime/start.pyc, bench/bootprofile.py with
boot/start.py behind it, in a layer of its own. That wraps the functions of the steps when they
have been imported, and keeps time stamps in memory; each process writes them once, when nothing of
the boot waits for it any more. Nothing in `boot` knows of it. Some hundred stamps cost 0.1 ms of a
boot in all; the walls, with it and without, are in the table too.

CLOCK_MONOTONIC is the same here and in the container. Nobody can ask when the engine has executed
the launcher, so the interpreter's own start is measured on this machine: the runtime layer's
interpreter, from the fork to the first line of Python, in turns with the boots. `engine` is what
is left before the first line. The runs are warm: image, cache and page cache hold everything.

The path to the exec leads through three processes: the init forks the daemon, the daemon mounts
the image, the child makes the root and executes the workload. Its steps add up to `init to exec`;
what the init does beside it is listed below it.
"""

from __future__ import annotations
import __future__

import argparse
import importlib.util
import marshal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.bootprofile import BECOMES, EXEC, FIRST, FORK, IMPORTS, MOUNTED, PREFIX
from bench.conversion import convert
from bench.images import IMAGES, build_image
from bench.images import PREFIX as NAMES
from bench.report import boot_table
from bench.results import summarize, write_results
from tests.support.engine import BOOT_OPTIONS, docker
from tests.support.runtime import Bundle
from tests.support.servers import Nginx

TOP = Path(__file__).resolve().parents[1]
MS = 1e6
TELL_FIRST = b"import posix, time\nposix.write(1, b'%d' % time.monotonic_ns())\n"

Spans = dict[tuple[str, str], tuple[int, int]]
"""Begin and end in ns of what a process did, by role and name; the last of a name."""


def read_profile(text: str) -> Spans:
    """Return the spans that the processes of one boot have written.

    Raises:
        ValueError: a process has not; the message holds what was written instead.
    """
    spans: Spans = {}
    for line in text.splitlines():
        if line.startswith(PREFIX):
            _, role, name, begin, end = line.split()
            spans[role, name] = (int(begin), int(end))
    if {role for role, _ in spans} < {"init", "daemon", "child"}:
        raise ValueError(f"no whole boot in {text!r}")
    return spans


@dataclass(frozen=True)
class Boot:
    """One profiled boot; times of the monotonic clock in ns."""

    begun: int
    """Before `docker run`."""
    ended: int
    """After it."""
    spans: Spans

    def at(self, role: str, name: str) -> int:
        """Return when something happened, or ended."""
        return self.spans[role, name][1]

    def took(self, role: str, *names: str) -> int:
        """Return how long a process was at it; not at all where it had no need."""
        return sum(end - begin for begin, end in (self.spans.get((role, n), (0, 0)) for n in names))

    def steps(self, interpreter: int) -> dict[str, float]:
        """Return the ms of each step on the path to the exec; ``interpreter`` is its start in ns.

        The names begin with the process; `rest` is what no function of the list did.
        """
        first, forked = self.at("init", FIRST), self.spans["daemon", FORK]
        mounted, executed = self.at("daemon", MOUNTED), self.at("child", EXEC)
        heard = self.at("child", "Joining.wait_for_image")
        daemon = {
            "daemon: imports": self.took("daemon", IMPORTS),
            "daemon: boot config": self.took("daemon", "read_boot_config"),
            "daemon: index": self.took("daemon", "open_index"),
            "daemon: cache, order": self.took("daemon", "Cache.__init__", "StartOrder.__init__"),
            "daemon: FUSE mount": self.took("daemon", "_mount_file"),
            "daemon: EROFS mount": self.took("daemon", "_mount_image"),
        }
        child = {
            "child: overlay": self.took("child", "mount_overlay"),
            "child: moving mounts": self.took("child", "move_mounts"),
            "child: volumes": self.took("child", "fill_new_volumes"),
            "child: working directory": self.took("child", "make_directory"),
            "child: entering the root": self.took("child", "enter"),
            "child: init follows": self.took("child", "Joining.wait_for_parent"),
            "child: becoming the workload": executed - self.at("child", BECOMES),
        }
        taken = {
            "engine": first - self.begun - interpreter,
            "interpreter": interpreter,
            "init: up to the daemon": forked[0] - first,
            "daemon: fork": forked[1] - forked[0],
            **daemon,
            "daemon: rest": mounted - forked[1] - sum(daemon.values()),
            "child: hears of the image": heard - mounted,
            **child,
            "child: rest": executed - heard - sum(child.values()),
        }
        return {name: ns / MS for name, ns in taken.items()}

    def totals(self) -> dict[str, float]:
        """Return the ms of the whole path, and of what is left of `docker run`."""
        first, executed = self.at("init", FIRST), self.at("child", EXEC)
        return {
            "init to exec": (executed - first) / MS,
            "exec to the end of docker run": (self.ended - executed) / MS,
        }

    def beside(self) -> dict[str, float]:
        """Return the ms of what the init does while the daemon is on its way."""
        taken = {
            "init: imports": self.took("init", IMPORTS),
            "init: boot config, mountinfo": self.took("init", "read_boot_config", "read_mounts"),
            "init: writable layer's directory": self.took("init", "Writable.__init__"),
            "init: fork of the child": self.took("child", FORK),
            "init: waiting for the daemon": self.took("init", "Spawned.wait_until_mounted"),
        }
        return {name: ns / MS for name, ns in taken.items()}


def compile_start(parts: Sequence[bytes]) -> bytes:
    """Return the .pyc of source parts put behind one another."""
    # The module is not at hand there before boot/start.py has run.
    source = b"\n".join(parts).replace(b"from __future__ import annotations\n", b"")
    flags = __future__.annotations.compiler_flag
    code = compile(source, "<bootfs>/boot/start.py", "exec", flags, dont_inherit=True)
    return importlib.util.MAGIC_NUMBER + bytes(12) + marshal.dumps(code)


class Interpreter:
    """The runtime layer's interpreter on this machine."""

    def __init__(self, home: Path) -> None:
        """Unpack it below ``home``."""
        bundle = Bundle(home)
        start = bundle.runtime / "first.pyc"
        start.write_bytes(compile_start([TELL_FIRST]))
        self._command = [*map(str, bundle.command), str(start)]

    def start(self) -> int:
        """Start it once; return the ns up to its first line."""
        begun = time.monotonic_ns()
        done = subprocess.run(self._command, env={}, capture_output=True, check=True)
        return int(done.stdout) - begun


class Bench:
    """A source image, its boot image, and that one with stamps; the latter two are removed."""

    def __init__(self, name: str, home: Path, server: Nginx, store: Path) -> None:
        self.plain = build_image(IMAGES[name])
        unique = uuid.uuid4().hex[:8]
        self.boot = f"{NAMES}/{name}-boot-{unique}:latest"
        self.profiled = f"{NAMES}/{name}-profiled-{unique}:latest"
        self._volume = f"{NAMES}-{unique}"
        self._options = [*BOOT_OPTIONS, "-e", f"BLOB_STORE={server.url}", "-e", "BOOTFS_MODE=erofs"]
        self._options += ["-v", f"{self._volume}:/.bootfs/cache"]
        convert(self.plain, self.boot, store)
        sources = [TOP / "bench/bootprofile.py", TOP / "boot/start.py"]
        context = home / name
        context.mkdir()
        (context / "start.pyc").write_bytes(compile_start([path.read_bytes() for path in sources]))
        dockerfile = f"FROM {self.boot}\nCOPY start.pyc /.bootfs/runtime/start.pyc\n"
        (context / "Dockerfile").write_text(dockerfile)
        docker("build", "--force-rm", "-t", self.profiled, str(context))
        docker("volume", "create", self._volume)

    def close(self) -> None:
        """Remove what was made."""
        docker("rmi", "-f", self.profiled, self.boot, check=False)
        docker("volume", "rm", "-f", self._volume, check=False)

    def run(self, image: str) -> tuple[int, int, str]:
        """Run a container to its end; return before, after, and what it wrote to stderr."""
        options = [] if image == self.plain else self._options
        begun = time.monotonic_ns()
        done = docker("run", "--rm", "--network", "host", *options, image)
        return begun, time.monotonic_ns(), done.stderr

    def boot_once(self) -> Boot:
        """Boot with stamps."""
        begun, ended, text = self.run(self.profiled)
        return Boot(begun, ended, read_profile(text))

    def wall(self, image: str) -> float:
        """Run without stamps; return the ms of `docker run`."""
        begun, ended, _ = self.run(image)
        return (ended - begun) / MS


@contextmanager
def opened(name: str, home: Path) -> Iterator[Bench]:
    """Give the bench of an image, with a store behind a server; all goes at the end."""
    store = home / f"{name}.store"
    store.mkdir()
    with Nginx(store) as server:
        bench = Bench(name, home, server, store)
        try:
            yield bench
        finally:
            bench.close()


def measure(bench: Bench, interpreter: Interpreter, times: int) -> dict[str, object]:
    """Take everything ``times`` times, in turns."""
    # The first fills the cache, the second what is read ahead from it.
    for image in (bench.plain, bench.boot, bench.profiled):
        bench.run(image)
    interpreter.start()
    starts: list[int] = []
    boots: list[Boot] = []
    walls: dict[str, list[float]] = {"docker run": [], "bootfs": [], "bootfs, with stamps": []}
    for _ in range(times):
        starts.append(interpreter.start())
        walls["docker run"].append(bench.wall(bench.plain))
        walls["bootfs"].append(bench.wall(bench.boot))
        boots.append(bench.boot_once())
        walls["bootfs, with stamps"].append((boots[-1].ended - boots[-1].begun) / MS)
    own = sorted(starts)[len(starts) // 2]

    def summarize_rows(rows: Sequence[dict[str, float]]) -> list[dict[str, object]]:
        # A list, since the order of the steps says something.
        return [{"step": name, **summarize([row[name] for row in rows])} for name in rows[0]]

    return {
        "interpreter_ms": summarize([ns / MS for ns in starts]),
        "path_ms": summarize_rows([boot.steps(own) for boot in boots]),
        "totals_ms": summarize_rows([boot.totals() for boot in boots]),
        "beside_ms": summarize_rows([boot.beside() for boot in boots]),
        "walls_ms": {name: summarize(taken) for name, taken in walls.items()},
    }


def main(arguments: list[str] | None = None) -> int:
    """Measure the steps of warm boots; write bench/results/boot.json, print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.boot", description=main.__doc__)
    parser.add_argument("--images", nargs="+", default=["deb", "py"], choices=sorted(IMAGES))
    parser.add_argument("--times", type=int, default=20, help="boots of each kind")
    options = parser.parse_args(arguments)
    figures: dict[str, dict[str, object]] = {}
    with ExitStack() as stack:
        place = tempfile.TemporaryDirectory(prefix="bootfs-bench-", dir="/var/tmp")
        home = Path(stack.enter_context(place))
        interpreter = Interpreter(home / "runtime")
        for name in options.images:
            with opened(name, home) as bench:
                figures[name] = measure(bench, interpreter, options.times)
    document = {"images": figures}
    write_results("boot", document)
    print(boot_table(document))
    return 0


if __name__ == "__main__":
    sys.exit(main())
