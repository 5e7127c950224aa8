"""Credentials, proxies and authorities for web servers: against nginx and tinyproxy."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from store.errors import AccessDenied, RemoteProtocolError, TimedOut
from store.read.source import open_source
from store.write.hostsource import open_host_source
from tests.support.certificates import Authority
from tests.support.proxyserver import PASSWORD, USER, ProxyServer
from tests.support.require import require
from tests.support.scripted import ScriptedServer, partial, response
from tests.support.servers import Nginx

DATA = bytes(range(256)) * 4
SECRET = "s3cr3t-value"
REALM = 'auth_basic "store"; auth_basic_user_file {};'
ONLY = "if (${} != '{}') {{ return 403; }}"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    root.mkdir()
    (root / "name").write_bytes(DATA)
    (root / "other").write_bytes(DATA)
    return root


@pytest.fixture
def auth(tmp_path: Path) -> Path:
    auth = tmp_path / "auth"
    auth.mkdir()
    return auth


def rotated(path: Path, text: str) -> None:
    (path.parent / "new").write_text(text)
    (path.parent / "new").rename(path)


def read(url: str, auth: Path, limit_s: float = 5) -> bytes:
    with closing(open_source(url, limit_s, auth=str(auth))) as source:
        return source.fetch("name", 0, 10)


def origin_of(server: Nginx) -> str:
    return server.url.rstrip("/")


def users(tmp_path: Path, password: str = SECRET) -> str:
    """Return nginx's settings that let one user in."""
    hashed = subprocess.run(
        ["openssl", "passwd", "-apr1", password], capture_output=True, text=True, check=True
    ).stdout
    path = tmp_path / "users"
    path.write_text(f"me:{hashed}")
    path.chmod(0o644)
    return REALM.format(path)


def test_basic(root: Path, auth: Path, tmp_path: Path, serve: Callable[..., Nginx]) -> None:
    server = serve(root, extra=users(tmp_path))
    with pytest.raises(AccessDenied, match=f"401.*{auth}/http has no line for {origin_of(server)}"):
        read(server.url, auth)
    (auth / "http").write_text(f"{origin_of(server)} basic me:wrong-{SECRET}\n")
    with pytest.raises(
        AccessDenied, match=f"401; the server refuses the credentials of {auth}/http, line 1"
    ) as caught:
        read(server.url, auth)
    assert SECRET not in str(caught.value)
    (auth / "http").write_text(f"# ours\n{origin_of(server)} basic me:{SECRET}\n")
    assert read(server.url, auth) == DATA[:10]


@pytest.mark.parametrize(
    ("line", "variable", "value"),
    [
        (f"bearer {SECRET}", "http_authorization", f"Bearer {SECRET}"),
        (f"header X-Token: {SECRET}", "http_x_token", SECRET),
    ],
)
def test_bearer_and_header(
    root: Path, auth: Path, serve: Callable[..., Nginx], line: str, variable: str, value: str
) -> None:
    server = serve(root, extra=ONLY.format(variable, value))
    (auth / "http").write_text(f"{origin_of(server)} {line}x\n")
    with pytest.raises(AccessDenied, match=r"403.*line 1"):
        read(server.url, auth)
    (auth / "http").write_text(f"{origin_of(server)} {line}\n")
    assert read(server.url, auth) == DATA[:10]


def test_a_file_that_has_changed_is_read_again_when_it_is_needed(
    root: Path, auth: Path, serve: Callable[..., Nginx]
) -> None:
    server = serve(root, extra=ONLY.format("http_authorization", f"Bearer {SECRET}"))
    line = f"{origin_of(server)} bearer {{}}\n"
    (auth / "http").write_text(line.format("old"))
    with closing(open_source(server.url, 5, auth=str(auth))) as source:
        for _ in range(2):
            with pytest.raises(AccessDenied):
                source.fetch("name", 0, 10)
        rotated(auth / "http", "\nnonsense\n")
        with pytest.raises(AccessDenied, match=f"{auth}/http: line 2"):
            source.fetch("name", 0, 10)
        rotated(auth / "http", line.format(SECRET))
        assert source.fetch("name", 0, 10) == DATA[:10]
        # What is not refused is not read again.
        (auth / "http").unlink()
        assert source.fetch("name", 0, 10) == DATA[:10]


def test_many_threads_go_on_with_what_one_has_read(
    root: Path, auth: Path, serve: Callable[..., Nginx]
) -> None:
    server = serve(root, extra=ONLY.format("http_authorization", f"Bearer {SECRET}"))
    (auth / "http").write_text(f"{origin_of(server)} bearer old\n")
    source = open_source(server.url, 5, auth=str(auth))
    seen: list[bytes] = []

    def first_then_others() -> None:
        """Two that were refused with the old token: the second finds it read already."""
        rotated(auth / "http", f"{origin_of(server)} bearer {SECRET}\n")
        seen.append(source.fetch("name", 0, 10))
        seen.append(source.fetch("name", 0, 10))

    with closing(source):
        first_then_others()
        access = source._access
        assert access.generation == 2
        assert access.renew(1) and not access.renew(2)
    assert seen == [DATA[:10]] * 2


def test_nobody_else_is_told(auth: Path) -> None:
    with ScriptedServer(("request", partial(DATA, 0, 10))) as other:
        elsewhere = response("302 Found", location=f"{other.url}/name")
        with ScriptedServer(("request", elsewhere, "close")) as server:
            (auth / "http").write_text(
                f"{server.url} bearer {SECRET}\n{server.url} header X-A: b\n"
            )
            assert read(server.url, auth) == DATA[:10]
            assert b"\r\nAuthorization: Bearer s3cr3t-value\r\nX-A: b\r\n" in server.requests[0]
        assert b"uthorization" not in other.requests[0] and b"X-A" not in other.requests[0]


def test_one_who_is_redirected_to_is_told_its_own(auth: Path) -> None:
    with ScriptedServer(("request", partial(DATA, 0, 10))) as other:
        elsewhere = response("302 Found", location=f"{other.url}/name")
        with ScriptedServer(("request", elsewhere, "close")) as server:
            (auth / "http").write_text(f"{server.url} bearer one\n{other.url} bearer two\n")
            assert read(server.url, auth) == DATA[:10]
        assert b"Bearer two" in other.requests[0] and b"one" not in other.requests[0]


# Authorities -----------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


def serve_tls(serve: Callable[..., Nginx], root: Path, authority: Authority, port: int) -> Nginx:
    authority.issue("IP:127.0.0.1")
    directory = authority.certificate.parent
    tls = (
        f"listen 127.0.0.1:{port} ssl; ssl_certificate {directory}/server.crt; "
        f"ssl_certificate_key {directory}/server.key;"
    )
    return serve(root, extra=tls)


def test_an_authority_of_the_user_s_own(
    root: Path, auth: Path, authority: Authority, serve: Callable[..., Nginx], free: int
) -> None:
    serve_tls(serve, root, authority, free)
    url = f"https://127.0.0.1:{free}"
    with closing(open_source(url, 5, auth=str(auth))) as source:
        with pytest.raises(RemoteProtocolError, match="certificate is refused"):
            source.fetch("name", 0, 10)
        (auth / "ca.crt").write_text(authority.certificate.read_text())
        assert source.fetch("name", 0, 10) == DATA[:10]
    (auth / "ca.crt").write_text("no certificate\n")
    with pytest.raises(AccessDenied, match=f"{auth}/ca.crt: no certificates in PEM form"):
        read(url, auth)


@pytest.fixture
def free() -> int:
    from tests.support.servers import free_port

    return free_port()


# Proxies ---------------------------------------------------------------------------------------


@pytest.fixture
def proxy(request: pytest.FixtureRequest, free: int) -> ProxyServer:
    require("tinyproxy")
    server = ProxyServer(free)
    request.addfinalizer(server.close)
    return server


def test_http_by_a_proxy(
    root: Path, auth: Path, proxy: ProxyServer, serve: Callable[..., Nginx]
) -> None:
    server = serve(root, extra=ONLY.format("http_authorization", f"Bearer {SECRET}"))
    credentials = f"{origin_of(server)} bearer {SECRET}\n"
    (auth / "http").write_text(f"{credentials}* proxy {proxy.credentials_url}\n")
    assert read(server.url, auth) == DATA[:10]
    assert f"127.0.0.1:{server.port}/name" in proxy.log()
    (auth / "http").write_text(f"{credentials}* proxy http://{USER}:wrong@{proxy.host_port}\n")
    with pytest.raises(AccessDenied, match=f"(407|401).*{auth}/http"):
        read(server.url, auth)


def test_https_by_a_proxy(
    root: Path,
    auth: Path,
    proxy: ProxyServer,
    authority: Authority,
    serve: Callable[..., Nginx],
    free: int,
) -> None:
    serve_tls(serve, root, authority, free)
    url = f"https://127.0.0.1:{free}"
    (auth / "ca.crt").write_text(authority.certificate.read_text())
    (auth / "http").write_text(f"{url} proxy {proxy.credentials_url}\n")
    with closing(open_source(url, 5, auth=str(auth))) as source:
        assert source.fetch("name", 0, 10) == DATA[:10]
    assert f"CONNECT 127.0.0.1:{free}" in proxy.log()
    (auth / "http").write_text(f"\n{url} proxy http://{USER}:wrong@{proxy.host_port}\n")
    with closing(open_source(url, 5, auth=str(auth))) as source:
        with pytest.raises(AccessDenied, match=r"40[17]") as caught:
            source.fetch("name", 0, 10)
        assert "wrong" not in str(caught.value)
        rotated(auth / "http", f"{url} proxy {proxy.credentials_url}\n")
        assert source.fetch("name", 0, 10) == DATA[:10]


def test_a_proxy_that_will_not_or_cannot_is_said(auth: Path, proxy: ProxyServer, free: int) -> None:
    (auth / "http").write_text(f"* proxy {proxy.credentials_url}\n")
    with pytest.raises(
        AccessDenied, match=f"403; proxy {proxy.url.rstrip('/')} refuses to connect"
    ):
        read("https://127.0.0.1:1", auth, 0.5)
    with pytest.raises(TimedOut, match="cannot connect to it: 5"):
        read(f"https://127.0.0.1:{free}", auth, 0.5)
    (auth / "http").write_text("* proxy http://127.0.0.1:1\n")
    with pytest.raises(TimedOut, match=r"by proxy http://127.0.0.1:1: Connection refused"):
        read(f"https://127.0.0.1:{free}", auth, 0.5)


def test_direct_is_without_a_proxy(root: Path, auth: Path, serve: Callable[..., Nginx]) -> None:
    server = serve(root)
    (auth / "http").write_text(f"* proxy http://127.0.0.1:1\n{origin_of(server)} direct\n")
    assert read(server.url, auth) == DATA[:10]


def test_the_user_s_proxy_is_for_what_the_file_says_nothing_of(
    root: Path,
    auth: Path,
    proxy: ProxyServer,
    serve: Callable[..., Nginx],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = serve(root)
    for name in ("HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", proxy.credentials_url)
    monkeypatch.setenv("BOOTFS_AUTH", str(auth))
    for url in (server.url, f"{server.url}|{root}"):
        with closing(open_host_source(url, 5)) as source:
            assert source.fetch("name", 0, 10) == DATA[:10]
    assert proxy.log().count(f"127.0.0.1:{server.port}/name") == 2
    (auth / "http").write_text(f"{origin_of(server)} direct\n")
    with closing(open_host_source(server.url, 5)) as source:
        assert source.fetch("other", 0, 10) == DATA[:10]
    assert "/other" not in proxy.log()


def test_the_password_is_nowhere(auth: Path, proxy: ProxyServer) -> None:
    (auth / "http").write_text(f"* proxy {proxy.credentials_url}\n")
    with pytest.raises(AccessDenied) as caught:
        read("https://127.0.0.1:1", auth, 0.5)
    assert PASSWORD not in repr(caught.value) and "%2E" not in repr(caught.value)
