"""A real forward proxy: tinyproxy, which asks for a user and a password."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.support.servers import Server, free_port

USER, PASSWORD = "reader", "pass-word.1"

_CONFIG = """\
Port {port}
Listen 127.0.0.1
Timeout 30
MaxClients 50
DisableViaHeader Yes
LogLevel Connect
LogFile "{run}/proxy.log"
ConnectPort {tls_port}
BasicAuth {user} {password}
"""


class ProxyServer(Server):
    """tinyproxy on loopback; tunnels go to `tls_port` alone."""

    def __init__(self, tls_port: int = 443) -> None:
        """Start it."""
        run = Path(tempfile.mkdtemp(prefix="bootfs-proxy-"))
        port = free_port()
        self._log = run / "proxy.log"
        config = run / "tinyproxy.conf"
        config.write_text(
            _CONFIG.format(port=port, run=run, tls_port=tls_port, user=USER, password=PASSWORD)
        )
        super().__init__("tinyproxy", ["tinyproxy", "-d", "-c", str(config)], port, run)
        self.credentials_url = f"http://{USER}:{PASSWORD.replace('.', '%2E')}@{self.host_port}"

    def log(self) -> str:
        """Give what it has logged: a line with `Request` for each."""
        return self._log.read_text() if self._log.exists() else ""
