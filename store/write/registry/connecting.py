"""How a registry is connected to: trust, proxies and time limits."""

from __future__ import annotations

import functools
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
    verify = _context("" if endpoint.is_plain else endpoint.host)
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
    """Return what to trust: the machine's authorities, and those that docker has for the host.

    An empty host has none, and is for who may be sent on to some TLS server.
    """
    further = sorted((CERTIFICATES / host).glob("*.crt")) if host else []
    if not further:
        paths = ssl.get_default_verify_paths()
        return _shared_context(machine_authorities(), paths.cafile, paths.capath)
    context = ssl.create_default_context(cafile=machine_authorities() or None)
    for path in further:
        try:
            context.load_verify_locations(path)
        except OSError as error:  # ssl.SSLError is one
            raise AccessDenied(
                f"{path}: an authority for {host} that cannot be read: {error.strerror or error}; "
                "put a PEM certificate there, or remove it"
            ) from error
    return context


@functools.cache
def _shared_context(authorities: str, *_: str | None) -> ssl.SSLContext:
    """Return what checks by a file of ``authorities``, or where there is none by OpenSSL's own.

    Made once: a context of all public authorities takes some 50 ms, and a command may open many
    repositories.  The others say where OpenSSL's own are, which variables may change.
    """
    return ssl.create_default_context(cafile=authorities or None)
