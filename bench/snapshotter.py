"""A containerd of the benchmark's own, with the eStargz snapshotter beside it.

Debian ships the snapshotter as a library and its client `ctr-remote`, so the daemon is built here
from bench/ways/estargz.go (`scripts/setup bench` installs what that takes).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from bench.ready import Run, run_checked, run_until_ready

GOCODE = Path("/usr/share/gocode")
LIBRARY = GOCODE / "src/github.com/containerd/stargz-snapshotter"
SOURCE = Path(__file__).parent / "ways" / "estargz.go"
NEEDED = ("go", "containerd", "runc", "ctr-remote")
START_S = 30.0

_CONTAINERD = """\
version = 2
root = "{home}/root"
state = "{home}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{home}/containerd.sock"
[proxy_plugins.stargz]
  type = "snapshot"
  address = "{home}/stargz.sock"
"""


def missing() -> list[str]:
    """Return what this machine lacks of what the snapshotter needs."""
    lacking = [name for name in NEEDED if not shutil.which(name)]
    return lacking + ([] if LIBRARY.is_dir() else [str(LIBRARY)])


def build_snapshotter(program: Path, cache: Path) -> None:
    """Build the daemon as `program`; `cache` is a directory for the compiler.

    Raises:
        RuntimeError: the compiler refused; the message is its own.
    """
    # Only Kubernetes' interface needs this file, which needs a package that Debian lacks.
    left_out = {"Replace": {str(LIBRARY / "service/resolver/cri.go"): ""}}
    overlay = program.with_suffix(".json")
    overlay.write_text(json.dumps(left_out))
    given = {"GO111MODULE": "off", "GOPATH": str(GOCODE), "GOCACHE": str(cache), "GOFLAGS": ""}
    command = ["go", "build", "-overlay", str(overlay), "-o", str(program), str(SOURCE)]
    run_checked(command, env={**os.environ, **given})


class Snapshotter:
    """containerd and the snapshotter, both empty at the start; a context manager. Needs root."""

    def __init__(self, program: Path, home: Path, registry: str) -> None:
        """Start both below `home`, which is made; `registry` is HOST:PORT and speaks no TLS.

        Raises:
            RuntimeError: one does not come up; the message holds the end of its log.
        """
        self._home = home
        home.mkdir()
        self._processes: list[subprocess.Popen[bytes]] = []
        config = home / "containerd.toml"
        config.write_text(_CONTAINERD.format(home=home))
        socket = home / "stargz.sock"
        serving = [f"-socket={socket}", f"-root={home / 'stargz'}", f"-registry={registry}"]
        try:
            self._begin("snapshotter", [str(program), *serving], socket.exists)
            self._begin("containerd", ["containerd", "-c", str(config)], self._answers)
        except BaseException:
            self.close()
            raise

    def _begin(self, name: str, command: Sequence[str], is_up: Callable[[], bool]) -> None:
        log = self._home / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        self._processes.append(process)
        deadline = time.monotonic() + START_S
        while not is_up():
            if process.poll() is not None or time.monotonic() > deadline:
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-10:])
                raise RuntimeError(f"{name} does not come up:\n{tail}")
            time.sleep(0.02)

    def _command(self, *arguments: str) -> list[str]:
        return ["ctr-remote", "--address", f"{self._home}/containerd.sock", *arguments]

    def _answers(self) -> bool:
        asked = subprocess.run(self._command("version"), capture_output=True, check=False)
        return asked.returncode == 0

    def __enter__(self) -> Snapshotter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End both, and remove all that they held."""
        # containerd first: it asks the snapshotter to the last.
        for process in reversed(self._processes):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            if process.poll() is None:
                process.kill()
                process.wait()
        # Layers are FUSE mounts, which outlive their daemon.
        mounts = Path("/proc/self/mounts").read_text()
        for place in reversed(re.findall(rf"^\S+ ({re.escape(str(self._home))}\S*)", mounts, re.M)):
            run_checked(["umount", "-l", place])
        shutil.rmtree(self._home)

    def images(self, *arguments: str) -> str:
        """Run `ctr-remote images …`.

        Raises:
            RuntimeError: it failed; the message holds what it said.
        """
        return run_checked(self._command("images", *arguments))

    def run_until_ready(self, reference: str, on_ready: Callable[[], object]) -> Run:
        """Run the command of an image that has been pulled lazily until it prints READY.

        Raises:
            RuntimeError: it ended without, or failed.
        """
        run = ("run", "--rm", "--net-host", "--snapshotter=stargz")
        name = f"bench-{uuid.uuid4().hex[:8]}"
        return run_until_ready(self._command(*run, reference, name), reference, on_ready)
