"""Codes of S3's error responses, and what they mean for who asked.

From "Error Responses" in the API reference of Amazon S3; those of other servers, which
have no document in common, as they send them.
"""

from __future__ import annotations

REFUSED = {
    "AccessDenied": "its user may not do this (or, who may not list the bucket, it is not there)",
    "AllAccessDisabled": "the bucket's owner has disabled all access",
    "ExpiredToken": "the session token has expired",
    "InvalidAccessKeyId": "the server does not know the access key",
    "InvalidToken": "the session token is not valid",
    "SignatureDoesNotMatch": "the secret key is not that of the access key",
    "TokenRefreshRequired": "the session token has to be renewed",
}
SKEWED = ("RequestExpired", "RequestTimeTooSkewed")
"""The clocks differ by more than the 15 minutes that a signature holds."""
ELSEWHERE = (
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "PermanentRedirect",
    "TemporaryRedirect",
)
"""The bucket is in another region."""
FULL = (
    "InsufficientCapacity",
    "QuotaExceeded",
    "StorageFull",
    "XMinioAdminBucketQuotaExceeded",
    "XMinioStorageFull",
)
BUSY = ("RequestLimitExceeded", "ServiceUnavailable", "SlowDown", "Throttling", "XMinioServerBusy")


def element(text: str, name: str) -> str:
    """Return what stands in an XML element that has text alone; empty without one."""
    inner = text.partition(f"<{name}>")[2].partition(f"</{name}>")[0]
    return inner if inner.isprintable() else ""
