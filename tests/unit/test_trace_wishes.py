"""What `bootfs trace` is told: conditions, and options of docker run."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from converter.conditions import Condition, parse_condition
from converter.runoptions import parse_run_options
from converter.tracing import check_uploads
from store.errors import AccessDenied, ImageNotFound, NotFound, UsageError
from store.format.names import manifest_name
from store.write.backends.directory import DirectoryBackend


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("exit", Condition("exit")),
        ("log:listening on: 80", Condition("log", "listening on: 80")),
        ("port:5432", Condition("port", port=5432)),
        ("http:/ready", Condition("http", "/ready", 80)),
        ("http::8080/a?b=c", Condition("http", "/a?b=c", 8080)),
        ("http:8080/", Condition("http", "/", 8080)),
        ("2.5", Condition("seconds", seconds=2.5)),
    ],
)
def test_conditions_are_read(text: str, condition: Condition) -> None:
    assert parse_condition(text) == condition


@pytest.mark.parametrize(
    "text",
    ["", "log:", "log", "port:", "port:0", "port:65536", "port:x", "http:", "http:ready",
     "http:/a b", "http::0/", "-1", "1e3", "nan", "exit:0", "ready"],
)  # fmt: skip
def test_what_is_no_condition_is_refused_with_all_that_are(text: str) -> None:
    with pytest.raises(UsageError, match="log:TEXT, port:N, http:/PATH"):
        parse_condition(text)


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/ready" else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def port() -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_ports_and_urls_are_asked_for(port: int) -> None:
    assert Condition("port", port=port).is_answered("127.0.0.1")
    assert Condition("http", "/ready", port).is_answered("127.0.0.1")
    assert not Condition("http", "/", port).is_answered("127.0.0.1")


def test_who_does_not_answer_is_not_ready(port: int) -> None:
    assert not Condition("port", port=1).is_answered("127.0.0.1")
    assert not Condition("http", "/ready", 1).is_answered("127.0.0.1")


def test_options_of_docker_run_become_those_of_the_api(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = tmp_path / "variables"
    variables.write_text("# none\nA=from file\nB=2\n")
    monkeypatch.setenv("TAKEN", "over")
    options = parse_run_options(
        [
            f"--env-file {variables}", "-e 'A=x y' --env TAKEN", "-e", "GONE=", "-v",
            "/data:/data:ro", "--network=host", "-u 1:2", "--tmpfs /t:size=1m", "--read-only",
            "--add-host db:10.0.0.1", "--cap-add NET_ADMIN --memory 1g",
        ]
    )  # fmt: skip
    assert options.environment == {"A": "x y", "B": "2", "TAKEN": "over", "GONE": ""}
    assert options.container == {"user": "1:2"}
    assert options.host == {
        "binds": ["/data:/data:ro"],
        "network_mode": "host",
        "tmpfs": {"/t": "size=1m"},
        "read_only": True,
        "extra_hosts": {"db": "10.0.0.1"},
        "cap_add": ["NET_ADMIN"],
        "mem_limit": "1g",
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--gpus all"], "--add-host .*--volume"),
        (["-e"], "expected one argument"),
        (["image"], "unrecognized"),
        (["'unclosed"], "No closing quotation"),
        (["-v data"], "give HOST:/PATH"),
        (["-v cache:/.bootfs/cache/"], "a cache of its own"),
    ],
)
def test_options_that_there_are_not_are_refused(given: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_run_options(given)


def test_a_file_of_variables_that_is_not_there_is_named() -> None:
    with pytest.raises(NotFound, match="/gone: No such file"):
        parse_run_options(["--env-file /gone"])


class Refusing(DirectoryBackend):
    """A store that may be read and not be written."""

    def write(self, name: str, pieces: Iterator[bytes]) -> None:
        raise AccessDenied(f"{self.location}/{name}: not for this user")


def test_a_store_that_refuses_uploads_is_known_before_any_run(tmp_path: Path) -> None:
    image = bytes(32)
    backend = DirectoryBackend(str(tmp_path / "store"))
    with pytest.raises(NotFound, match="no bootfs store"):
        check_uploads(backend, image)
    backend.create()
    with pytest.raises(ImageNotFound, match="no image blake3:0000"):
        check_uploads(backend, image)
    backend.write(manifest_name(image), iter((b"a manifest",)))
    check_uploads(backend, image)
    assert list(backend.iter_names("hot/")) == []
    refusing = Refusing(str(tmp_path / "store"))
    with pytest.raises(AccessDenied, match="hot/"):
        check_uploads(refusing, image)
