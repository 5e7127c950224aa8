"""TLS for store connections; imported only when a store's URL says https."""

from __future__ import annotations

import _socket
import socket
import ssl

from store.errors import AccessDenied, NotReached, RemoteProtocolError, Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from store.interfaces import Access
    from store.read.dialling import Stream

NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")
"""How OpenSSL puts it that the other side answers with something else than TLS."""

_contexts: dict[tuple[str, str], ssl.SSLContext] = {}
"""By a file of certificates, and the text of further ones."""


def wrap(raw: _socket.socket, host: str, authorities: str, access: Access | None) -> Stream:
    """Return a TLS stream over a connected socket, with certificate and host name checked.

    Owns ``raw`` from here on, and keeps its time limit.  ``authorities`` is a
    file of trusted certificates; empty: the library's own default.  Those of
    ``access`` are trusted too.

    Raises:
        RemoteProtocolError: the certificate is not one to trust for ``host``.
        AccessDenied: those of ``access`` are no certificates.
        NotReached: the server speaks no TLS.
        Unreachable: the handshake failed; retried like a connection that failed.
        OSError: as socket calls do, and when ``authorities`` cannot be read.

    """
    limit_s = raw.gettimeout()
    plain = socket.socket(raw.family, raw.type, raw.proto, raw.detach())
    try:
        plain.settimeout(limit_s)
        context = _context(authorities, access)
        return context.wrap_socket(plain, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        raise RemoteProtocolError(
            f"TLS with {host}: the server's certificate is refused: {error.verify_message}"
        ) from None
    except ssl.SSLError as error:
        if error.reason in NO_TLS:
            raise NotReached(
                f"TLS with {host} failed: the server does not speak it; if that is right, "
                "write http:// in place of https://, docker+http:// for a registry"
            ) from None
        raise Unreachable(f"TLS with {host} failed: {error.reason or error}") from None
    finally:
        # wrap_socket took the descriptor over, or nobody has it.
        plain.close()


def _context(authorities: str, access: Access | None) -> ssl.SSLContext:
    """Return what checks certificates, made once."""
    further = access.authorities if access is not None else ""
    key = (authorities, further)
    if key not in _contexts:
        context = ssl.create_default_context(cafile=authorities or None)
        if access is not None and further:
            try:
                context.load_verify_locations(cadata=further)
            except (ssl.SSLError, ValueError):
                raise AccessDenied(
                    f"{access.authorities_path}: no certificates in PEM form"
                ) from None
        _contexts[key] = context
    return _contexts[key]
