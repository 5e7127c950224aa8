"""What commands of this machine tell web servers and registries, and whom they trust."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import certifi

from store.errors import AccessDenied
from store.read.httpaccess import HttpAccess

CERTIFICATES = Path("/etc/docker/certs.d")
"""Where docker has authorities for single registries: HOST[:PORT]/*.crt."""
AUTH_VARIABLE = "BOOTFS_AUTH"
"""Names the directory of files with credentials, as containers have one at /.bootfs/auth."""


def auth_directory() -> str:
    """Return the directory of this user's files with credentials; it need not exist."""
    config = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return os.environ.get(AUTH_VARIABLE) or f"{config}/bootfs/auth"


def environment_proxy(origin: str) -> str:
    """Return the URL of the proxy to an origin that HTTP_PROXY, HTTPS_PROXY and NO_PROXY give.

    ALL_PROXY counts where the scheme has none; empty for none.
    """
    parts = urlsplit(origin)
    proxies = getproxies()
    if proxy_bypass(parts.netloc):
        return ""
    return proxies.get(parts.scheme) or proxies.get("all", "")


def machine_authorities() -> str:
    """Return a file of authorities where this machine has none of its own; else nothing."""
    paths = ssl.get_default_verify_paths()
    # A system without the package of authorities has their directory all the same.
    if paths.cafile or (paths.capath and any(Path(paths.capath).iterdir())):
        return ""
    return certifi.where()  # those that come with the HTTP library


class RegistryAccess(HttpAccess):
    """Proxies and authorities for a registry: as for web servers, and docker's for its host."""

    def __init__(self, host: str, auth: str, proxy_of: Callable[[str], str]) -> None:
        """Read the files of directory ``auth``, and docker's of ``host`` with its port.

        Raises:
            AccessDenied: one of them cannot be read, or is malformed.

        """
        self._certificates = CERTIFICATES / host
        super().__init__(auth, proxy_of)
        self.authorities_path = f"{self.authorities_path} or {self._certificates}/*.crt"

    def _read(self) -> None:
        super()._read()
        for path in sorted(self._certificates.glob("*.crt")):
            try:
                self.authorities += f"\n{path.read_text()}"
            except (OSError, UnicodeDecodeError) as error:
                raise AccessDenied(
                    f"{path}: an authority that cannot be read: {error}; "
                    "put a PEM certificate there, or remove it"
                ) from error
