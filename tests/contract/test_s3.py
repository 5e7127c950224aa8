"""Stores in S3, beyond what every store promises: credentials, refusals, uploads, locks."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from store.errors import (
    AccessDenied,
    NotFound,
    PackNotFound,
    RemoteBusy,
    RemoteProtocolError,
    StorageFull,
    TimedOut,
    Unreachable,
)
from store.format.names import STORE_MARK
from store.read.source import open_source
from store.write.backends import open_backend, s3locks
from store.write.backends.s3 import S3Backend
from store.write.backends.s3uploads import PART
from tests.support.certificates import Authority
from tests.support.proxyserver import ProxyServer
from tests.support.require import require
from tests.support.s3server import CREDENTIALS, KEY_ID, SECRET, S3Server, write_credentials
from tests.support.scripted import ScriptedServer, partial, response

DATA = bytes(range(256)) * 4


def error(status: str, code: str, **fields: str) -> bytes:
    """Return an answer as S3 gives it when it refuses something."""
    body = f"<?xml version='1.0'?>\n<Error><Code>{code}</Code><Message>why</Message></Error>"
    return response(status, body.encode(), content_type="application/xml", **fields)


def read(url: str, auth: Path | str = "", limit_s: float = 5) -> bytes:
    with closing(open_source(url, limit_s, auth=str(auth))) as source:
        return source.fetch("name", 0, 10)


def scripted_url(server: ScriptedServer, more: str = "") -> str:
    return f"s3://images/a?endpoint={server.url}{more}"


def rotated(directory: Path, text: str) -> None:
    """Put other contents in place of a file, as engines and Kubernetes do: by renaming."""
    (directory / "new").write_text(text)
    (directory / "new").rename(directory / "s3")


# Reading ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (CREDENTIALS.replace(SECRET, "wrong"), "SignatureDoesNotMatch; the secret key is not that"),
        (CREDENTIALS.replace(KEY_ID, "AKIDWRONG"), "InvalidAccessKeyId; the server does not know"),
    ],
)
def test_wrong_credentials_are_said_with_their_file(
    s3_server: S3Server, tmp_path: Path, text: str, reason: str
) -> None:
    (s3_server.bucket / "name").write_bytes(DATA)
    auth = write_credentials(tmp_path / "auth", text)
    with pytest.raises(AccessDenied, match=rf"403 {reason}.*{auth}/s3 \[default\]") as caught:
        read(s3_server.store_url(), auth)
    assert SECRET not in str(caught.value)


def test_without_credentials_nothing_is_signed(tmp_path: Path) -> None:
    with ScriptedServer(("request", partial(DATA, 0, 10))) as server:
        for auth in ("", str(tmp_path), str(tmp_path / "none")):
            assert read(scripted_url(server), auth) == DATA[:10]
        assert not any(b"uthorization" in request for request in server.requests)
    with (
        ScriptedServer(("request", error("403 Forbidden", "AccessDenied"))) as server,
        pytest.raises(AccessDenied, match=f"without credentials: {tmp_path}/s3 is missing"),
    ):
        read(scripted_url(server), tmp_path)


def test_a_missing_bucket_is_said(s3_server: S3Server, tmp_path: Path) -> None:
    url = s3_server.store_url().replace("images", "none")
    with pytest.raises(PackNotFound, match="NoSuchBucket; there is no bucket none"):
        read(url, write_credentials(tmp_path / "auth"))


def test_credentials_are_read_again_when_they_are_refused_and_have_changed(
    s3_server: S3Server, tmp_path: Path
) -> None:
    (s3_server.bucket / "name").write_bytes(DATA)
    auth = write_credentials(tmp_path / "auth", CREDENTIALS.replace(SECRET, "wrong"))
    with closing(open_source(s3_server.store_url(), 5, auth=str(auth))) as source:
        for _ in range(2):
            with pytest.raises(AccessDenied):
                source.fetch("name", 0, 10)
        rotated(auth, "[default]\nnonsense\n")
        for _ in range(2):
            with pytest.raises(AccessDenied, match=f"{auth}/s3: line 2"):
                source.fetch("name", 0, 10)
        rotated(auth, CREDENTIALS)
        assert source.fetch("name", 0, 10) == DATA[:10]


def test_an_expired_token_is_replaced_by_that_of_the_file(tmp_path: Path) -> None:
    refused = error("400 Bad Request", "ExpiredToken")
    auth = write_credentials(tmp_path / "auth", CREDENTIALS + "aws_session_token = old\n")
    with ScriptedServer(
        ("request", refused), ("request", refused), ("request", partial(DATA, 0, 10))
    ) as server:
        with closing(open_source(scripted_url(server), 5, auth=str(auth))) as source:
            with pytest.raises(
                AccessDenied, match=r"400 ExpiredToken; the session token has expired"
            ):
                source.fetch("name", 0, 10)
            rotated(auth, CREDENTIALS + "aws_session_token = new\n")
            assert source.fetch("name", 0, 10) == DATA[:10]
        tokens = [
            r.partition(b"security-token: ")[2].partition(b"\r\n")[0] for r in server.requests
        ]
        assert tokens == [b"old", b"old", b"new"]


def test_a_profile_is_a_section_of_the_file(s3_server: S3Server, tmp_path: Path) -> None:
    (s3_server.bucket / "name").write_bytes(DATA)
    auth = write_credentials(tmp_path / "auth", CREDENTIALS.replace("default", "prod"))
    assert read(s3_server.store_url() + "&profile=prod", auth) == DATA[:10]
    with pytest.raises(AccessDenied, match=r"no section \[default\]"):
        read(s3_server.store_url(), auth)


def test_a_clock_that_is_wrong_is_said(tmp_path: Path) -> None:
    date = "Thu, 01 Jan 2026 10:00:00 GMT"
    script = ("request", error("403 Forbidden", "RequestTimeTooSkewed", date=date))
    with ScriptedServer(script) as server, pytest.raises(AccessDenied) as caught:
        read(scripted_url(server), write_credentials(tmp_path / "auth"))
    assert f"UTC, there {date}: set the one that is wrong" in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        error("301 Moved", "PermanentRedirect", x_amz_bucket_region="eu-west-1"),
        error("400 Bad Request", "AuthorizationHeaderMalformed", x_amz_bucket_region="eu-west-1"),
    ],
)
def test_a_bucket_in_another_region_is_said(answer: bytes, tmp_path: Path) -> None:
    with (
        ScriptedServer(("request", answer)) as server,
        pytest.raises(RemoteProtocolError, match="give region=eu-west-1 in the URL"),
    ):
        read(scripted_url(server), write_credentials(tmp_path / "auth"))


def test_the_reason_is_found_in_a_body_sent_in_chunks(tmp_path: Path) -> None:
    head = b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"<Error><Code>AccessDenied</Code></Error>"
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    with (
        ScriptedServer(("request", head, 0.1, chunked)) as server,
        pytest.raises(AccessDenied, match="403 AccessDenied; its user may not"),
    ):
        read(scripted_url(server), write_credentials(tmp_path / "auth"))


def test_a_reason_in_another_form_is_not_waited_for(tmp_path: Path) -> None:
    answer = response("403 Forbidden", b"<html>not you</html>")
    with ScriptedServer(("request", answer, 30.0)) as server:
        begun = time.monotonic()
        with pytest.raises(AccessDenied, match="403; the server refuses the credentials"):
            read(scripted_url(server), write_credentials(tmp_path / "auth"))
        assert time.monotonic() - begun < 1.5


def test_an_answer_that_gives_no_reason_is_an_error_in_time(tmp_path: Path) -> None:
    head = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\n"
    with ScriptedServer(("request", head, 30.0)) as server:
        begun = time.monotonic()
        with pytest.raises(AccessDenied, match="403; the server refuses the credentials"):
            read(scripted_url(server), write_credentials(tmp_path / "auth"))
        assert time.monotonic() - begun < 5


def test_nobody_else_is_told_who_asks(tmp_path: Path) -> None:
    auth = write_credentials(tmp_path / "auth", CREDENTIALS + "aws_session_token = token\n")
    with ScriptedServer(("request", partial(DATA, 0, 10))) as other:
        elsewhere = response("307 Temporary", location=f"{other.url}/images/a/name")
        with ScriptedServer(("request", elsewhere)) as server:
            assert read(scripted_url(server), auth) == DATA[:10]
            assert b"Signature=" in server.requests[0]
        for secret in (b"uthorization", b"amz", b"token"):
            assert secret not in other.requests[0]


def test_a_file_that_root_cannot_read_is_said(tmp_path: Path) -> None:
    auth = tmp_path / "auth"
    (auth / "s3").mkdir(parents=True)
    with pytest.raises(AccessDenied, match=f"{auth}/s3: Is a directory"):
        open_source("s3://images", 1, auth=str(auth))
    (tmp_path / "file").touch()
    with pytest.raises(AccessDenied, match="file: Not a directory; it is to be a directory"):
        open_source("s3://images", 1, auth=str(tmp_path / "file"))


def test_over_tls_by_a_proxy(s3_server: S3Server, tmp_path: Path) -> None:
    require("tinyproxy")
    (s3_server.bucket / "name").write_bytes(DATA)
    authority = Authority(tmp_path / "authority")
    authority.issue("IP:127.0.0.1")
    auth = write_credentials(tmp_path / "auth")
    with (
        S3Server(s3_server.root, tls=authority.certificate.parent) as server,
        ProxyServer(server.port) as proxy,
    ):
        url = server.store_url()
        with pytest.raises(RemoteProtocolError, match="certificate is refused"):
            read(url, auth)
        (auth / "ca.crt").write_text(authority.certificate.read_text())
        assert read(url, auth) == DATA[:10]
        (auth / "http").write_text(f"* proxy {proxy.credentials_url}\n")
        assert read(url, auth) == DATA[:10]
        assert f"CONNECT 127.0.0.1:{server.port}" in proxy.log()


def test_a_mirror_may_be_in_s3(s3_server: S3Server, tmp_path: Path) -> None:
    (s3_server.bucket / "name").write_bytes(DATA)
    (tmp_path / "empty").mkdir()
    auth = write_credentials(tmp_path / "auth")
    assert read(f"{tmp_path}/empty|{s3_server.store_url()}", auth) == DATA[:10]
    write_credentials(auth, CREDENTIALS.replace(SECRET, "wrong"))
    assert read(f"{s3_server.store_url()}|{s3_server.bucket}", auth) == DATA[:10]
    (auth / "s3").write_text("nonsense\n")
    assert read(f"{s3_server.store_url()}|{s3_server.bucket}", auth) == DATA[:10]


# Writing ---------------------------------------------------------------------------------------


@pytest.fixture
def backend(s3_server: S3Server) -> Iterator[S3Backend]:
    with closing(S3Backend(s3_server.store_url("store"))) as backend:
        backend.create()
        yield backend


def test_a_bucket_that_is_not_there_is_said(s3_server: S3Server) -> None:
    url = s3_server.store_url().replace("images", "none")
    with closing(open_backend(url)) as backend:
        for call in (backend.check, backend.create):
            with pytest.raises(NotFound, match="no such bucket: make it first"):
                call()


@pytest.mark.parametrize(
    ("variable", "reason"),
    [
        ("AWS_SECRET_ACCESS_KEY", "the secret key is not that of the access key"),
        ("AWS_ACCESS_KEY_ID", "the server does not know the access key"),
    ],
)
def test_wrong_credentials_of_a_writer_are_said(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, variable: str, reason: str
) -> None:
    monkeypatch.setenv(variable, "wrong")
    with closing(open_backend(s3_server.store_url())) as backend:
        with pytest.raises(AccessDenied):
            backend.check()
        with pytest.raises(AccessDenied, match=reason):
            backend.write("packs/ab/x", iter((b"x",)))


def test_a_writer_without_credentials_is_told_where_they_are_looked_for(
    s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    with (
        closing(open_backend(s3_server.store_url())) as backend,
        pytest.raises(AccessDenied, match=r"environment \(AWS_…\), in ~/.aws"),
    ):
        backend.check()
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text(CREDENTIALS)
    with closing(open_backend(s3_server.store_url())) as backend:
        backend.check()
    with pytest.raises(AccessDenied, match="prod"):
        open_backend(s3_server.store_url() + "&profile=prod")


def test_a_server_that_may_only_be_read_is_said(tmp_path: Path, s3_server: S3Server) -> None:
    with closing(open_backend(s3_server.store_url())) as writer:
        writer.create()
        writer.write("packs/ab/x", iter((b"x",)))
    with (
        S3Server(s3_server.root, is_read_only=True) as server,
        closing(open_backend(server.store_url())) as backend,
    ):
        backend.check()
        assert backend.fetch("packs/ab/x", 0, 1) == b"x"
        with pytest.raises((AccessDenied, Unreachable)):
            backend.write("packs/ab/y", iter((b"y",)))
        assert not backend.has("packs/ab/y")


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        ("403 Forbidden", "AccessDenied", AccessDenied),
        ("400 Bad Request", "ExpiredToken", AccessDenied),
        ("403 Forbidden", "RequestTimeTooSkewed", AccessDenied),
        ("403 Forbidden", "QuotaExceeded", StorageFull),
        ("507 Insufficient Storage", "XMinioStorageFull", StorageFull),
        ("503 Slow Down", "SlowDown", RemoteBusy),
        ("500 Internal Server Error", "InternalError", Unreachable),
        ("400 Bad Request", "AuthorizationHeaderMalformed", RemoteProtocolError),
        ("400 Bad Request", "InvalidRequest", RemoteProtocolError),
        ("404 Not Found", "NoSuchBucket", NotFound),
    ],
)
def test_what_a_server_refuses_to_write_is_said_by_kind(
    s3_server: S3Server, status: str, code: str, kind: type[Exception]
) -> None:
    answer = error(status, code, connection="close")
    with (
        ScriptedServer(("request", answer, "close")) as server,
        closing(open_backend(scripted_url(server))) as backend,
        pytest.raises(kind, match=code),
    ):
        backend.replace("packs/ab/x", iter((b"x",)))


def test_a_server_that_is_not_there_is_said(s3_server: S3Server) -> None:
    with ScriptedServer(("close",)) as server:
        url = scripted_url(server)
    with closing(open_backend(url)) as backend, pytest.raises(Unreachable, match="endpoint right"):
        backend.check()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    require("root")
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", path], check=True)
    yield path
    subprocess.run(["umount", path], check=True)


@pytest.mark.parametrize("size", [7 << 20, 13 << 20, 30 << 20])
def test_a_server_whose_disk_is_full_leaves_what_there_was(
    s3_server: S3Server, small_disk: Path, size: int
) -> None:
    """This one says no more than that something is wrong with it."""
    with (
        S3Server(small_disk) as server,
        closing(open_backend(server.store_url("store"))) as backend,
    ):
        backend.create()
        backend.write("packs/aa/1", iter((bytes(6 << 20),)))
        with pytest.raises((Unreachable, PackNotFound), match=r"server's own log|disk full"):
            backend.write("packs/aa/2", iter([bytes(1 << 20)] * (size >> 20)))
        assert list(backend.iter_unfinished()) == []
        assert list(backend.iter_names("packs/")) == ["packs/aa/1"]
        backend.write("packs/aa/3", iter((bytes(1 << 20),)))


def test_a_large_object_goes_in_parts_and_leaves_none(
    backend: S3Backend, s3_server: S3Server
) -> None:
    data = os.urandom(1 << 20) * 20
    pieces = [data[at : at + 700_001] for at in range(0, len(data), 700_001)]
    backend.write("packs/ab/x", iter(pieces))
    assert (s3_server.bucket / "store/packs/ab/x").read_bytes() == data
    assert list(backend.iter_unfinished()) == []


def test_a_writer_that_is_killed_leaves_an_upload_that_can_be_removed(
    backend: S3Backend, s3_server: S3Server
) -> None:
    child = os.fork()
    if child == 0:
        with closing(S3Backend(s3_server.store_url("store"))) as other:
            other.write("packs/ab/x", _then_die())
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
    (name,) = backend.iter_unfinished()
    assert name.startswith("packs/ab/x?upload=")
    assert backend.size(name) == PART and 0 <= backend.age_s(name, time.time()) < 60
    backend.remove([name])
    backend.remove([name])
    assert list(backend.iter_unfinished()) == list(backend.iter_names("packs/")) == []
    with pytest.raises(PackNotFound):
        backend.age_s(name, 0)


def _then_die() -> Iterator[bytes]:
    yield bytes(PART)
    yield b"more"
    os.kill(os.getpid(), 9)


def test_who_was_killed_holds_nothing_for_long(
    backend: S3Backend, s3_server: S3Server, s3_lock: Callable[[str], Path]
) -> None:
    s3_lock("alone-0123")
    s3_lock("with-4567")
    with backend.hold(alone=True):
        (mine,) = (s3_server.bucket / "store/locks").iterdir()
        assert mine.name.startswith("alone-")
        assert list(backend.iter_names("")) == [STORE_MARK]
    assert not list((s3_server.bucket / "store").glob("locks/*"))


@pytest.fixture
def s3_lock(s3_server: S3Server) -> Callable[[str], Path]:
    """Give a function that makes a lock as it is left behind by who was killed long ago."""

    def make(name: str) -> Path:
        path = s3_server.bucket / "store/locks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("somebody 1\n")
        os.utime(path, (time.time() - 2 * s3locks.EXPIRED_S,) * 2)
        return path

    return make


def test_who_holds_renews(
    backend: S3Backend, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3locks, "RENEWED_S", 0.5)
    with backend.hold(alone=False):
        (mine,) = (s3_server.bucket / "store/locks").iterdir()
        os.utime(mine, (1000, 1000))
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            # The server replaces it: for a moment it may not be there.
            with suppress(FileNotFoundError):
                if mine.stat().st_mtime > 2000:
                    return
            time.sleep(0.02)
        pytest.fail("a lock that is held was not renewed")


def test_who_was_taken_for_dead_does_nothing_more(
    backend: S3Backend, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3locks, "RENEWED_S", 0.05)
    backend.write("packs/ab/x", iter((b"x",)))
    with backend.hold(alone=True):
        (mine,) = (s3_server.bucket / "store/locks").iterdir()
        mine.unlink()
        deadline = time.monotonic() + 10
        with pytest.raises(TimedOut, match="do it again"):
            while time.monotonic() < deadline:
                backend.remove(["packs/ab/none"])
        with pytest.raises(TimedOut):
            backend.remove(["packs/ab/x"])
        with pytest.raises(TimedOut):
            backend.replace("manifests/x", iter((b"x",)))
    assert backend.has("packs/ab/x") and not backend.has("manifests/x")
