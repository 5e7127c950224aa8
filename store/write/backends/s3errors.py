"""What the S3 library raises, as errors of bootfs."""

from __future__ import annotations

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    ReadTimeoutError,
    SSLError,
    TokenRetrievalError,
)
from botocore.exceptions import (
    ConnectionError as LibraryConnectionError,
)

from store.errors import (
    AccessDenied,
    BootfsError,
    NotFound,
    NotReached,
    PackNotFound,
    RemoteBusy,
    RemoteProtocolError,
    StorageFull,
    TimedOut,
    Unreachable,
)
from store.format.s3errors import BUSY, ELSEWHERE, FULL, REFUSED, SKEWED
from store.read.tls import NO_TLS

LIBRARY = (BotoCoreError, ClientError)
"""All that a call of the library raises."""

_CREDENTIALS = (
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    TokenRetrievalError,
)


def translated(error: BotoCoreError | ClientError, where: str) -> BootfsError:
    """Return the error of bootfs that ``error``, raised about ``where``, is."""
    if isinstance(error, ClientError):
        return _of_answer(error, where)
    if isinstance(error, _CREDENTIALS):
        return AccessDenied(
            f"{where}: {error}; credentials are looked for in the environment (AWS_…), in "
            "~/.aws and in the machine's metadata"
        )
    if isinstance(error, SSLError) and any(words in str(error) for words in NO_TLS):
        return NotReached(
            f"{where}: the server does not speak TLS; if that is right, write endpoint=http://…"
        )
    if isinstance(error, SSLError):
        return RemoteProtocolError(
            f"{where}: {error}; AWS_CA_BUNDLE names a file of further authorities"
        )
    if isinstance(error, ConnectTimeoutError | ReadTimeoutError):
        return TimedOut(f"{where}: {error}")
    if isinstance(error, EndpointConnectionError):
        return NotReached(f"{where}: {error}; is the endpoint right, and does the server run?")
    if isinstance(error, LibraryConnectionError | HTTPClientError):
        return Unreachable(f"{where}: {error}; is the endpoint right, and does the server run?")
    return BootfsError(f"{where}: {error}")


def is_missing(error: ClientError) -> bool:
    """Whether the server says that an object is not there; the bucket may be missing too."""
    code, status = _code(error), _status(error)
    return status == 404 and code in ("404", "NoSuchKey", "Not Found", "NotFound")


def _of_answer(error: ClientError, where: str) -> BootfsError:
    code, status = _code(error), _status(error)
    message = error.response.get("Error", {}).get("Message") or ""
    # The answer to a HEAD has no code.
    what = f"{where}: {status}" if code == str(status) else f"{where}: {status} {code}"
    if is_missing(error):
        return PackNotFound(f"{what}; the store does not hold it")
    if code == "NoSuchBucket":
        return NotFound(f"{what}; there is no such bucket: make it first, or mend the name")
    if code == "NoSuchUpload":
        return PackNotFound(
            f"{what}: removed while it was written: collect with a longer --grace; or given up by "
            "the server: is its disk full? Convert again"
        )
    if code in FULL or status == 507 or "no space left" in message.lower():
        return StorageFull(
            f"{what}; the store holds what it held before, make room and convert again"
        )
    if code in ELSEWHERE or status == 301:
        headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        region = headers.get("x-amz-bucket-region", "")
        return RemoteProtocolError(
            f"{what}; the bucket is elsewhere: give region={region} in the URL"
        )
    if code in SKEWED:
        return AccessDenied(f"{what}; this machine's clock and the server's differ: set them")
    if code in REFUSED or status in (401, 403):
        reason = REFUSED.get(code, "the server refuses access")
        return AccessDenied(f"{what}; {reason}")
    if code in BUSY or status in (429, 503):
        return RemoteBusy(f"{what}; {message}")
    if status >= 500:
        return Unreachable(f"{what}; {message}: the server's own log says why")
    return RemoteProtocolError(f"{what}; {message}")


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
