"""Who may what at a registry: accounts, tokens, redirects, and what is said about them."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from store.errors import AccessDenied, RemoteProtocolError, UsageError
from store.write.registry import connecting, open_repository
from store.write.registry.accounts import Account, Accounts
from store.write.registry.client import Repository
from store.write.registry.endpoint import parse_endpoint
from store.write.registry.manifest import sha256_of
from store.write.registry.uploads import Held
from tests.support.certificates import Authority
from tests.support.relay import Relay
from tests.support.require import require
from tests.support.servers import Nginx, Registry
from tests.support.tokenserver import PASSWORD, USER, TokenServer, docker_config, htpasswd_auth

LIMIT_S = 10.0
DATA = os.urandom(100_000)
BLOB = sha256_of(DATA)
HOST = "registry.example:5000"


def opened(host_port: str, accounts: Accounts, name: str = "x") -> Repository:
    return open_repository(f"docker://{host_port}/{name}", accounts, LIMIT_S)


def push(repository: Repository) -> None:
    repository.push_blob(BLOB, Held(DATA))


@pytest.fixture
def basic(tmp_path: Path) -> Iterator[Registry]:
    require("registry")
    with Registry(extra=htpasswd_auth(tmp_path)) as server:
        yield server


# Accounts ---------------------------------------------------------------------------------


def test_without_an_account_the_files_that_were_looked_into_are_named(
    basic: Registry, tmp_path: Path
) -> None:
    accounts = Accounts([tmp_path / "one.json", tmp_path / "two.json"])
    with closing(opened(basic.host_port, accounts)) as repository:
        with pytest.raises(AccessDenied, match=r"one\.json, .*two\.json.*docker login") as denied:
            push(repository)
        assert denied.value.exit_code == 13


def test_with_a_wrong_password_its_file_is_named_and_not_the_password(
    basic: Registry, tmp_path: Path
) -> None:
    wrong = "another-password"
    config = docker_config(tmp_path / "config.json", basic.host_port, wrong)
    with closing(opened(basic.host_port, Accounts([config]))) as repository:
        with pytest.raises(AccessDenied, match=str(config)) as denied:
            push(repository)
        shown = repr(denied.value) + repr(denied.value.__cause__) + str(denied.value)
        assert wrong not in shown
        assert USER not in shown.replace(str(tmp_path), "")


def test_a_file_that_changed_is_read_again(basic: Registry, tmp_path: Path) -> None:
    config = docker_config(tmp_path / "config.json", basic.host_port, "expired")
    with closing(opened(basic.host_port, Accounts([config]))) as repository:
        with pytest.raises(AccessDenied):
            push(repository)
        docker_config(config, basic.host_port)
        push(repository)
        assert repository.blob_size(BLOB) == len(DATA)


def helper(directory: Path, name: str, script: str) -> None:
    program = directory / f"docker-credential-{name}"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


@pytest.mark.parametrize("key", ["credHelpers", "credsStore"])
def test_a_credential_helper_is_asked(
    basic: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    helper(
        tmp_path,
        "tests",
        f"""[ "$1" = get ] && [ "$(cat)" = {basic.host_port} ] || exit 1
        echo '{{"ServerURL": "x", "Username": "{USER}", "Secret": "{PASSWORD}"}}'""",
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    config = tmp_path / "config.json"
    named = {basic.host_port: "tests"} if key == "credHelpers" else "tests"
    config.write_text(json.dumps({key: named, "auths": {basic.host_port: {}}}))
    with closing(opened(basic.host_port, Accounts([config]))) as repository:
        push(repository)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo secret-thing; exit 3", "status 3"),
        ("echo secret-thing", "something else than credentials"),
        ('echo \'{"Username": "secret-thing"}\'', "something else than credentials"),
    ],
)
def test_a_helper_that_fails_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    helper(tmp_path, "tests", script)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"credsStore": "tests"}))
    with pytest.raises(AccessDenied, match=f"docker-credential-tests.*{said}") as denied:
        Accounts([config]).find(parse_endpoint(f"docker://{HOST}/x"))
    assert "secret-thing" not in f"{denied.value!r} {denied.value.__cause__!r}"


def test_a_helper_that_is_not_installed_or_has_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"credsStore": "absent-one"}))
    with pytest.raises(AccessDenied, match="docker-credential-absent-one"):
        Accounts([config]).find(parse_endpoint(f"docker://{HOST}/x"))
    config.write_text(json.dumps({"credsStore": "../evil"}))
    with pytest.raises(AccessDenied, match="not the name"):
        Accounts([config]).find(parse_endpoint(f"docker://{HOST}/x"))
    helper(tmp_path, "empty", "echo credentials not found in native keychain; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    config.write_text(json.dumps({"credsStore": "empty"}))
    assert Accounts([config]).find(parse_endpoint(f"docker://{HOST}/x")) is None


@pytest.mark.parametrize(
    ("url", "key"),
    [
        (f"docker://{HOST}/x", HOST),
        (f"docker://{HOST}/x", f"https://{HOST}"),
        (f"docker://{HOST}/x", f"https://{HOST}/v1/"),
        (f"docker://{HOST}/a/b/c", f"{HOST}/a/b"),
        ("docker://debian", "https://index.docker.io/v1/"),
        ("docker://debian", "docker.io"),
        ("docker://me/x", "docker.io/me"),
    ],
)
def test_keys_of_accounts(tmp_path: Path, url: str, key: str) -> None:
    config = docker_config(tmp_path / "config.json", key)
    found = Accounts([tmp_path / "none.json", config]).find(parse_endpoint(url))
    assert found == Account(str(config), USER, PASSWORD)
    docker_config(config, "other.example")
    assert Accounts([config]).find(parse_endpoint(url)) is None


def test_the_most_special_key_counts(tmp_path: Path) -> None:
    entries = {HOST: {"username": "a"}, f"{HOST}/x": {"username": "b"}}
    (tmp_path / "f").write_text(json.dumps({"auths": entries}))
    accounts = Accounts([tmp_path / "f"])
    for name, user in (("x", "b"), ("x/y", "b"), ("xy", "a")):
        found = accounts.find(parse_endpoint(f"docker://{HOST}/{name}"))
        assert found is not None
        assert found.username == user


def test_the_usual_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/h")
    assert Accounts.of_user().places() == "/h/.docker/config.json, /h/.config/containers/auth.json"
    monkeypatch.setenv("DOCKER_CONFIG", "/d")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/r")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/c")
    expected = "/d/config.json, /r/containers/auth.json, /c/containers/auth.json"
    assert Accounts.of_user().places() == expected
    monkeypatch.setenv("REGISTRY_AUTH_FILE", "/f")
    assert Accounts.of_user().places() == "/f"


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"auths": [1]}', json.dumps({"auths": {HOST: {"auth": "c2VjcmV0"}}}),
     json.dumps({"auths": {HOST: {"auth": "secret"}}})],
)  # fmt: skip
def test_damaged_files_are_named_and_not_shown(tmp_path: Path, text: str) -> None:
    (tmp_path / "f").write_text(text)
    with pytest.raises(AccessDenied, match=str(tmp_path / "f")) as denied:
        Accounts([tmp_path / "f"]).find(parse_endpoint(f"docker://{HOST}/x"))
    assert "secret" not in str(denied.value)
    assert denied.value.__cause__ is None


# Tokens -----------------------------------------------------------------------------------


def test_tokens_are_kept_by_what_they_allow(tmp_path: Path) -> None:
    require("registry")
    with TokenServer(tmp_path) as tokens, Registry(extra=tokens.auth) as server:
        accounts = Accounts([docker_config(tmp_path / "config.json", server.host_port)])
        with closing(opened(server.host_port, accounts)) as repository:
            push(repository)
            for _ in range(3):
                repository.fetch_range(BLOB, 0, 10)
        scopes = [granted.scopes for granted in tokens.granted]
        assert scopes == [["repository:x:pull"], ["repository:x:pull,push"]]
        assert {granted.user for granted in tokens.granted} == {USER}


def test_a_token_that_ends_is_renewed(tmp_path: Path) -> None:
    require("registry")
    with (
        TokenServer(tmp_path, life_s=2.0) as tokens,
        Registry(extra=tokens.auth) as server,
    ):
        accounts = Accounts([docker_config(tmp_path / "config.json", server.host_port)])
        with closing(opened(server.host_port, accounts)) as repository:
            push(repository)
            before = len(tokens.granted)
            # Nothing waits for it: by half of its life it is renewed before it is refused.
            while len(tokens.granted) == before:
                assert repository.fetch_range(BLOB, 0, 10) == DATA[:10]
        assert refusals(server) == 1


def refusals(server: Registry) -> int:
    """Count the requests of ours that the registry refused."""
    lines = server.output().splitlines()
    return sum('HTTP/1.1" 401' in line and '"bootfs"' in line for line in lines)


def test_a_token_that_is_refused_before_its_end_is_renewed(tmp_path: Path) -> None:
    """In the middle of a run: as when the registry's key changes, or clocks differ."""
    require("registry")
    first, second = tmp_path / "1", tmp_path / "2"
    first.mkdir()
    second.mkdir()
    with TokenServer(first) as old, TokenServer(second) as new:
        auth = old.auth.replace(str(old.certificate), str(tmp_path / "certificate"))
        (tmp_path / "certificate").write_bytes(old.certificate.read_bytes())
        root = tmp_path / "blobs"
        with Registry(root, extra=auth) as server:
            accounts = Accounts([docker_config(tmp_path / "config.json", server.host_port)])
            repository = opened(server.host_port, accounts)
            push(repository)
            port = server.port
        auth = auth.replace(old.url, new.url)
        (tmp_path / "certificate").write_bytes(new.certificate.read_bytes())
        with Registry(root, extra=auth, port=port), closing(repository):
            assert repository.fetch_range(BLOB, 0, 10) == DATA[:10]
            data = b"more"
            assert repository.push_blob(sha256_of(data), Held(data))
            assert new.granted


def test_what_may_not_be_taken_over_is_sent(tmp_path: Path) -> None:
    require("registry")
    with (
        TokenServer(tmp_path) as tokens,
        Registry(extra=tokens.auth) as server,
    ):
        accounts = Accounts([docker_config(tmp_path / "config.json", server.host_port)])
        with closing(opened(server.host_port, accounts, "theirs")) as repository:
            push(repository)
        tokens.closed = "theirs"
        with closing(opened(server.host_port, accounts, "ours")) as repository:
            assert not repository.mount_blob(BLOB, "theirs")
            assert repository.push_blob(BLOB, Held(DATA), mount_from="theirs")
            assert repository.blob_size(BLOB) == len(DATA)


def test_who_has_no_account_may_read_what_all_may(tmp_path: Path) -> None:
    require("registry")
    with (
        TokenServer(tmp_path, is_anonymous=True) as tokens,
        Registry(extra=tokens.auth) as server,
    ):
        config = docker_config(tmp_path / "config.json", server.host_port)
        with closing(opened(server.host_port, Accounts([config]))) as repository:
            push(repository)
        with closing(opened(server.host_port, Accounts([tmp_path / "none"]))) as repository:
            assert repository.fetch_range(BLOB, 0, 10) == DATA[:10]
            with pytest.raises(AccessDenied, match=r"no account for .*none"):
                repository.push_blob(sha256_of(b"x"), Held(b"x"))


def test_what_the_token_service_refuses(tmp_path: Path) -> None:
    require("registry")
    with TokenServer(tmp_path) as tokens, Registry(extra=tokens.auth) as server:
        config = docker_config(tmp_path / "config.json", server.host_port, "wrong-password")
        with closing(opened(server.host_port, Accounts([config]))) as repository:
            with pytest.raises(AccessDenied, match=f"token service.*{config}") as denied:
                push(repository)
            assert "wrong-password" not in repr(denied.value)
        assert tokens.refused == 1


def test_a_token_service_that_fails_is_asked_again(tmp_path: Path) -> None:
    require("registry")
    with (
        TokenServer(tmp_path, failures=2) as tokens,
        Registry(extra=tokens.auth) as server,
    ):
        config = docker_config(tmp_path / "config.json", server.host_port)
        with closing(opened(server.host_port, Accounts([config]))) as repository:
            repository.check()
        assert tokens.failures == 0


def test_an_identity_token_is_exchanged(tmp_path: Path) -> None:
    require("registry")
    with (
        TokenServer(tmp_path, refresh_token="refresh-token-of-tests") as tokens,
        Registry(extra=tokens.auth) as server,
    ):
        config = tmp_path / "config.json"
        entry = {"auth": "dXNlcjo=", "identitytoken": tokens.refresh_token}
        config.write_text(json.dumps({"auths": {server.host_port: entry}}))
        with closing(opened(server.host_port, Accounts([config]))) as repository:
            push(repository)
        assert {granted.method for granted in tokens.granted} == {"POST"}


def test_a_token_for_the_registry_itself(tmp_path: Path) -> None:
    require("registry")
    with TokenServer(tmp_path) as tokens, Registry(extra=tokens.auth) as server:
        config = tmp_path / "config.json"
        token = tokens.token(USER, ["repository:x:pull,push"])
        config.write_text(json.dumps({"auths": {server.host_port: {"registrytoken": token}}}))
        with closing(opened(server.host_port, Accounts([config]))) as repository:
            push(repository)
        assert tokens.granted == []


# Redirects and TLS ------------------------------------------------------------------------


def test_redirects_are_followed_and_take_no_credentials_along(tmp_path: Path) -> None:
    require("registry", "nginx")
    root = tmp_path / "blobs"
    root.mkdir()
    logged = tmp_path / "authorization.log"
    also_log = (
        "log_format seen '[$http_authorization$http_cookie]';"  # all that could be secret
        f"access_log {logged} seen;"
    )
    with Nginx(root, http=also_log) as cdn:
        middleware = (
            "middleware: { storage: [ { name: redirect, "
            f'options: {{ baseurl: "http://localhost:{cdn.port}/" }} }} ] }}\n'
        )
        auth = htpasswd_auth(tmp_path)
        with Registry(root, extra=auth + middleware) as server:
            accounts = Accounts([docker_config(tmp_path / "config.json", server.host_port)])
            with closing(opened(server.host_port, accounts)) as repository:
                push(repository)
                assert b"".join(repository.iter_blob(BLOB, len(DATA))) == DATA
                assert repository.fetch_range(BLOB, 5, 10) == DATA[5:15]
                assert repository.blob_size(BLOB) == len(DATA)
        cdn.settle()
        seen = logged.read_text().splitlines()
        assert len(seen) > 2
        assert set(seen) <= {"[-]", "[--]"}


def test_redirects_away_from_tls_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("nginx")
    authority = Authority(tmp_path / "ca")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    away = "location /v2/ { return 307 http://127.0.0.1:1/secret?signature=hidden; }"
    with (
        Nginx(tmp_path, extra=away) as server,
        Relay(("127.0.0.1", server.port), "127.0.0.1", authority.issue("IP:127.0.0.1")) as relay,
    ):
        url = f"docker+https://127.0.0.1:{relay.port}/x"
        with closing(open_repository(url, Accounts([]), LIMIT_S)) as repository:
            with pytest.raises(RemoteProtocolError, match="away from HTTPS") as refused:
                repository.fetch_range(BLOB, 0, 1)
            assert "hidden" not in str(refused.value)


def test_redirects_in_a_circle(tmp_path: Path) -> None:
    require("nginx")
    circle = "location /v2/ { return 307 $request_uri; }"
    with (
        Nginx(tmp_path, extra=circle) as server,
        closing(opened(server.host_port, Accounts([]))) as repository,
        pytest.raises(RemoteProtocolError, match="redirected"),
    ):
        repository.fetch_range(BLOB, 0, 1)


def test_an_authority_that_is_not_known(tmp_path: Path) -> None:
    require("registry")
    authority = Authority(tmp_path / "ca")
    with (
        Registry() as server,
        Relay(("127.0.0.1", server.port), "127.0.0.1", authority.issue("IP:127.0.0.1")) as relay,
    ):
        url = f"docker+https://127.0.0.1:{relay.port}/x"
        with (
            closing(open_repository(url, Accounts([]), LIMIT_S)) as repository,
            pytest.raises(RemoteProtocolError, match=r"certificate is refused.*ca\.crt"),
        ):
            repository.check()


def test_an_authority_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require("registry")
    authority = Authority(tmp_path / "ca")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    with (
        Registry() as server,
        Relay(("127.0.0.1", server.port), "127.0.0.1", authority.issue("IP:127.0.0.1")) as relay,
    ):
        url = f"docker+https://127.0.0.1:{relay.port}/x"
        with closing(open_repository(url, Accounts([]), LIMIT_S)) as repository:
            repository.check()


def test_authorities_for_one_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where docker has them; the directory is another here, for it is the machine's."""
    require("registry")
    monkeypatch.setattr(connecting, "CERTIFICATES", tmp_path)
    authority = Authority(tmp_path / "ca")
    with (
        Registry() as server,
        Relay(("127.0.0.1", server.port), "127.0.0.1", authority.issue("IP:127.0.0.1")) as relay,
    ):
        place = tmp_path / f"127.0.0.1:{relay.port}"
        place.mkdir()
        (place / "ca.crt").write_bytes(authority.certificate.read_bytes())
        url = f"docker+https://127.0.0.1:{relay.port}/x"
        with closing(open_repository(url, Accounts([]), LIMIT_S)) as repository:
            repository.check()
        (place / "ca.crt").write_text("no certificate")
        with pytest.raises(AccessDenied, match=r"ca\.crt"):
            open_repository(url, Accounts([]), LIMIT_S)


@pytest.mark.parametrize("proxy", ["socks9://user:hidden@h:1", "socks5://user:hidden@h:1"])
def test_a_proxy_that_cannot_be_used(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(UsageError, match="HTTPS_PROXY") as refused:
        open_repository("docker://registry.example/x", Accounts([]), LIMIT_S)
    assert "hidden" not in f"{refused.value!r} {refused.value.__cause__!r}"


def test_a_proxy_is_used_for_other_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("registry", "nginx")
    with Registry() as server:
        forward = f"location / {{ proxy_pass http://{server.host_port}; }}"
        with Nginx(tmp_path, extra=forward) as proxy:
            monkeypatch.setenv("HTTP_PROXY", proxy.url)
            url = "docker+http://registry.example/x"
            with closing(open_repository(url, Accounts([]), LIMIT_S)) as repository:
                repository.check()
            with closing(opened(server.host_port, Accounts([]))) as repository:
                repository.check()
            assert len(proxy.requests()) == 1


def test_passwords_do_not_go_to_a_token_service_without_tls(tmp_path: Path) -> None:
    require("registry")
    authority = Authority(tmp_path / "ca")
    with TokenServer(tmp_path) as tokens, Registry(extra=tokens.auth) as server:
        context = authority.issue("IP:127.0.0.1")
        with Relay(("127.0.0.1", server.port), "127.0.0.1", context) as relay:
            os.environ["SSL_CERT_FILE"] = str(authority.certificate)
            try:
                url = f"docker+https://127.0.0.1:{relay.port}/x"
                repository = open_repository(url, Accounts([]), LIMIT_S)
            finally:
                del os.environ["SSL_CERT_FILE"]
            with closing(repository), pytest.raises(AccessDenied, match="not HTTPS"):
                repository.check()
        assert tokens.refused == 0
