"""Calls of S3 as a store needs them, through botocore: AWS's own library for Python.

It knows the places where its users keep credentials; docs/decisions/0017-s3.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, cast

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import Session

from store.errors import RemoteProtocolError, SizeMismatch
from store.format.s3place import S3Place
from store.write.backends.s3errors import LIBRARY, is_missing, translated

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

CONNECTIONS = 16
TRIES = 5
CONNECT_LIMIT_S = 10
STALL_LIMIT_S = 60
PIECE = 256 << 10
"""So much is shown at a time of what arrives."""


class S3Objects:
    """The objects below a place in a bucket; errors are those of bootfs.

    Used by many threads at once.
    """

    def __init__(self, place: S3Place) -> None:
        """Find credentials; nothing is sent yet.

        Raises:
            AccessDenied: a profile is named that there is not.

        """
        self._place = place
        self.bucket = place.bucket
        with self.translating(""):
            session = Session(profile=place.profile or None)
            self.client = self._open_client(session, TRIES)
            self.hasty = self._open_client(session, 1)
            """One that does not ask again by itself, so that who calls knows what fails."""

    def _open_client(self, session: Session, tries: int) -> S3Client:
        place = self._place
        client = session.create_client(
            "s3",
            endpoint_url=place.endpoint,
            region_name=place.region,
            config=Config(
                s3={"addressing_style": "path" if place.is_path else "virtual"},
                retries={"mode": "standard", "total_max_attempts": tries},
                connect_timeout=CONNECT_LIMIT_S,
                read_timeout=STALL_LIMIT_S,
                max_pool_connections=CONNECTIONS,
                # Other servers do not know the checksums of newer requests.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )
        return cast("S3Client", client)

    def close(self) -> None:
        """Close the connections."""
        self.client.close()
        self.hasty.close()

    def where(self, name: str) -> str:
        """Return the whole name of an object, for messages."""
        return f"s3://{self.bucket}/{self._place.prefix}{name}"

    def key(self, name: str) -> str:
        """Return what an object is called in the bucket."""
        return self._place.prefix + name

    @contextmanager
    def translating(self, name: str) -> Iterator[None]:
        """Raise what the library raises about an object as an error of bootfs."""
        try:
            yield
        except LIBRARY as error:
            raise translated(error, self.where(name)) from None

    def fetch(
        self,
        name: str,
        offset: int,
        size: int,
        arrived: Callable[[memoryview], None] | None,
        client: S3Client | None = None,
    ) -> bytes:
        """Return a range by one try, `client`'s own apart; see `Source.fetch`."""
        last = offset + size - 1
        body = bytearray(size)
        filled = 0
        try:
            answer = (client or self.client).get_object(
                Bucket=self.bucket, Key=self.key(name), Range=f"bytes={offset}-{last}"
            )
            with closing(answer["Body"]) as stream:
                for piece in stream.iter_chunks(PIECE):
                    if filled + len(piece) > size:
                        raise RemoteProtocolError(f"{self.where(name)}: more bytes than asked for")
                    body[filled : filled + len(piece)] = piece
                    filled += len(piece)
                    if arrived is not None:
                        arrived(memoryview(body)[:filled])
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 416:
                raise SizeMismatch(self.where(name), last + 1, self.size(name)) from None
            raise translated(error, self.where(name)) from None
        except BotoCoreError as error:
            raise translated(error, self.where(name)) from None
        if filled < size:
            raise SizeMismatch(self.where(name), last + 1, offset + filled)
        found = answer.get("ContentRange", "").partition("/")[0]
        if found != f"bytes {offset}-{last}":
            raise RemoteProtocolError(f"{self.where(name)}: asked for {offset}-{last}, got {found}")
        return bytes(body)

    def size(self, name: str) -> int:
        """Return an object's size.

        Raises:
            PackNotFound: there is none.

        """
        with self.translating(name):
            return self.client.head_object(Bucket=self.bucket, Key=self.key(name))["ContentLength"]

    def written(self, name: str) -> datetime:
        """Return when an object was written, by the server's clock.

        Raises:
            PackNotFound: there is none.

        """
        with self.translating(name):
            return self.client.head_object(Bucket=self.bucket, Key=self.key(name))["LastModified"]

    def listed(self, prefix: str) -> tuple[list[tuple[str, datetime]], datetime]:
        """Return names below ``prefix``, when each was written, and what time it is there."""
        found: list[tuple[str, datetime]] = []
        now = datetime.now(UTC)
        cut = len(self._place.prefix)
        with self.translating(prefix):
            pages = self.client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.bucket, Prefix=self.key(prefix)):
                said = page["ResponseMetadata"]["HTTPHeaders"].get("date")
                now = parsedate_to_datetime(said) if said else now
                found += [(o["Key"][cut:], o["LastModified"]) for o in page.get("Contents", [])]
        return found, now

    def put(self, name: str, data: bytes) -> None:
        """Write a small object, over what there is."""
        with self.translating(name):
            self.client.put_object(Bucket=self.bucket, Key=self.key(name), Body=data)

    def touch(self, name: str) -> None:
        """Have the server copy an object onto itself, so that it is as new as one just written.

        Raises:
            PackNotFound: there is none.

        """
        key = self.key(name)
        with self.translating(name):
            self.client.copy_object(
                Bucket=self.bucket,
                Key=key,
                CopySource={"Bucket": self.bucket, "Key": key},
                # A copy onto itself has to change something.
                MetadataDirective="REPLACE",
                Metadata={"bootfs-refreshed": datetime.now(UTC).isoformat()},
            )

    def delete(self, name: str) -> None:
        """Delete an object; one that is not there is deleted."""
        try:
            self.client.delete_object(Bucket=self.bucket, Key=self.key(name))
        except LIBRARY as error:
            if not (isinstance(error, ClientError) and is_missing(error)):
                raise translated(error, self.where(name)) from None
