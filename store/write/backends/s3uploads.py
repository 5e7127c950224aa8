"""Multipart uploads: objects that are on their way, and are none before they are complete.

An upload that nobody completes stays, and is paid for, until somebody aborts it.  Its name
among what is unfinished is that of the object to be, `MARK` and the server's id of it.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from store.errors import PackNotFound
from store.write.backends.s3objects import S3Objects

if TYPE_CHECKING:
    from types_boto3_s3.type_defs import CompletedPartTypeDef

MARK = "?upload="
PART = 8 << 20
"""Bytes of each part but the last; S3 takes 5 MiB to 5 GiB, and 10,000 of them."""


class Upload:
    """One upload under way."""

    def __init__(self, objects: S3Objects, name: str) -> None:
        """Begin it.

        Raises:
            AccessDenied, NotFound, RemoteError: the server does not let us.

        """
        self._objects = objects
        self._name = name
        self._parts: list[CompletedPartTypeDef] = []
        with objects.translating(name):
            self._id = objects.client.create_multipart_upload(
                Bucket=objects.bucket, Key=objects.key(name)
            )["UploadId"]

    def add(self, data: bytes) -> None:
        """Send the next `PART` bytes, or the last ones.

        Raises:
            PackNotFound: somebody has aborted it; StorageFull: no space is left.

        """
        number = len(self._parts) + 1
        with self._objects.translating(self._name):
            answer = self._objects.client.upload_part(
                Bucket=self._objects.bucket,
                Key=self._objects.key(self._name),
                UploadId=self._id,
                PartNumber=number,
                Body=data,
            )
        self._parts.append({"ETag": answer["ETag"], "PartNumber": number})

    def complete(self) -> None:
        """Make an object of it, over what there is.

        Raises:
            PackNotFound: somebody has aborted it; StorageFull: no space is left.

        """
        with self._objects.translating(self._name):
            self._objects.client.complete_multipart_upload(
                Bucket=self._objects.bucket,
                Key=self._objects.key(self._name),
                UploadId=self._id,
                MultipartUpload={"Parts": self._parts},
            )

    def abort(self) -> None:
        """Give it up."""
        abort(self._objects, f"{self._name}{MARK}{self._id}")


def uploads(objects: S3Objects) -> dict[str, datetime]:
    """Return the names of all uploads under way, and when each was begun."""
    found: dict[str, datetime] = {}
    cut = len(objects.key(""))
    try:
        pages = objects.client.get_paginator("list_multipart_uploads")
        for page in pages.paginate(Bucket=objects.bucket, Prefix=objects.key("")):
            for entry in page.get("Uploads", []):
                found[f"{entry['Key'][cut:]}{MARK}{entry['UploadId']}"] = entry["Initiated"]
    except ClientError as error:
        # So some servers say that there are none.
        if error.response.get("Error", {}).get("Code") != "NoSuchUpload":
            with objects.translating(""):
                raise
    return found


def begun(objects: S3Objects, name: str) -> datetime:
    """Return when an upload was begun.

    Raises:
        PackNotFound: there is none of this name.

    """
    found = uploads(objects).get(name)
    if found is None:
        raise PackNotFound(f"{objects.where(name)}: there is no such upload")
    return found


def arrived_size(objects: S3Objects, name: str) -> int:
    """Return the bytes of all parts of an upload that have arrived.

    Raises:
        PackNotFound: there is none of this name.

    """
    key, _, number = name.partition(MARK)
    size = 0
    with objects.translating(name):
        pages = objects.client.get_paginator("list_parts")
        for page in pages.paginate(Bucket=objects.bucket, Key=objects.key(key), UploadId=number):
            size += sum(part["Size"] for part in page.get("Parts", []))
    return size


def abort(objects: S3Objects, name: str) -> None:
    """Abort an upload; one that is not there is aborted."""
    key, _, number = name.partition(MARK)
    try:
        with objects.translating(name):
            objects.client.abort_multipart_upload(
                Bucket=objects.bucket, Key=objects.key(key), UploadId=number
            )
    except PackNotFound:
        return
