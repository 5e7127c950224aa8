"""Serve a store over HTTP with nginx, in the background, for this run and the user's own ones."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"
START_S = 10.0
PORTS = 1000
"""So many below those of connections are tried."""
UNPRIVILEGED = 1024

_CONFIG = """\
worker_processes 1;
{user}
pid nginx.pid;
error_log error.log warn;
events {{ worker_connections 1024; }}
http {{
    default_type application/octet-stream;
    log_format sent '$status $body_bytes_sent';
    access_log access.log sent;
    sendfile on;
    tcp_nopush off;
    keepalive_requests 100000;
    client_body_temp_path tmp;
    proxy_temp_path tmp;
    fastcgi_temp_path tmp;
    uwsgi_temp_path tmp;
    scgi_temp_path tmp;
    server {{
{listen}
        root "{root}";
    }}
}}
"""


@dataclass(frozen=True)
class Sent:
    """What the web server has sent since some moment."""

    requests: int
    size: int


class WebServer:
    """nginx in front of one directory, on loopback and on the address that containers reach."""

    def __init__(self, home: Path) -> None:
        """Keep configuration, logs and process id under `home`; starts nothing."""
        self._home = home
        self._log = home / "access.log"
        self._seen = 0

    def start(self, root: Path, gateway: str | None) -> int:
        """Serve `root`, and give the port: the one of an earlier run, if that is still free.

        Raises:
            RuntimeError: nginx does not come up; the message holds its own words.
        """
        self.stop()
        self._home.mkdir(parents=True, exist_ok=True)
        addresses = [LOOPBACK, gateway] if gateway else [LOOPBACK]
        port = self._choose_port(addresses)
        config = self._home / "nginx.conf"
        listen = "\n".join(f"        listen {address}:{port};" for address in addresses)
        # As root, workers would drop to a user that cannot read a private checkout.
        user = "user root;" if os.geteuid() == 0 else ""
        config.write_text(_CONFIG.format(user=user, listen=listen, root=root))
        command = ["nginx", "-p", f"{self._home}/", "-e", "error.log", "-c", str(config)]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"nginx does not start: {done.stderr.strip()}")
        self._wait_until_up(port)
        return port

    def stop(self) -> bool:
        """End the web server if it runs; say whether it did."""
        pid = self._running()
        if pid is None:
            return False
        with contextlib.suppress(ProcessLookupError):
            process = os.pidfd_open(pid)
            try:
                signal.pidfd_send_signal(process, signal.SIGTERM)
                # Not until its command line is empty: its ports are taken a moment longer.
                select.select([process], [], [], START_S)
            finally:
                os.close(process)
        return True

    def forget(self) -> None:
        """Count what is sent from here on."""
        self._seen = self._log.stat().st_size

    def sent(self) -> Sent:
        """Count requests and body bytes since the last `forget`."""
        with self._log.open("rb") as log:
            log.seek(self._seen)
            sizes = [int(line.split()[1]) for line in log.read().splitlines()]
        return Sent(len(sizes), sum(sizes))

    def _running(self) -> int | None:
        try:
            pid = int((self._home / "nginx.pid").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if b"nginx" in command else None

    def _choose_port(self, addresses: list[str]) -> int:
        remembered = self._home / "port"
        ports = [*_ports(), 0]
        with contextlib.suppress(OSError, ValueError):
            ports.insert(0, int(remembered.read_text()))
        for port in ports:
            with contextlib.ExitStack() as probes, contextlib.suppress(OSError):
                for address in addresses:
                    probe = probes.enter_context(socket.socket())
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind((address, port))
                    port = probe.getsockname()[1]  # noqa: PLW2901 - the others take the same
                remembered.write_text(f"{port}\n")
                return int(port)
        raise RuntimeError(f"no port is free on {' and '.join(addresses)}")

    def _wait_until_up(self, port: int) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port)):
                return
            time.sleep(0.02)
        raise RuntimeError(f"nginx does not answer on port {port}; see {self._home}/error.log")


def _ports() -> range:
    """Give ports that the kernel lends to no connection, which could have one when we want it."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    return range(max(first - PORTS, UNPRIVILEGED), first)
