"""Sources as commands of this machine read them: with its user's credentials and proxies."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from store.format.sshurl import is_ssh_url
from store.interfaces import Source
from store.read.source import open_source
from store.write.backends import is_in_registry, open_backend

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


def open_host_source(
    url: str, read_limit_s: float, log: Callable[[str], None] = lambda _: None
) -> Source:
    """Return the source that ``url`` names, as `open_source` does.

    A store in S3 alone is read with the credentials that AWS's programs find, one in a
    registry with those of docker's, one over SSH as ssh finds them; all others, and
    several mirrors, with those of `auth_directory`, as in a container.

    Raises:
        UsageError, AccessDenied, Unreachable: as `open_source`.

    """
    if "|" not in url:
        if is_in_registry(url) or url.partition("://")[0].lower() == "s3":
            return open_backend(url)
        if is_ssh_url(url):
            return open_source(url, read_limit_s, log=log)
    return open_source(url, read_limit_s, "", log, auth_directory(), environment_proxy)
