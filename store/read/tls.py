"""TLS for store connections; imported only when a store's URL says https."""

from __future__ import annotations

import _socket
import socket
import ssl

from store.errors import RemoteProtocolError, Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from store.read.remote import Stream

_contexts: dict[str, ssl.SSLContext] = {}


def wrap(raw: _socket.socket, host: str, authorities: str) -> Stream:
    """Return a TLS stream over a connected socket, with certificate and host name checked.

    Owns ``raw`` from here on, and keeps its time limit.  ``authorities`` is a
    file of trusted certificates; empty: the library's own default.

    Raises:
        RemoteProtocolError: the certificate is not one to trust for ``host``.
        Unreachable: the handshake failed; retried like a connection that failed.
        OSError: as socket calls do, and when ``authorities`` cannot be read.

    """
    limit_s = raw.gettimeout()
    plain = socket.socket(raw.family, raw.type, raw.proto, raw.detach())
    try:
        plain.settimeout(limit_s)
        if authorities not in _contexts:
            _contexts[authorities] = ssl.create_default_context(cafile=authorities or None)
        return _contexts[authorities].wrap_socket(plain, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        raise RemoteProtocolError(
            f"TLS with {host}: the server's certificate is refused: {error.verify_message}"
        ) from None
    except ssl.SSLError as error:
        raise Unreachable(f"TLS with {host} failed: {error.reason or error}") from None
    finally:
        # wrap_socket took the descriptor over, or nobody has it.
        plain.close()
