"""AWS Signature Version 4 as far as ranged reads, and small writes, need it.

The layouts are those of "Authenticating Requests: Using the Authorization Header" in
the API reference of Amazon S3, whose example a test signs.  `_hashlib` is what `hashlib`
and `hmac` are made of, without what they import.
"""

from __future__ import annotations

from _hashlib import hmac_digest, openssl_sha256

NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
"""SHA-256 of no bytes: the body of a GET request."""


class Credentials:
    """Who signs; ``token`` is empty but for credentials that are lent for a while."""

    __slots__ = ("key_id", "secret", "token")

    def __init__(self, key_id: str, secret: str, token: str = "") -> None:
        self.key_id = key_id
        self.secret = secret
        self.token = token


def signing_key(secret: str, date: str, region: str) -> bytes:
    """Return the key that signs the requests of one day (``20130524``) to S3 in a region."""
    key = f"AWS4{secret}".encode()
    for part in (date, region, "s3", "aws4_request"):
        key = hmac_digest(key, part.encode(), "sha256")
    return key


def signed_fields(
    credentials: Credentials,
    key: bytes,
    region: str,
    moment: str,
    host: str,
    path: str,
    wanted: str,
    method: str = "GET",
    body: str = NOTHING,
) -> str:
    """Return the header fields, each with its line's end, that a request has to have.

    ``key`` is the `signing_key` of ``moment`` (``20130524T000000Z``, in UTC), ``host`` the
    value of Host, ``path`` the encoded path without a query, ``wanted`` the value of Range,
    empty where there is none, ``body`` the SHA-256 of the body in hexadecimal.
    """
    fields = {"host": host}
    if wanted:
        fields["range"] = wanted
    fields["x-amz-content-sha256"] = body
    fields["x-amz-date"] = moment
    if credentials.token:
        fields["x-amz-security-token"] = credentials.token
    names = ";".join(fields)
    lines = "".join(f"{name}:{value}\n" for name, value in fields.items())
    request = f"{method}\n{path}\n\n{lines}\n{names}\n{body}"
    scope = f"{moment[:8]}/{region}/s3/aws4_request"
    digest = openssl_sha256(request.encode()).hexdigest()
    text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{digest}"
    signature = hmac_digest(key, text.encode(), "sha256").hex()
    # Host and Range are in every request.
    own = "".join(f"{n}: {v}\r\n" for n, v in fields.items() if n.startswith("x-"))
    return (
        f"Authorization: AWS4-HMAC-SHA256 Credential={credentials.key_id}/{scope},"
        f"SignedHeaders={names},Signature={signature}\r\n{own}"
    )
