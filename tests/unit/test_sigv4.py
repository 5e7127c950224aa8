"""Signatures: the examples that AWS publishes, and what its own library signs."""

from datetime import UTC, datetime
from hashlib import sha256
from string import ascii_letters, digits

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as LibraryCredentials
from hypothesis import given
from hypothesis import strategies as st

from store.format.sigv4 import NOTHING, Credentials, signed_fields, signing_key

KEY_ID = "AKIAIOSFODNN7EXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


def test_the_published_example_of_a_ranged_get() -> None:
    """API reference of Amazon S3, "Signature Calculations for the Authorization Header"."""
    key = signing_key(SECRET, "20130524", "us-east-1")
    fields = signed_fields(
        Credentials(KEY_ID, SECRET),
        key,
        "us-east-1",
        "20130524T000000Z",
        "examplebucket.s3.amazonaws.com",
        "/test.txt",
        "bytes=0-9",
    )
    assert fields == (
        "Authorization: AWS4-HMAC-SHA256 "
        "Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
        "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,"
        "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41\r\n"
        f"x-amz-content-sha256: {NOTHING}\r\n"
        "x-amz-date: 20130524T000000Z\r\n"
    )


words = st.text(ascii_letters + digits, min_size=1, max_size=40)


@given(
    secret=st.text(ascii_letters + digits + "/+", min_size=1, max_size=60),
    token=st.one_of(st.just(""), words),
    region=words,
    path=st.text(ascii_letters + digits + "-._~/", max_size=60),
    moment=st.datetimes(datetime(2015, 1, 1), datetime(2060, 1, 1)),
    port=st.integers(1, 65535).filter(lambda n: n not in (80, 443)),
    body=st.one_of(st.none(), st.binary(max_size=40)),
)
def test_it_signs_as_the_library_does(
    secret: str,
    token: str,
    region: str,
    path: str,
    moment: datetime,
    port: int,
    body: bytes | None,
) -> None:
    """A ranged read, or a write where there is a ``body``."""
    method, digest, wanted = "GET", NOTHING, "bytes=5-9"
    if body is not None:
        method, digest, wanted = "PUT", sha256(body).hexdigest(), ""
    text = moment.replace(tzinfo=UTC).strftime("%Y%m%dT%H%M%SZ")
    request = AWSRequest(method=method, url=f"http://h:{port}/b/{path}", headers={})
    if wanted:
        request.headers["Range"] = wanted
    request.headers["X-Amz-Content-SHA256"] = digest
    request.headers["X-Amz-Date"] = text
    request.context["timestamp"] = text
    if token:
        request.headers["X-Amz-Security-Token"] = token
    signer = S3SigV4Auth(LibraryCredentials(KEY_ID, secret, token or None), "s3", region)
    signature = signer.signature(
        signer.string_to_sign(request, signer.canonical_request(request)), request
    )
    key = signing_key(secret, text[:8], region)
    host = f"h:{port}"
    ours = signed_fields(
        *(Credentials(KEY_ID, secret, token), key, region, text, host, f"/b/{path}", wanted),
        *(method, digest),
    )
    assert f"x-amz-content-sha256: {digest}\r\n" in ours
    assert f",Signature={signature}\r\n" in ours
    assert (f"x-amz-security-token: {token}\r\n" in ours) == bool(token)


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1"])
def test_a_key_is_of_one_day_and_one_region(region: str) -> None:
    keys = {signing_key(SECRET, day, region) for day in ("20130524", "20130525")}
    assert len(keys | {signing_key(SECRET, "20130524", "us-west-2")}) == 3
