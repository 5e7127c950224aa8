"""Start real servers on a free port, in front of a directory, and stop them again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

START_S = 15.0
"""How long a server may take until it answers."""
_LAST = "/asked-for-last-"
"""How the path begins of what a test itself asks for, to see the log written up to there."""

_NGINX = """\
daemon off;
worker_processes 1;
{user}
pid {run}/nginx.pid;
error_log {run}/error.log warn;
events {{ worker_connections 1024; }}
http {{
    types {{ }}
    default_type application/octet-stream;
    log_format requests '$request_method\\t$request_uri\\t$status\\t$body_bytes_sent\\t$http_range';
    access_log {run}/access.log requests;
    sendfile on;
    tcp_nopush off;
    keepalive_timeout 75s;
    keepalive_requests 100000;
    client_body_temp_path {run}/body;
    proxy_temp_path {run}/proxy;
    fastcgi_temp_path {run}/fastcgi;
    uwsgi_temp_path {run}/uwsgi;
    scgi_temp_path {run}/scgi;
    {http}
    server {{
{listen}
        root {root};
        {extra}
    }}
}}
"""

_REGISTRY = """\
version: 0.1
log: {{ level: error }}
storage:
  filesystem: {{ rootdirectory: {root} }}
  delete: {{ enabled: true }}
{storage}
http: {{ addr: "{address}:{port}" }}
{extra}
"""


@dataclass(frozen=True)
class Request:
    """One line of a server's access log."""

    method: str
    path: str
    status: int
    size: int
    """Bytes of the body that were sent."""
    range: str
    """The Range header, or `-`."""


def free_port(address: str = "127.0.0.1") -> int:
    """Find a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """A child process that serves HTTP; a context manager, or call `close`."""

    def __init__(self, name: str, command: Sequence[str], port: int, run: Path) -> None:
        """Start it and wait until its port answers. `run` is its own directory, removed at close.

        Raises:
            RuntimeError: it ended, or did not answer within START_S; the message holds its log.
        """
        self.port = port
        self.host_port = f"127.0.0.1:{port}"
        self.url = f"http://{self.host_port}/"
        self._run = run
        self._output = run / "output.log"
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        try:
            self._wait_until_up(name)
        except BaseException:
            self.close()
            raise

    def _wait_until_up(self, name: str) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.02)
        raise RuntimeError(f"{name} does not answer on {self.host_port}: {self.output()}")

    def output(self) -> str:
        """Give what the process itself has written."""
        return self._output.read_text(errors="replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def stop(self) -> None:
        """End the process; connections break off."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Accept connections and answer nothing, for as long as the block runs."""
        first = self._process.pid
        workers = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        processes = [first, *map(int, workers)]
        for process in processes:
            # Who served the last to ask may just have ended.
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGCONT)

    def close(self) -> None:
        """End the process and remove its directory."""
        self.stop()
        shutil.rmtree(self._run, ignore_errors=True)


class Nginx(Server):
    """nginx serving a directory with ranges, on loopback and any further addresses given."""

    def __init__(
        self,
        root: Path,
        *,
        addresses: Sequence[str] = (),
        port: int = 0,
        extra: str = "",
        http: str = "",
    ) -> None:
        """Serve `root`; `extra` is put into the server's block (a `limit_rate 1m;`, a location).

        `http` is put into the block around it (a `limit_req_zone`).
        """
        run = Path(tempfile.mkdtemp(prefix="bootfs-nginx-"))
        port = port or free_port()
        listen = "\n".join(
            f"        listen {address}:{port};" for address in ("127.0.0.1", *addresses)
        )
        # As root, workers would drop to a user that cannot read a private directory.
        user = "user root;" if os.geteuid() == 0 else ""
        config = run / "nginx.conf"
        config.write_text(
            _NGINX.format(run=run, root=root, listen=listen, user=user, extra=extra, http=http)
        )
        self._log = run / "access.log"
        self._seen = 0
        command = ["nginx", "-p", str(run), "-e", str(run / "error.log"), "-c", str(config)]
        super().__init__("nginx", command, port, run)

    def requests(self) -> list[Request]:
        """List the requests answered since the start or the last `forget`."""
        self.settle()
        with self._log.open("rb") as log:
            log.seek(self._seen)
            lines = log.read().decode("utf-8", "backslashreplace").splitlines()
        rows = (line.split("\t") for line in lines)
        return [
            Request(method, path, int(status), int(size), wanted)
            for method, path, status, size, wanted in rows
            if not path.startswith(_LAST)
        ]

    def settle(self) -> None:
        """Wait until all that has been answered is in the log.

        The one worker writes a line after it has sent the answer, and line after line.
        """
        if self._process.poll() is not None:
            return
        last = f"{_LAST}{uuid.uuid4().hex}"
        try:
            urllib.request.urlopen(f"{self.url}{last[1:]}", timeout=START_S).close()
        except urllib.error.HTTPError as refused:
            refused.close()
        deadline = time.monotonic() + START_S
        while last.encode() not in self._log.read_bytes()[self._seen :]:
            if time.monotonic() > deadline:
                raise RuntimeError(f"nginx does not log what it answers: {self.output()}")
            time.sleep(0.005)

    def sent(self) -> int:
        """Sum the body bytes sent since the start or the last `forget`."""
        return sum(request.size for request in self.requests())

    def forget(self) -> None:
        """Count from here on."""
        self.settle()
        self._seen = self._log.stat().st_size


class Registry(Server):
    """A plain-HTTP registry on loopback, which Docker accepts without TLS."""

    def __init__(
        self,
        root: Path | None = None,
        *,
        storage: str = "",
        extra: str = "",
        address: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        """Keep blobs under `root`, or in a directory of its own that goes with it.

        `storage` is put into that section of its configuration, `extra` at its end (`auth:`).
        `address` is empty for all that this machine has.
        """
        run = Path(tempfile.mkdtemp(prefix="bootfs-registry-"))
        port = port or free_port()
        self.config = run / "config.yml"
        self.blobs = root or run / "blobs"
        self.config.write_text(
            _REGISTRY.format(
                root=self.blobs, address=address, port=port, storage=storage, extra=extra
            )
        )
        super().__init__(
            "docker-registry", ["docker-registry", "serve", str(self.config)], port, run
        )
        self._wait_until_ready()

    def answered(self) -> int:
        """Count the requests answered since the start."""
        return sum(" HTTP/1." in line for line in self.output().splitlines())

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_S
        while True:
            try:
                with urllib.request.urlopen(f"{self.url}v2/", timeout=5):
                    return
            except urllib.error.HTTPError as refused:
                refused.close()
                return  # it wants to know who asks
            except (OSError, urllib.error.URLError):
                if time.monotonic() > deadline:
                    self.close()
                    raise
                time.sleep(0.02)
