"""A store in S3 as commands of this machine read it: by AWS's credentials.

The requests are those of a container.
"""

from __future__ import annotations

from botocore.session import Session

from store.format.http1 import Endpoint
from store.format.s3place import S3Place, parse_s3_url
from store.format.sigv4 import Credentials
from store.read.httpaccess import HttpAccess
from store.read.retry import Outage
from store.read.s3 import S3Access, S3Source
from store.write.backends.s3errors import LIBRARY, translated
from store.write.hostaccess import auth_directory, environment_proxy, machine_authorities


class HostS3Access(S3Access):
    """Signatures with what AWS's programs find, which may be renewed by itself."""

    def __init__(self, place: S3Place, home: Endpoint, session: Session) -> None:
        """Find credentials.

        Raises:
            AccessDenied: a profile is named that there is not; or no one can be asked for them.

        """
        self._session = session
        super().__init__(place, home, auth_directory(), environment_proxy)

    @property
    def missing(self) -> str:
        """Why there are no credentials, for messages."""
        return "neither the environment (AWS_…) nor ~/.aws nor the machine's metadata has any"

    @property
    def who(self) -> str:
        """Where the credentials come from, for messages."""
        found = self._found
        profile = self._place.profile or self._session.get_config_variable("profile") or "default"
        return f"those of AWS's {found.method} [{profile}]" if found is not None else self.missing

    def fields(self, endpoint: Endpoint, target: str, offset: int, size: int) -> str:
        """Return the signature of a request; see `Access`."""
        # Those that are lent for a while are renewed when they are asked for.
        self._take()
        return super().fields(endpoint, target, offset, size)

    def _read_credentials(self) -> None:
        try:
            self._found = self._session.get_credentials()
        except LIBRARY as error:
            raise translated(error, self._place.location) from None
        self._credentials = None
        self._told: tuple[str, ...] = ()
        self._take()

    def _take(self) -> None:
        if self._found is None:
            return
        try:
            now = self._found.get_frozen_credentials()
        except LIBRARY as error:
            raise translated(error, self._place.location) from None
        told = now.access_key or "", now.secret_key or "", now.token or ""
        # Another object is another key to sign with, which takes time to make.
        if told != self._told:
            self._told = told
            self._credentials = Credentials(*told)

    def _has_changed(self) -> bool:
        return HttpAccess._has_changed(self)


class HostS3Source(S3Source):
    """Objects below a prefix of a bucket, read with the credentials of this user."""

    def __init__(self, url: str, read_limit_s: float, outage: Outage) -> None:
        """Say where it is, and find credentials.

        Raises:
            UsageError: no such URL.
            AccessDenied: there is no such profile, or no one can be asked for credentials.

        """
        place = parse_s3_url(url)
        self._session = Session(profile=place.profile or None)
        try:
            authorities = self._session.get_config_variable("ca_bundle") or ""
        except LIBRARY as error:
            raise translated(error, url) from None
        super().__init__(url, read_limit_s, authorities or machine_authorities(), "", outage)

    def _open_access(self, place: S3Place, home: Endpoint, auth: str) -> S3Access:
        del auth
        return HostS3Access(place, home, self._session)
