"""What goes wrong with connections, as errors of ours."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import httpx

from store.errors import BootfsError, NotReached, RemoteProtocolError, TimedOut, Unreachable
from store.read.tls import NO_TLS
from store.write.hostaccess import CERTIFICATES


def shown(url: str) -> str:
    """Return a URL without its query and user, which may hold secrets."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Translate what goes wrong with a connection in the block; ``where`` names what was asked.

    Raises:
        Unreachable, TimedOut: asking again may help.
        RemoteProtocolError: it does not.

    """
    try:
        yield
    except httpx.TimeoutException as error:
        raise TimedOut(f"{where}: no answer in time ({type(error).__name__})") from None
    except httpx.TransportError as error:
        raise _broken(error, where) from None
    except httpx.InvalidURL as error:
        raise RemoteProtocolError(f"{where}: led to what is no URL: {error}") from None


def _broken(error: httpx.TransportError, where: str) -> BootfsError:
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return RemoteProtocolError(
                f"{where}: the server's certificate is refused: {cause.verify_message}; put its "
                f"authority into {CERTIFICATES}/HOST[:PORT]/ca.crt or the machine's own"
            )
        if isinstance(cause, ssl.SSLError) and cause.reason in NO_TLS:
            return NotReached(
                f"{where}: the server does not speak TLS; if that is right, write docker+http://"
            )
    if isinstance(error, httpx.UnsupportedProtocol | httpx.ProxyError):
        return RemoteProtocolError(f"{where}: {error}; check the address and the proxy")
    kind = NotReached if isinstance(error, httpx.ConnectError) else Unreachable
    return kind(f"{where}: {error or type(error).__name__}; check the address and network")


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
