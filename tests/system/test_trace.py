"""`bootfs trace` runs a boot image on the engine, and keeps what it read until it was ready."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from converter.cli import main
from tests.support.engine import docker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.engine import Engine

pytestmark = pytest.mark.system

SERVER = """\
use IO::Socket::INET;
sleep 1;
my $listening = IO::Socket::INET->new(LocalPort => 8080, Listen => 5, ReuseAddr => 1) or die;
while (my $client = $listening->accept) {
  my $line = <$client> // "";
  my $status = $line =~ m{^GET /ready } ? "200 OK" : "404 No";
  print $client "HTTP/1.0 $status\\r\\n\\r\\n";
  close $client;
}
"""
DOCKERFILE = """\
FROM debian:bookworm-slim
COPY server.pl /server.pl
CMD ["perl", "-e", "$|=1; print qq(up\\n); sleep 600", "x"]
"""


@dataclass(frozen=True)
class Traced:
    boot: str
    store: Path
    errors: pytest.CaptureFixture[str]

    def run(self, *words: str, store: str | None = None) -> tuple[int, str, str]:
        """Return exit status, output and errors of a trace."""
        self.errors.readouterr()
        wish = ("--store", store or str(self.store), "--timeout", "120")
        code = main(["trace", self.boot, *wish, *words])
        found = self.errors.readouterr()
        assert docker("ps", "-aq", "--filter", f"ancestor={self.boot}").stdout == ""
        return code, found.out, found.err

    def facts(self, *words: str) -> dict[str, object]:
        """Return what a trace that is done says."""
        code, out, err = self.run("--json", *words)
        assert (code, err) == (0, "")
        (found,) = json.loads(out)
        return dict(found)

    def profiles(self) -> list[dict[str, object]]:
        """Return the profiles of the store."""
        assert main(["profile", "list", self.boot, "--store", str(self.store), "--json"]) == 0
        return list(json.loads(self.errors.readouterr().out))


@pytest.fixture(scope="module")
def image(engine_of_module: Engine, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Give a boot image, and its store, which has a first profile of it."""
    context = tmp_path_factory.mktemp("context")
    (context / "server.pl").write_text(SERVER)
    source = engine_of_module.build(DOCKERFILE, context)
    boot = engine_of_module.image_name()
    store = tmp_path_factory.mktemp("store")
    assert main(["convert", source, boot, "--store", str(store)]) == 0
    return boot, store


@pytest.fixture(scope="module")
def engine_of_module() -> Iterator[Engine]:
    from tests.support.engine import Engine

    engine = Engine()
    yield engine
    engine.close()


@pytest.fixture
def traced(image: tuple[str, Path], capsys: pytest.CaptureFixture[str]) -> Traced:
    return Traced(*image, capsys)


def test_a_converted_image_has_a_profile_that_a_trace_takes_the_place_of(traced: Traced) -> None:
    (first,) = traced.profiles()
    assert (first["name"], first["origin"], first["traces"]) == ("default", "analysis", 0)
    found = traced.facts("--until", "log:up")
    (now,) = traced.profiles()
    assert (now["name"], now["origin"], now["traces"]) == ("default", "trace", 1)
    assert (
        found["command"] == now["command"] == ["perl", "-e", "$|=1; print qq(up\n); sleep 600", "x"]
    )
    assert found["hot_pack"] == now["hot_pack"]
    assert 0 < int(str(now["hot_pack"])) < int(str(now["plain"]))
    assert int(str(found["files"])) > 3


def test_a_workload_is_traced_to_its_end_and_runs_are_merged(traced: Traced) -> None:
    found = traced.facts("--name", "version", "--runs", "2", "--", "dpkg", "--version")
    assert (found["name"], found["traces"]) == ("version", 2)
    assert len(found["ready_s"]) == 2  # type: ignore[arg-type]  # JSON has no types
    assert found["command"] == ["dpkg", "--version"]
    # Taken from the containers, not sent to the store: it would be taken twice.
    assert not (traced.store / "traces").exists()


def test_an_image_for_another_platform_than_is_asked_for_is_refused(traced: Traced) -> None:
    code, _, err = traced.run("--platform", "linux/arm64")
    assert code == 10 and "the image is for linux/amd64, not for linux/arm64" in err


@pytest.mark.parametrize("until", ["port:8080", "http::8080/ready", "2"])
def test_a_server_is_traced_until_it_answers(traced: Traced, until: str) -> None:
    found = traced.facts("--name", "server", "--replace", "--until", until, "--", "perl",
                         "/server.pl")  # fmt: skip
    assert found["ready_s"][0] > 1  # type: ignore[index]  # JSON has no types


def test_what_is_never_ready_is_given_up(traced: Traced) -> None:
    code, out, err = traced.run(
        "--name", "never", "--until", "http::8080/gone", "--timeout", "4", "--",
        "sh", "-c", "echo starting; exec perl /server.pl",
    )  # fmt: skip
    assert (code, out) == (14, "")
    assert "not ready (http::8080/gone) in 4 s" in err
    assert "  starting" in err
    assert "never" not in [one["name"] for one in traced.profiles()]


def test_what_ends_before_it_is_ready_is_refused(traced: Traced) -> None:
    code, _, err = traced.run("--until", "log:ready", "--", "echo", "bye")
    assert code == 1
    assert "ended, with exit status 0, before it was ready (log:ready)" in err
    assert "  bye" in err


def test_what_fails_is_refused_unless_that_is_allowed(traced: Traced) -> None:
    command = ("--", "sh", "-c", "echo broken >&2; exit 3")
    code, _, err = traced.run("--name", "failing", *command)
    assert code == 1
    assert "failed with exit status 3" in err
    assert "  broken" in err
    assert traced.facts("--name", "failing", "--allow-failure", *command)["name"] == "failing"


def test_output_at_the_very_end_counts(traced: Traced) -> None:
    assert traced.facts("--name", "last", "--until", "log:last word", "--", "echo", "last word")


def test_options_reach_the_container(traced: Traced) -> None:
    words = ("--option=-e WORD=given -u 65534", "--until", "log:given 65534")
    assert traced.facts("--name", "options", *words, "--", "sh", "-c", "echo $WORD $(id -u)")


def test_an_engine_that_refuses_is_quoted(traced: Traced) -> None:
    code, _, err = traced.run("--option=--runtime no-such-runtime", "--", "true")
    assert code == 14
    assert "no-such-runtime" in err


def test_a_store_is_asked_before_anything_runs(traced: Traced, tmp_path: Path) -> None:
    code, _, err = traced.run("--until", "3600", store=str(tmp_path / "gone"))
    assert (code, "there is no bootfs store" in err) == (10, True)
    code, _, err = traced.run("--until", "3600", store="http://127.0.0.1:1/")
    assert (code, "a web server cannot be written to" in err) == (2, True)


def test_without_an_engine_nothing_is_traced(
    traced: Traced, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    assert main(["trace", traced.boot, "--store", str(traced.store)]) == 14
    assert "no Docker engine answers" in capsys.readouterr().err


def test_an_interrupted_trace_leaves_no_container(traced: Traced) -> None:
    command = [sys.executable, "-m", "converter.cli", "trace", traced.boot, "--store",
               str(traced.store), "--until", "log:never"]  # fmt: skip
    running = subprocess.Popen(
        command, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": "."}
    )
    deadline = time.monotonic() + 60
    while not docker("ps", "-q", "--filter", f"ancestor={traced.boot}").stdout:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert (running.returncode, b"interrupted" in errors) == (130, True)
    assert docker("ps", "-aq", "--filter", f"ancestor={traced.boot}").stdout == ""


def test_an_analysis_does_not_take_the_place_of_a_trace(traced: Traced) -> None:
    traced.facts("--name", "measured", "--", "true")
    traced.facts("--name", "default", "--until", "log:up")
    add = ["profile", "add", traced.boot, "--store", str(traced.store), "--analyze"]
    assert main([*add, "--name", "measured"]) == 2
    assert "was recorded" in traced.errors.readouterr().err
    assert main([*add, "--name", "reckoned"]) == 2  # of the command of `default`
    assert "profile 'default' was recorded" in traced.errors.readouterr().err
    assert main([*add, "--name", "reckoned", "--replace"]) == 0
    assert "told from the image" in traced.errors.readouterr().out
    origins = {one["name"]: one["origin"] for one in traced.profiles()}
    assert (origins["measured"], origins["reckoned"]) == ("trace", "analysis")
