"""Targets: files with credentials of people, and what S3 answers to who has some."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from store.errors import AccessDenied, BootfsError, UsageError
from store.format.awscredentials import parse_aws_credentials
from store.format.http1 import Endpoint, encode_request
from store.format.httpaccess import EVERY, KINDS, parse_http_access
from store.format.sigv4 import Credentials, signed_fields, signing_key
from store.read import connection
from store.read.s3 import S3Source
from store.write.registry import accounts
from store.write.registry.accounts import Accounts
from store.write.registry.endpoint import parse_endpoint
from store.write.registry.helpers import HelperAnswer
from tests.fuzz.booted import _HTTP_WORDS, _Server
from tests.fuzz.registry import target

_LONGEST_MESSAGE = 160
"""Of an error about a file: where, and fixed words."""


def _check_field_lines(fields: str) -> list[str]:
    """Assert that header fields are lines, each whole; return their names."""
    lines = fields.split("\r\n")
    assert lines.pop() == ""
    for line in lines:
        assert line.isascii()
        assert line.isprintable()
        name, colon, value = line.partition(": ")
        assert name
        assert colon
        assert value == value.strip()
        assert not set(name) & set(" :\t")
    return [line.partition(":")[0].lower() for line in lines]


@target(
    "http-access",
    words=(
        *(f" {kind} ".encode() for kind in KINDS), b"http://", b"https://a", b"* proxy ", b":",
        b"@", b"%40", b"%", b"#", b"\n", b"\r", b"X-Key: v", b"Host: x", b"\xc3\xbc", b"\x00",
        b"\x85",
    ),
    longest=1024,
)  # fmt: skip
def check_http_access(data: bytes) -> bool:
    """What is sent is lines of its own, and what is refused is not shown."""
    text = data.decode("utf-8", "replace")
    try:
        table = parse_http_access(text, "/auth/http")
    except AccessDenied as error:
        assert str(error).startswith("/auth/http: line ")
        assert len(str(error)) < _LONGEST_MESSAGE
        assert str(error).isprintable()
        return False
    assert table.fields.keys() == table.places.keys()
    assert EVERY not in table.fields
    for origin, fields in table.fields.items():
        names = _check_field_lines(fields)
        request = encode_request(Endpoint("http", "h", 80, ""), "/x", 0, 1, fields)
        assert request.count(b"\r\n\r\n") == 1
        assert request.split(b"\r\n").count(b"Host: h") == 1
        assert not {"host", "range", "content-length", "transfer-encoding"} & set(names)
        assert origin.startswith(("http://", "https://"))
    for proxy in table.proxies.values():
        if proxy is not None:
            assert not proxy.endpoint.path
            assert proxy.authorization.isascii()
            assert proxy.authorization.isprintable()
    return bool(table.fields or table.proxies)


@target(
    "aws-credentials",
    words=(
        b"[default]\n", b"[other]\n", b"aws_access_key_id", b"aws_secret_access_key", b" = ", b"\n",
        b"aws_session_token", b"#", b";", b"\xc3\xbc", b"\x00", b"\r", b"]",
    ),
    longest=1024,
)  # fmt: skip
def check_aws_credentials(data: bytes) -> bool:
    text = data.decode("utf-8", "replace")
    try:
        found = parse_aws_credentials(text, "/auth/s3", "default")
    except AccessDenied as error:
        assert str(error).startswith("/auth/s3: ")
        assert len(str(error)) < _LONGEST_MESSAGE
        return False
    if found is None:
        return False
    key = signing_key(found.secret, "20130524", "us-east-1")
    fields = signed_fields(found, key, "us-east-1", "20130524T000000Z", "h", "/x", "bytes=0-1")
    assert "authorization" in _check_field_lines(fields)
    assert found.secret not in fields or len(found.secret) < 20
    return True


@target(
    "s3-answers",
    words=(
        *_HTTP_WORDS, b"HTTP/1.1 403 \r\n", b"HTTP/1.1 404 \r\n", b"HTTP/1.1 400 \r\n", b"<Code>",
        b"</Code>", b"<Message>", b"</Message>", b"</Error>", b"<Region>", b"NoSuchBucket",
        b"SignatureDoesNotMatch", b"PermanentRedirect", b"RequestTimeTooSkewed", b"s3://images",
        b"?endpoint=", b"&region=", b"&style=path", b"&profile=", b"x-amz-bucket-region: a\r\n",
    ),
    longest=1024,
    steps=100_000,
)  # fmt: skip
def check_s3_answers(data: bytes) -> bool:
    """The first line is a store's URL, the rest what is answered to a signed request."""
    first, _, rest = data.partition(b"\n")
    answers = [_Server(answer) for answer in rest.split(b"\n%%\n")[:8]]
    left = iter(answers)
    places: list[Endpoint] = []

    def connect(endpoint: Endpoint, *_: object) -> _Server:
        server = next(left, _Server(b""))
        server.is_open = True
        places.append(endpoint)
        return server

    try:
        source = S3Source(first.decode("latin-1"), 1.0, "", "")
    except UsageError:
        return False
    assert source._access is not None
    source._access._credentials = Credentials("AKID", "the-secret-of-the-fuzzer")
    genuine = connection.connect
    connection.connect = connect
    try:
        found = source.fetch_once("name", 3, 4, None, 10.0, 10.0)
        assert len(found) == 4
        assert found in rest
        return True
    except BootfsError as error:
        assert "the-secret" not in str(error)
        assert "\n" not in str(error)
        return False
    finally:
        connection.connect = genuine
        source.close()
        for place, server in zip(places, answers, strict=False):
            _check_asked(server, place, source._endpoint)


def _check_asked(server: _Server, place: Endpoint, home: Endpoint) -> None:
    """Assert that one request at a time was sent, and signed for the store's own server."""
    assert not server.is_open
    for message in server.asked.split(b"\r\n\r\n")[:-1]:
        assert message.startswith(b"GET /")
        assert message.count(b"\r\nRange: bytes=3-6") == 1
        is_home = (place.scheme, place.host, place.port) == (home.scheme, home.host, home.port)
        assert is_home or b"\r\nAuthorization:" not in message
    assert b"the-secret" not in server.asked


@cache
def _place() -> Path:
    return Path(tempfile.mkdtemp(prefix="bootfs-fuzz-")) / "config.json"


@target(
    "docker-accounts",
    words=(
        b'"auths"', b'"auth"', b'"username"', b'"password"', b'"registrytoken"', b'"host:5000"',
        b'"identitytoken"', b'"https://host:5000/v1/"', b'"host:5000/some"', b'"credHelpers"',
        b'"credsStore"', b"{}", b"[]", b"null", b"1", b"\\u00fc", b"\\ud800", b'"YTpi"', b"[" * 300,
    ),
)  # fmt: skip
def check_docker_accounts(data: bytes) -> bool:
    """A file as `docker login` writes it, with whom the converter goes to a registry."""
    asked: list[str] = []

    def ask(helper: str, server: str, named_in: str) -> HelperAnswer:
        assert server == "host:5000"
        assert named_in == str(_place())
        asked.append(helper)
        return HelperAnswer("me", "mine")

    _place().write_bytes(data)
    genuine = accounts.ask_helper
    accounts.ask_helper = ask
    try:
        found = Accounts([_place()]).find(parse_endpoint("docker://host:5000/some/where"))
    except AccessDenied as error:
        assert str(_place()) in str(error)
        assert len(str(error)) < _LONGEST_MESSAGE + len(str(_place()))
        return False
    finally:
        accounts.ask_helper = genuine
    if found is None:
        return False
    assert found.basic.startswith("Basic ")
    assert found.basic.isascii()
    assert found.registry_token.isascii()
    found.identity_token.encode()
    assert str(_place()) in found.origin
    assert not asked or found.password == "mine"
    return True
