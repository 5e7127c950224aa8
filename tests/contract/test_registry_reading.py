"""Packs from registries that want credentials, send elsewhere, or do wrong."""

from __future__ import annotations

import traceback
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from random import Random

import pytest

from store.errors import AccessDenied, BootfsError, PackNotFound, RemoteProtocolError
from store.format.names import pack_name
from store.read.registry import RegistrySource
from store.read.source import open_source
from tests.support.certificates import Authority
from tests.support.proxyserver import ProxyServer
from tests.support.registries import (
    REPOSITORY,
    TokenFront,
    basic_registry,
    push_blob,
    write_docker_config,
)
from tests.support.require import require
from tests.support.scripted import ScriptedServer, partial, response
from tests.support.servers import Nginx, Registry
from tests.support.tokenserver import PASSWORD, USER

DATA = Random(7).randbytes(200_000)
LIMIT_S = 5.0
WRONG = "wrong horse"


def pack_of(digest: str) -> str:
    return pack_name(bytes.fromhex(digest.removeprefix("sha256:")))


@pytest.fixture
def name(registry: Registry) -> str:
    return pack_of(push_blob(registry, DATA))


@pytest.fixture
def front(
    registry: Registry, tmp_path: Path, serve: Callable[..., Nginx]
) -> Callable[..., TokenFront]:
    return lambda **options: TokenFront(registry, tmp_path, serve, **options)


def open_registry(url: str, auth: Path | str = "") -> RegistrySource:
    source = open_source(url, LIMIT_S, auth=str(auth))
    assert isinstance(source, RegistrySource)
    return source


def check_reads(source: RegistrySource, name: str, count: int = 3) -> None:
    for n in range(count):
        assert source.fetch(name, n * 1000, 999) == DATA[n * 1000 : n * 1000 + 999]


def denied(source: RegistrySource, name: str) -> str:
    """Give the message, which must hold nothing that is secret."""
    with pytest.raises(AccessDenied) as caught:
        source.fetch(name, 0, 10)
    shown = "".join(traceback.format_exception(caught.value))
    for password in (PASSWORD, WRONG):
        assert password not in shown
        assert b64encode(f"{USER}:{password}".encode()).decode() not in shown
    return str(caught.value)


def test_a_registry_without_credentials(registry: Registry, name: str) -> None:
    with closing(open_registry(f"docker://{registry.host_port}/{REPOSITORY}")) as source:
        source.dial()
        check_reads(source, name)
    with closing(open_registry(f"docker+http://{registry.host_port}/{REPOSITORY}")) as source:
        check_reads(source, name)


def test_another_repository_does_not_have_it(registry: Registry, name: str) -> None:
    with (
        closing(open_registry(f"docker://{registry.host_port}/other")) as source,
        pytest.raises(PackNotFound, match=name),
    ):
        source.fetch(name, 0, 10)


@pytest.mark.parametrize("file", ["config.json", ".dockerconfigjson"])
def test_user_and_password_by_file(tmp_path: Path, file: str) -> None:
    with basic_registry(tmp_path) as registry:
        auth = tmp_path / "auth"
        url = f"docker://{registry.host_port}/{REPOSITORY}"
        name = pack_name(bytes(32))
        with closing(open_registry(url, auth)) as source:
            auth.mkdir()
            assert f"there is no {auth}/config.json: mount a directory" in denied(source, name)
            path = write_docker_config(auth, registry.host_port, WRONG, file)
            assert f"401, the registry refuses to be read; tried with {path}" in denied(
                source, name
            )
            write_docker_config(auth, "elsewhere:5000", PASSWORD, file)
            assert (
                f"without credentials, since {path} has none for {registry.host_port}: "
                in denied(source, name)
            )
            write_docker_config(auth, f"http://{registry.host_port}/v1/", PASSWORD, file)
            with pytest.raises(PackNotFound):
                source.fetch(name, 0, 10)
            path.unlink()
            # Let in is let in: what was taken is used until it is refused.
            with pytest.raises(PackNotFound):
                source.fetch(name, 0, 10)


def test_a_token_that_runs_out_in_the_middle_of_a_run(
    front: Callable[..., TokenFront], name: str, tmp_path: Path
) -> None:
    before = front()
    auth = tmp_path / "auth"
    write_docker_config(auth, before.server.host_port)
    with closing(open_registry(before.url, auth)) as source:
        source.dial()
        assert [r.path.partition("?")[0] for r in before.server.requests()] == ["/v2/", "/token"]
        check_reads(source, name)
        (asked,) = (r.path for r in before.server.requests() if r.path.startswith("/token"))
        assert asked == "/token?service=test%2C%20of%20it&scope=repository%3Asome%2Fwhere%3Apull"
        before.server.forget()
        for token in ("second", "third"):
            before.change_token(token)
            check_reads(source, name)
        statuses = [
            (r.path.partition("?")[0] == "/token", r.status) for r in before.server.requests()
        ]
        refreshed = [(False, 401), (True, 200), *[(False, 206)] * 3]
        assert statuses == refreshed * 2


def test_of_many_readers_one_gets_the_token(
    front: Callable[..., TokenFront], name: str, tmp_path: Path
) -> None:
    before = front()
    auth = tmp_path / "auth"
    write_docker_config(auth, before.server.host_port)
    with closing(open_registry(before.url, auth)) as source, ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: check_reads(source, name, 1), range(64)))
    assert [r.path for r in before.server.requests() if "/token" in r.path and r.status == 200][
        1:
    ] == []


def test_an_anonymous_token(front: Callable[..., TokenFront], name: str) -> None:
    before = front(wants_password=False)
    with closing(open_registry(before.url)) as source:
        check_reads(source, name)


def test_a_token_server_that_refuses(
    front: Callable[..., TokenFront], name: str, tmp_path: Path
) -> None:
    before = front()
    auth = tmp_path / "auth"
    with closing(open_registry(before.url, auth)) as source:
        assert "gives no token; tried without credentials" in denied(source, name)
        path = write_docker_config(auth, before.server.host_port, WRONG)
        assert f"gives no token; tried with {path}" in denied(source, name)
        # A file that has changed is read again, by the next who asks.
        write_docker_config(auth, before.server.host_port)
        check_reads(source, name)


def test_a_token_that_the_registry_does_not_take(
    front: Callable[..., TokenFront], name: str, tmp_path: Path
) -> None:
    before = front()
    before.change_answer('{"access_token": "worthless"}')
    path = write_docker_config(tmp_path / "auth", before.server.host_port)
    with closing(open_registry(before.url, tmp_path / "auth")) as source:
        message = denied(source, name)
    assert f"refuses the token that it gave; tried with {path}" in message
    assert "worthless" not in message


@pytest.mark.parametrize("answer", ["", "{", "[]", '{"token": 7}', '{"token": "a\\r\\nb"}', "{}"])
def test_an_answer_without_a_token(
    front: Callable[..., TokenFront], name: str, answer: str
) -> None:
    before = front(wants_password=False)
    before.change_answer(answer)
    with (
        closing(open_registry(before.url)) as source,
        pytest.raises(RemoteProtocolError, match="the answer holds no token"),
    ):
        source.fetch(name, 0, 10)


@pytest.mark.parametrize("realm", ["ftp://127.0.0.1/token", "http:///token"])
def test_a_token_server_that_cannot_be_asked(
    front: Callable[..., TokenFront], name: str, realm: str
) -> None:
    before = front(wants_password=False, realm=realm)
    with (
        closing(open_registry(before.url)) as source,
        pytest.raises(RemoteProtocolError, match="token server that cannot be asked"),
    ):
        source.fetch(name, 0, 10)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"auths": []}',
        '{"auths": {"HOST": 7}}',
        '{"auths": {"HOST": {"auth": 7}}}',
    ],
)
def test_a_damaged_file_of_credentials(
    front: Callable[..., TokenFront], name: str, tmp_path: Path, text: str
) -> None:
    before = front()
    path = write_docker_config(tmp_path / "auth", "HOST")
    path.write_text(text.replace("HOST", before.server.host_port))
    with closing(open_registry(before.url, tmp_path / "auth")) as source:
        message = denied(source, name)
    assert message.startswith(f"{path}: ")
    assert "not a file of credentials" in message or "holds an identity token" in message


def test_a_file_where_the_directory_should_be(
    front: Callable[..., TokenFront], tmp_path: Path
) -> None:
    before = front()
    (tmp_path / "auth").touch()
    with pytest.raises(AccessDenied, match=f"{tmp_path}/auth: .*it is to be a directory"):
        open_registry(before.url, tmp_path / "auth")


def test_files_that_are_written_after_the_start_are_found(
    name: str, tmp_path: Path, authority: Authority
) -> None:
    """Of credentials and of authorities: the directory alone has to be there."""
    auth = tmp_path / "auth"
    auth.mkdir()
    good = response("206 Partial", DATA[:10], content_range=f"bytes 0-9/{len(DATA)}")
    with ScriptedServer(("request", good), context=authority.issue("IP:127.0.0.1")) as server:
        url = f"docker+https://127.0.0.1:{server.port}/{REPOSITORY}"
        with closing(open_registry(url, auth)) as source:
            (auth / "ca.crt").write_text(authority.certificate.read_text())
            (auth / "http").write_text(f"{server.url} header X-Key: late\n")
            assert source.fetch(name, 0, 10) == DATA[:10]
    assert b"X-Key: late" in server.requests[-1]


ELSEWHERE = """
if ($http_authorization) {{ return 418; }}
if (!-f {root}/signed-$arg_signature) {{ return 403; }}
"""


@pytest.fixture
def elsewhere(tmp_path: Path, serve: Callable[..., Nginx], name: str) -> Iterator[Nginx]:
    """Give the server that blobs are really on: lets in by signature, and nobody with a header."""
    root = tmp_path / "elsewhere"
    root.mkdir()
    (root / "blob").write_bytes(DATA)
    (root / "signed-a").touch()
    return serve(root, extra=ELSEWHERE.format(root=root))


def test_a_redirect_is_followed_without_credentials_and_remembered(
    front: Callable[..., TokenFront], elsewhere: Nginx, name: str, tmp_path: Path
) -> None:
    signature = tmp_path / "signature"
    signature.mkdir()
    (signature / "a").touch()
    redirect = f"""
        set $s a;
        if (-f {signature}/b) {{ set $s b; }}
        if ($uri ~ /blobs/) {{ return 307 {elsewhere.url}blob?signature=$s; }}
    """
    before = front(redirect=redirect)
    write_docker_config(tmp_path / "auth", before.server.host_port)
    with closing(open_registry(before.url, tmp_path / "auth")) as source:
        check_reads(source, name, 20)
        asked = [r.status for r in before.server.requests() if "/blobs/" in r.path]
        assert asked == [401, 307]
        assert [r.status for r in elsewhere.requests()] == [206] * 20
        # What was signed does no longer count: the registry is asked again, once.
        (tmp_path / "elsewhere" / "signed-a").rename(tmp_path / "elsewhere" / "signed-b")
        (signature / "b").touch()
        before.server.forget()
        elsewhere.forget()
        check_reads(source, name, 5)
        assert [r.status for r in before.server.requests()] == [307]
        assert [r.status for r in elsewhere.requests()] == [403] + [206] * 5


def test_where_a_redirect_leads_may_break(name: str) -> None:
    """Then the registry is asked again, and knows of another place."""
    good = partial(DATA, 0, 10)
    cut = ("request", good, "request", good[:-3], "close")
    with ScriptedServer(cut) as first, ScriptedServer(("request", good) * 9) as second:
        places = [response("302 There", location=f"{s.url}/blob") for s in (first, second)]
        with ScriptedServer(("request", places[0], "request", places[1])) as server:
            url = f"docker://127.0.0.1:{server.port}/{REPOSITORY}"
            with closing(open_registry(url)) as source:
                for _ in range(5):
                    assert source.fetch(name, 0, 10) == DATA[:10]
            assert len(server.requests) == 2
        assert (len(first.requests), len(second.requests)) == (2, 4)


def test_where_a_redirect_leads_may_fall_silent(name: str) -> None:
    """It may not take all the time there is: the registry knows another address."""
    good = response("206 Partial", DATA[:10], content_range=f"bytes 0-9/{len(DATA)}")
    with (
        ScriptedServer(("request", good, "close"), ("request", 30.0)) as first,
        ScriptedServer(("request", good)) as second,
    ):
        places = [response("307 There", location=f"{at.url}/blob") for at in (first, second)]
        with ScriptedServer(*(("request", place) for place in places)) as server:
            url = f"docker://127.0.0.1:{server.port}/{REPOSITORY}"
            with closing(open_registry(url)) as source:
                assert source.fetch(name, 0, 10) == DATA[:10]
                # By one try: as one of several mirrors it gets no other.
                assert source.fetch_once(name, 0, 10, None, 4.0, 4.0) == DATA[:10]
    assert (len(first.requests), len(second.requests)) == (2, 1)


def test_who_is_refused_where_the_registry_sends_to_is_told(
    front: Callable[..., TokenFront], elsewhere: Nginx, name: str
) -> None:
    before = front(
        wants_password=False,
        redirect=f"if ($uri ~ /blobs/) {{ return 302 {elsewhere.url}blob?signature=x; }}",
    )
    with closing(open_registry(before.url)) as source:
        assert "403; the server refuses access" in denied(source, name)


def test_redirects_without_end(front: Callable[..., TokenFront], name: str) -> None:
    before = front(wants_password=False, redirect="if ($uri ~ /blobs/) { return 302 $uri; }")
    with (
        closing(open_registry(before.url)) as source,
        pytest.raises(RemoteProtocolError, match="more than 5 redirects"),
    ):
        source.fetch(name, 0, 10)


def test_a_registry_that_gives_the_whole_blob(name: str) -> None:
    whole = response("200 OK", DATA)
    with (
        ScriptedServer(("request", whole)) as server,
        closing(open_registry(f"docker://127.0.0.1:{server.port}/{REPOSITORY}")) as source,
        pytest.raises(RemoteProtocolError, match="needs a server with range requests"),
    ):
        source.fetch(name, 10, 10)


@pytest.mark.parametrize("kind", ["basic", "token"])
def test_a_line_of_the_file_http_says_who_asks_the_registry(
    tmp_path: Path, front: Callable[..., TokenFront], name: str, kind: str
) -> None:
    """It goes before config.json, and is read again when it is refused."""
    auth = tmp_path / "auth"
    with ExitStack() as stack:
        if kind == "basic":
            registry = stack.enter_context(basic_registry(tmp_path))
            host, wanted = registry.host_port, pack_name(bytes(32))
        else:
            host, wanted = front().server.host_port, name
        write_docker_config(auth, host, WRONG)
        lines = auth / "http"
        lines.write_text(f"http://{host} basic {USER}:{WRONG}\n")
        with closing(open_registry(f"docker://{host}/{REPOSITORY}", auth)) as source:
            refused = denied(source, wanted)
            assert f"the server refuses the credentials of {lines}, line 1" in refused
            right = f"basic {USER}:{PASSWORD}" if kind == "basic" else "bearer first"
            lines.write_text(f"# new\nhttp://{host} {right}\n")
            if kind == "token":
                check_reads(source, wanted)
                return
            with pytest.raises(PackNotFound):
                source.fetch(wanted, 0, 10)


def test_a_line_of_the_file_http_goes_to_its_origin_alone(name: str, tmp_path: Path) -> None:
    """A header too; and what config.json has is not sent where another Authorization is."""
    good = response("206 Partial", DATA[:10], content_range=f"bytes 0-9/{len(DATA)}")
    auth = tmp_path / "auth"
    with ScriptedServer(("request", good)) as other:
        redirect = response("307 There", location=f"{other.url}/blob")
        with ScriptedServer(("request", redirect)) as server:
            write_docker_config(auth, f"127.0.0.1:{server.port}")
            (auth / "http").write_text(
                f"{server.url} bearer of-the-file\n{server.url} header X-Key: ours\n"
                f"{other.url} header X-Other: theirs\n"
            )
            url = f"docker://127.0.0.1:{server.port}/{REPOSITORY}"
            with closing(open_registry(url, auth)) as source:
                assert source.fetch(name, 0, 10) == DATA[:10]
            (first,), (second,) = server.requests, other.requests
    assert b"\r\nAuthorization: Bearer of-the-file\r\nX-Key: ours\r\n" in first
    assert first.count(b"Authorization") == 1
    assert b"X-Key" not in second and b"Authorization" not in second
    assert b"\r\nX-Other: theirs\r\n" in second


def test_a_line_of_the_file_http_is_for_the_token_server_too(name: str, tmp_path: Path) -> None:
    """Which may be another origin than the registry."""
    auth = tmp_path / "auth"
    auth.mkdir()
    token = response("200 OK", b'{"token": "given"}')
    good = response("206 Partial", DATA[:10], content_range=f"bytes 0-9/{len(DATA)}")
    with ScriptedServer(("request", token)) as tokens:
        asks = response("401 Who", www_authenticate=f'Bearer realm="{tokens.url}/t"')
        with ScriptedServer(("request", asks), ("request", good)) as server:
            (auth / "http").write_text(f"{tokens.url} basic me:mine\n")
            url = f"docker://127.0.0.1:{server.port}/{REPOSITORY}"
            with closing(open_registry(url, auth)) as source:
                assert source.fetch(name, 0, 10) == DATA[:10]
            assert b"\r\nAuthorization: Bearer given\r\n" in server.requests[1]
            (asked,) = tokens.requests
    assert b"\r\nAuthorization: Basic " in asked


def test_a_403_is_not_asked_again(name: str, tmp_path: Path) -> None:
    refusal = response("403 Forbidden", b"no")
    with ScriptedServer(("request", refusal) * 9) as server:
        write_docker_config(tmp_path / "auth", "elsewhere")
        url = f"docker://127.0.0.1:{server.port}/{REPOSITORY}"
        with closing(open_registry(url, tmp_path / "auth")) as source:
            assert "403, the registry refuses" in denied(source, name)
            assert len(server.requests) == 1


def test_a_token_in_pieces(name: str) -> None:
    """As a server sends it that does not know yet how long it will be."""
    pieces = b'5\r\n{"tok\r\n' + b'C;x=y\r\nen": "abcd"}\r\n' + b"0\r\n\r\n"
    token = response(body=pieces, status="200 OK", content_length=None, transfer_encoding="chunked")
    with ScriptedServer(("request", token)) as tokens:
        realm = f'Bearer realm="http://127.0.0.1:{tokens.port}/give?me=one"'
        refusal = response("401 Who", b"", www_authenticate=realm)
        good = response("206 Partial", DATA[:10], content_range=f"bytes 0-9/{len(DATA)}")
        with ScriptedServer(("request", refusal, "request", good)) as server:
            url = f"docker://127.0.0.1:{server.port}/{REPOSITORY}"
            with closing(open_registry(url)) as source:
                assert source.fetch(name, 0, 10) == DATA[:10]
            assert b"\r\nAuthorization: Bearer abcd\r\n" in server.requests[1]
        (asked,) = tokens.requests
        assert asked.startswith(b"GET /give?me=one&scope=repository%3Asome%2Fwhere%3Apull HTTP/1.1")


@pytest.mark.parametrize(
    "url",
    [
        *(
            "docker://",
            "docker://host.x/",
            "docker://host/",
            "docker:///name",
            "docker://host/a:tag",
        ),
        *(
            "docker://host/a@sha256:00",
            "docker://host/Upper",
            "docker://u@host/a",
            "docker://h/a//b",
        ),
        *("docker://host:99999/a", "docker://host/a//", "docker://host.x/a..b"),
    ],
)
def test_what_is_no_repository_is_refused(url: str) -> None:
    with pytest.raises(BootfsError, match="give docker://HOST/REPOSITORY"):
        open_source(url, 1)


def test_registries_are_mirrors_of_one_another(registry: Registry, name: str) -> None:
    with Registry() as second:
        push_blob(second, DATA, "another")
        urls = [
            f"docker://{second.host_port}/another",
            f"docker://{registry.host_port}/{REPOSITORY}",
        ]
        logged: list[str] = []
        with closing(open_source("|".join(urls), LIMIT_S, log=logged.append)) as source:
            assert source.fetch(name, 0, 100) == DATA[:100]
            assert logged == []
            second.stop()
            for offset in range(0, 1000, 100):
                assert source.fetch(name, offset, 100) == DATA[offset : offset + 100]
        (line,) = logged
        assert urls[0] in line


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


def open_over_tls(authority: Authority, server: ScriptedServer, auth: Path) -> RegistrySource:
    url = f"docker+https://127.0.0.1:{server.port}/{REPOSITORY}"
    source = open_source(url, LIMIT_S, str(authority.certificate), auth=str(auth))
    assert isinstance(source, RegistrySource)
    return source


def test_over_tls(authority: Authority, name: str, tmp_path: Path) -> None:
    good = response("206 Partial", DATA[:10], content_range=f"bytes 0-9/{len(DATA)}")
    with (
        ScriptedServer(("request", good), context=authority.issue("IP:127.0.0.1")) as server,
        closing(open_over_tls(authority, server, tmp_path)) as source,
    ):
        assert source.fetch(name, 0, 10) == DATA[:10]


def test_an_authority_of_the_user_s_own(authority: Authority, name: str, tmp_path: Path) -> None:
    good = response("206 Partial", DATA[:10], content_range=f"bytes 0-9/{len(DATA)}")
    auth = tmp_path / "auth"
    auth.mkdir()
    with ScriptedServer(("request", good), context=authority.issue("IP:127.0.0.1")) as server:
        url = f"docker+https://127.0.0.1:{server.port}/{REPOSITORY}"
        with closing(open_registry(url, auth)) as source, pytest.raises(RemoteProtocolError):
            source.fetch(name, 0, 10)
    (auth / "ca.crt").write_text(authority.certificate.read_text())
    with ScriptedServer(("request", good), context=authority.issue("IP:127.0.0.1")) as server:
        url = f"docker+https://127.0.0.1:{server.port}/{REPOSITORY}"
        with closing(open_registry(url, auth)) as source:
            assert source.fetch(name, 0, 10) == DATA[:10]


@pytest.mark.parametrize("kind", ["basic", "token"])
def test_by_a_proxy_that_wants_to_know_who_asks(
    tmp_path: Path, front: Callable[..., TokenFront], name: str, kind: str
) -> None:
    require("tinyproxy")
    auth = tmp_path / "auth"
    with ExitStack() as stack:
        if kind == "basic":
            registry = stack.enter_context(basic_registry(tmp_path))
            host, wanted = registry.host_port, pack_name(bytes(32))
        else:
            host, wanted = front().server.host_port, name
        write_docker_config(auth, host)
        proxy = stack.enter_context(ProxyServer())
        (auth / "http").write_text(f"* proxy {proxy.credentials_url}\n")
        with closing(open_registry(f"docker+http://{host}/{REPOSITORY}", auth)) as source:
            if kind == "basic":
                # Who is let in is told that it is not there.
                with pytest.raises(PackNotFound):
                    source.fetch(wanted, 0, 10)
            else:
                check_reads(source, wanted)
        assert f"http://{host}/v2/{REPOSITORY}/blobs/sha256:" in proxy.log()
        (auth / "http").write_text(
            f"* proxy http://reader:{WRONG.split(maxsplit=1)[0]}@{proxy.host_port}\n"
        )
        with closing(open_registry(f"docker+http://{host}/{REPOSITORY}", auth)) as source:
            denied(source, wanted)


def test_a_proxy_s_refusal_names_where_the_proxy_is_named(tmp_path: Path, name: str) -> None:
    auth = tmp_path / "auth"
    auth.mkdir()
    with ScriptedServer(("request", response("407 Who are you"))) as proxy:
        (auth / "http").write_text(f"* proxy {proxy.url}\n")
        url = f"docker+http://h.example/{REPOSITORY}"
        with closing(open_registry(url, auth)) as source:
            assert f"407; the proxy named in {auth}/http" in denied(source, name)


@pytest.mark.parametrize("place", ["token server", "redirect"])
def test_nothing_is_asked_without_tls_where_the_registry_has_it(
    authority: Authority, name: str, tmp_path: Path, place: str
) -> None:
    """Neither the password for a token, nor a signed address, goes over the net in the open."""
    with ScriptedServer(("request", response("200 OK", b'{"token": "x"}'))) as plain:
        if place == "redirect":
            answer = response("307 Elsewhere", location=f"{plain.url}/blob?signature=secret")
            expected = "redirected from https"
        else:
            realm = f'Bearer realm="{plain.url}/token"'
            answer = response("401 Who", www_authenticate=realm)
            expected = "token server that cannot be asked"
        context = authority.issue("IP:127.0.0.1")
        with ScriptedServer(("request", answer), context=context) as server:
            write_docker_config(tmp_path / "auth", f"127.0.0.1:{server.port}")
            with (
                closing(open_over_tls(authority, server, tmp_path / "auth")) as source,
                pytest.raises(RemoteProtocolError, match=expected) as caught,
            ):
                source.fetch(name, 0, 10)
        assert "secret" not in str(caught.value)
        assert plain.connections == 0
