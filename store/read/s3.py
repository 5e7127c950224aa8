"""A store in a bucket of S3 or a server that speaks it; imported only where a URL says s3.

Ranged reads are HTTP's, with a signature of each; docs/decisions/0017-s3.md.
"""

from __future__ import annotations

from time import gmtime, strftime

from store.errors import AccessDenied, PackNotFound, RemoteProtocolError
from store.format.awscredentials import parse_aws_credentials
from store.format.s3errors import ELSEWHERE, REFUSED, SKEWED, element
from store.format.s3place import S3Place, parse_s3_url
from store.format.sigv4 import Credentials, signed_fields, signing_key
from store.read.authfiles import AuthFile
from store.read.httpaccess import HttpAccess
from store.read.remote import HttpSource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from store.errors import BootfsError
    from store.format.http1 import Endpoint, ResponseHead
    from store.read.retry import Outage


class S3Access(HttpAccess):
    """Signatures with the credentials of the file ``s3``; proxies and authorities as for HTTP."""

    def __init__(
        self,
        place: S3Place,
        home: Endpoint,
        auth: str,
        proxy_of: Callable[[str], str] | None = None,
    ) -> None:
        """Read the files of directory ``auth``; only ``home`` is told who asks.

        Raises:
            AccessDenied: one of them cannot be read, or is malformed.

        """
        self._place = place
        self._home = home
        self._profile = place.profile or "default"
        self._key: tuple[Credentials | None, str, bytes] = (None, "", b"")
        """Whose it is, of which day, and the key."""
        super().__init__(auth, proxy_of)

    @property
    def missing(self) -> str:
        """Why there are no credentials, for messages."""
        return f"{self._s3_file.path} is missing"

    @property
    def who(self) -> str:
        """Where the credentials come from, for messages."""
        return f"{self._s3_file.path} [{self._profile}]"

    def _read(self) -> None:
        self._read_credentials()
        super()._read()

    def _read_credentials(self) -> None:
        if self.generation == 0:
            self._s3_file = AuthFile(self._directory, "s3")
        self._credentials: Credentials | None = self._s3_file.parsed(
            lambda text, path: parse_aws_credentials(text, path, self._profile)
        )

    def _has_changed(self) -> bool:
        return self._s3_file.has_changed() or super()._has_changed()

    def fields(self, endpoint: Endpoint, target: str, offset: int, size: int) -> str:
        """Return the signature of a request, none without credentials; see `Access`."""
        return self.signed(endpoint, target, f"bytes={offset}-{offset + size - 1}")

    def signed(self, endpoint: Endpoint, target: str, wanted: str, *of_body: str) -> str:
        """Return the same for a request of which ``wanted`` is the range.

        ``of_body`` are method and digest of one with a body, as for `signed_fields`.
        """
        credentials = self._credentials
        # What somebody redirects to with a query has its own signature in that.
        if credentials is None or "?" in target or not _is_same(endpoint, self._home):
            return ""
        moment = strftime("%Y%m%dT%H%M%SZ", gmtime())
        region, date = self._place.region, moment[:8]
        signer, key_date, key = self._key
        if signer is not credentials or key_date != date:
            key = signing_key(credentials.secret, date, region)
            self._key = (credentials, date, key)
        host = endpoint.authority
        return signed_fields(credentials, key, region, moment, host, target, wanted, *of_body)

    def refusal(
        self, endpoint: Endpoint, head: ResponseHead, where: str, body: Callable[[], bytes]
    ) -> BootfsError | None:
        """Return what S3's error code means; see `Access`."""
        if head.status in (407, 408, 416, 429):
            return super().refusal(endpoint, head, where, body)
        text = body().decode("utf-8", "replace")
        code = element(text, "Code")
        what = f"{where}: {head.status}{f' {code}' if code else ''}"
        if code == "NoSuchBucket":
            return PackNotFound(f"{what}; there is no bucket {self._place.bucket}")
        if head.status in (404, 410):
            return None
        right = head.fields.get("x-amz-bucket-region") or element(text, "Region")
        if code in ELSEWHERE or (300 <= head.status < 400 and right):
            option = f"region={right}" if right else "region="
            return RemoteProtocolError(f"{what}; the bucket is elsewhere: give {option} in the URL")
        if code in SKEWED:
            return AccessDenied(
                f"{what}; the clocks differ: here it is {strftime('%H:%M:%S', gmtime())} UTC, "
                f"there {head.fields.get('date', 'unknown')}: set the one that is wrong"
            )
        if self._credentials is None:
            return AccessDenied(f"{what}; asked without credentials: {self.missing}")
        reason = REFUSED.get(code, "the server refuses the credentials")
        if code in REFUSED or head.status in (401, 403):
            return AccessDenied(f"{what}; {reason}: {self.who}")
        return RemoteProtocolError(f"{what}; {element(text, 'Message')[:200]}")


class S3Source(HttpSource):
    """Objects below a prefix of a bucket."""

    def __init__(
        self,
        url: str,
        read_limit_s: float,
        authorities: str,
        auth: str,
        outage: Outage | None = None,
    ) -> None:
        """Say where it is, and read the credentials.

        Raises:
            UsageError: no such URL.
            AccessDenied: the credentials cannot be read.

        """
        place = parse_s3_url(url)
        super().__init__(place.url, read_limit_s, authorities, None, outage)
        self._access = self._open_access(place, self._endpoint, auth)
        self.location = url

    def _open_access(self, place: S3Place, home: Endpoint, auth: str) -> S3Access:
        return S3Access(place, home, auth)


def _is_same(one: Endpoint, other: Endpoint) -> bool:
    """Whether two endpoints are the same server, whatever the path."""
    return (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port)
