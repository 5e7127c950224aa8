"""HTTPS with an authority made here: its certificates pass, all others are refused at once."""

import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from boot.config import AUTHORITIES, HOME
from converter.runtime.contents import CERTIFICATES, RUNTIME
from store.errors import RemoteProtocolError, TimedOut
from store.read.remote import HttpSource
from tests.support.runtime import Bundle
from tests.support.scripted import ScriptedServer, partial

DATA = bytes(range(256))
SCRIPT = ("request", partial(DATA, 0, 10)) * 2


def openssl(directory: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("authority")
    openssl(
        directory,
        *[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "30",
        ],
        *("-subj", "/CN=bootfs test authority", "-keyout", "ca.key", "-out", "ca.crt"),
    )
    return directory


@pytest.fixture(scope="module")
def issue(authority: Path) -> Callable[[str], ssl.SSLContext]:
    """Give a function that issues a certificate for names (``DNS:…``, ``IP:…``)."""

    def make(names: str) -> ssl.SSLContext:
        openssl(
            authority,
            *[
                "req",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-subj",
                "/CN=server",
            ],
            *("-keyout", "server.key", "-out", "server.csr"),
        )
        (authority / "names").write_text(f"subjectAltName={names}\n")
        openssl(
            authority,
            *[
                "x509",
                "-req",
                "-in",
                "server.csr",
                "-CA",
                "ca.crt",
                "-CAkey",
                "ca.key",
                "-CAcreateserial",
                "-days",
                "30",
            ],
            *("-extfile", "names", "-out", "server.crt"),
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority / "server.crt", authority / "server.key")
        return context

    return make


def test_a_certificate_of_the_authority_passes(
    authority: Path, issue: Callable[[str], ssl.SSLContext]
) -> None:
    with ScriptedServer(SCRIPT, context=issue("IP:127.0.0.1")) as server:
        source = HttpSource(server.url, 5, str(authority / "ca.crt"))
        source.dial()
        assert source.fetch("name", 0, 10) == DATA[:10]
        assert source.fetch("name", 0, 10) == DATA[:10]
        assert server.connections == 1
        source.close()


@pytest.mark.parametrize("names", ["DNS:elsewhere.example", "IP:127.0.0.2"])
def test_a_certificate_for_another_name_is_refused_at_once(
    authority: Path, issue: Callable[[str], ssl.SSLContext], names: str
) -> None:
    with ScriptedServer(SCRIPT, context=issue(names)) as server:
        source = HttpSource(server.url, 30, str(authority / "ca.crt"))
        source.dial()
        started = time.monotonic()
        with pytest.raises(RemoteProtocolError, match="certificate"):
            source.fetch("name", 0, 10)
        assert time.monotonic() - started < 5
        assert not server.requests


def test_a_certificate_of_nobody_we_trust_is_refused(
    issue: Callable[[str], ssl.SSLContext],
) -> None:
    with ScriptedServer(SCRIPT, context=issue("IP:127.0.0.1")) as server:
        with pytest.raises(RemoteProtocolError, match="certificate"):
            HttpSource(server.url, 5).fetch("name", 0, 10)
        assert not server.requests


def test_a_server_without_tls_is_an_error_in_time(authority: Path) -> None:
    with ScriptedServer((b"HTTP/1.1 400 Bad\r\n\r\n", 1.0)) as server:
        url = server.url.replace("http:", "https:")
        with pytest.raises(TimedOut, match="TLS"):
            HttpSource(url, 0.3, str(authority / "ca.crt")).fetch("name", 0, 10)


def test_a_server_silent_in_the_handshake_is_an_error_in_time(authority: Path) -> None:
    with ScriptedServer((30.0,)) as server:
        url = server.url.replace("http:", "https:")
        started = time.monotonic()
        with pytest.raises(TimedOut):
            HttpSource(url, 0.5, str(authority / "ca.crt")).fetch("name", 0, 10)
        assert time.monotonic() - started < 3


def test_a_missing_bundle_is_named(tmp_path: Path) -> None:
    with ScriptedServer((30.0,)) as server:
        url = server.url.replace("http:", "https:")
        with pytest.raises(TimedOut, match="No such file"):
            HttpSource(url, 0.3, str(tmp_path / "none")).fetch("name", 0, 10)


def test_plain_http_pays_nothing_for_tls() -> None:
    code = "import sys, store.read.remote; print('ssl' in sys.modules, 'socket' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"


def test_the_runtime_of_boot_images_speaks_it(
    authority: Path, issue: Callable[[str], ssl.SSLContext], tmp_path: Path
) -> None:
    bundle = Bundle(tmp_path)
    with ScriptedServer(SCRIPT, context=issue("IP:127.0.0.1")) as server:
        fetch = (
            "from store.read.remote import HttpSource\n"
            "print(HttpSource({!r}, 5, {!r}).fetch('name', 0, 10))"
        )
        shown = bundle.run(fetch.format(server.url, str(authority / "ca.crt")))
        assert shown == f"{DATA[:10]!r}\n"
    count = "import ssl; print(len(ssl.create_default_context(cafile={!r}).get_ca_certs()))"
    assert int(bundle.run(count.format(str(bundle.runtime / CERTIFICATES)))) > 100


def test_the_boot_trusts_the_bundle_of_the_runtime() -> None:
    assert f"{HOME}/{RUNTIME}/{CERTIFICATES}" == AUTHORITIES
