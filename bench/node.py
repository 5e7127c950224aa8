"""A Docker engine of the benchmark's own: it holds what is measured and nothing else.

The engine of the machine holds base layers that a pull would find there; removing them to have a
cold start would take them from their owner. A second dockerd, on a data root of its own, is cold
whenever its images are removed. It gets a bridge of its own, too: without one it would use that of
the machine's engine, and with `--bridge=none` dockerd deletes docker0, whoever uses it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType

from bench.ready import Run, run_until_ready

START_S = 60.0
BRIDGE = "bootfs-node"
# From the range set aside for benchmarks (RFC 2544). Containers use the host's network, not this.
BRIDGE_ADDRESS = "198.18.231.1/24"


class Node:
    """A dockerd with its own data root; a context manager. Needs root."""

    def __init__(self) -> None:
        """Start the engine and wait until it answers.

        Raises:
            RuntimeError: it does not come up; the message holds the end of its log. Or another
                node is running, or has been killed: `ip link del bootfs-node` then.
        """
        self._home = Path(tempfile.mkdtemp(prefix="bootfs-node-", dir="/var/tmp"))
        run_ip("link", "add", BRIDGE, "type", "bridge")
        run_ip("addr", "add", BRIDGE_ADDRESS, "dev", BRIDGE)
        self.host = f"unix://{self._home}/docker.sock"
        self._log = self._home / "dockerd.log"
        command = [
            "dockerd",
            f"--host={self.host}",
            f"--data-root={self._home}/data",
            f"--exec-root={self._home}/exec",
            f"--pidfile={self._home}/docker.pid",
            f"--bridge={BRIDGE}",
            "--iptables=false",
            "--ip6tables=false",
            "--ip-forward=false",
            "--storage-driver=overlay2",
        ]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + START_S
        while self.docker("version", check=False).returncode != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-10:])
                self.close()
                raise RuntimeError(f"the benchmark's dockerd does not come up:\n{tail}")
            time.sleep(0.1)
        # On ext4 a pull into a node that has just lost an image would take longer than into a new
        # one: freed inodes are passed over for minutes (boot/apart.py).
        for part in ("overlay2", "volumes"):
            subprocess.run(["chattr", "+T", self._home / "data" / part], check=False)

    def __enter__(self) -> Node:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the engine and remove all that it held."""
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(30)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        run_ip("link", "del", BRIDGE)
        # A data root that dockerd could not unmount must not be walked into.
        mounts = Path("/proc/self/mounts").read_text()
        for place in reversed(re.findall(rf"^\S+ ({re.escape(str(self._home))}\S*)", mounts, re.M)):
            subprocess.run(["umount", "-l", place], check=False)
        shutil.rmtree(self._home, ignore_errors=True)

    def docker(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a docker command on this engine.

        Raises:
            RuntimeError: it failed although `check`; the message holds what it printed.
        """
        command = ["docker", "--host", self.host, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if check and done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
        return done

    def run_until_ready(
        self,
        image: str,
        *,
        options: Sequence[str] = (),
        command: Sequence[str] = (),
        on_ready: Callable[[], object] = lambda: None,
    ) -> Run:
        """Run a container until it prints READY, and let it end.

        Raises:
            RuntimeError: it ended without having printed READY, or failed.
        """
        line = ["docker", "--host", self.host, "run", "--rm", "--network", "host"]
        return run_until_ready([*line, *options, image, *command], image, on_ready)

    def forget_images(self) -> None:
        """Remove every image, so that the next pull finds no layer here."""
        for image in set(self.docker("images", "-q").stdout.split()):
            self.docker("rmi", "-f", image)


def run_ip(*arguments: str) -> None:
    """Run `ip` and raise what it says if it fails.

    Raises:
        RuntimeError: it failed.
    """
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def drop_caches(keep: Iterable[Path] = (), client: str = "docker") -> None:
    """Empty the page cache, then read what to `keep`, files and directories of servers.

    And the `client`: the command that starts are begun with, which knows `--version`.

    Raises:
        PermissionError: not root.
    """
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")
    for place in keep:
        for path in place.rglob("*") if place.is_dir() else (place,):
            if path.is_file():
                with path.open("rb", buffering=0) as file:
                    while file.read(1 << 20):
                        pass
    subprocess.run([client, "--version"], stdout=subprocess.DEVNULL, check=True)
