"""How a registry is connected to: trust, proxies and time limits."""

from __future__ import annotations

import ssl

import httpx

from store.errors import AccessDenied, UsageError
from store.write.hostaccess import CERTIFICATES, machine_authorities
from store.write.registry.endpoint import Endpoint

_TIMEOUT = httpx.Timeout(60.0, connect=15.0)
"""Seconds.  Registries are silent while they move a large blob to its place."""


def open_client(endpoint: Endpoint) -> httpx.Client:
    """Return an HTTP client for an endpoint; the caller closes it.

    Raises:
        UsageError: a proxy is named that cannot be used.
        AccessDenied: an authority's certificate cannot be read.

    """
    verify = True if endpoint.is_plain else _context(endpoint.host)
    try:
        return httpx.Client(
            verify=verify,
            timeout=_TIMEOUT,
            # Proxies are for other machines.
            trust_env=not endpoint.is_loopback,
            headers={"User-Agent": "bootfs", "Accept-Encoding": "identity"},
        )
    except (ValueError, ImportError, httpx.InvalidURL):
        # Without the cause, which may hold the proxy's password.
        raise UsageError(
            f"{endpoint}: HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names a proxy that cannot be used; "
            "give http://HOST:PORT"
        ) from None


def _context(host: str) -> ssl.SSLContext:
    """Return what to trust: the machine's authorities, and those that docker has for the host."""
    context = ssl.create_default_context(cafile=machine_authorities() or None)
    for path in sorted((CERTIFICATES / host).glob("*.crt")):
        try:
            context.load_verify_locations(path)
        except OSError as error:  # ssl.SSLError is one
            raise AccessDenied(
                f"{path}: an authority for {host} that cannot be read: {error.strerror or error}; "
                "put a PEM certificate there, or remove it"
            ) from error
    return context
