"""An authority made here, and the certificates that it issues."""

from __future__ import annotations

import ssl
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


class Authority:
    """Its key and its certificate, ``certificate``, are in a directory of the test."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory
        self.certificate = directory / "ca.crt"
        subject = ("-subj", "/CN=bootfs test authority", "-days", "30")
        self._openssl("req", "-x509", *KEY, *subject, "-keyout", "ca.key", "-out", "ca.crt")

    def issue(self, names: str) -> ssl.SSLContext:
        """Issue a certificate for names (``DNS:…``, ``IP:…``); return a server's context."""
        self._openssl(
            *("req", *KEY, "-subj", "/CN=server", "-keyout", "server.key", "-out", "server.csr")
        )
        (self._directory / "names").write_text(f"subjectAltName={names}\n")
        self._openssl(
            *("x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key"),
            *("-CAcreateserial", "-days", "30", "-extfile", "names", "-out", "server.crt"),
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._directory / "server.crt", self._directory / "server.key")
        return context

    def _openssl(self, *arguments: str) -> None:
        command = ["openssl", *arguments]
        subprocess.run(command, cwd=self._directory, check=True, capture_output=True)
