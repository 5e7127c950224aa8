"""What the other system tests stand on: servers that count, an engine that is left clean."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import require as requirements
from tests.support.engine import Engine, docker
from tests.support.servers import Nginx, Registry

pytestmark = pytest.mark.system


def test_nginx_serves_ranges_and_counts_what_it_sent(
    tmp_path: Path, serve: Callable[..., Nginx]
) -> None:
    (tmp_path / "pack").write_bytes(bytes(range(200)))
    server = serve(tmp_path)
    wanted = urllib.request.Request(f"{server.url}pack", headers={"Range": "bytes=10-19"})
    with urllib.request.urlopen(wanted) as answer:
        assert answer.status == 206
        assert answer.read() == bytes(range(10, 20))
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{server.url}nothing")
    refused.value.close()
    first, second = server.requests()
    assert (first.method, first.path, first.status, first.size) == ("GET", "/pack", 206, 10)
    assert first.range == "bytes=10-19"
    assert second.status == 404
    server.forget()
    assert server.requests() == []
    assert server.sent() == 0


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    requirements.require("nginx")
    with pytest.raises(RuntimeError, match="unknown directive"):
        Nginx(tmp_path, extra="nonsense on;")


def test_the_engine_pushes_to_the_registry_and_pulls_from_it(
    registry: Registry, engine: Engine, base_image: str
) -> None:
    reference = engine.image_name()
    remote = f"{registry.host_port}/{reference}"
    docker("tag", base_image, remote)
    docker("push", remote)
    docker("rmi", remote)
    docker("pull", remote)
    assert engine.run(remote, "echo", "here").stdout == "here\n"
    docker("rmi", remote)


def test_nothing_is_left_on_the_engine(base_image: str) -> None:
    engine = Engine()
    try:
        image = engine.build(f"FROM {base_image}\nCMD echo READY; sleep 60\n")
        volume = engine.volume()
        container = engine.start(image, options=["-v", f"{volume}:/mnt", "-v", "/anonymous"])
        assert container.wait_for_line("READY") == "READY"
        assert container.run("stat", "-c", "%F", "/mnt").stdout == "directory\n"
        assert engine.run(image, "sh", "-c", "exit 7").returncode == 7
    finally:
        engine.close()
    for listing in (
        ["ps", "-aq", "--filter", f"name={engine.prefix}"],
        ["images", "-q", f"{engine.prefix}*"],
        ["volume", "ls", "-q", "--filter", f"name={engine.prefix}"],
    ):
        assert docker(*listing).stdout == ""


def test_a_promise_turns_a_skip_into_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(requirements.PROBES, "unicorn", lambda: "no unicorn grazes here")
    for promise in ("", "docker", "all,-unicorn"):
        monkeypatch.setenv("BOOTFS_REQUIRE", promise)
        with pytest.raises(pytest.skip.Exception, match="requires unicorn: no unicorn grazes"):
            requirements.require("unicorn")
    for promise in ("fuse, unicorn", "all"):
        monkeypatch.setenv("BOOTFS_REQUIRE", promise)
        with pytest.raises(pytest.fail.Exception, match="promises unicorn"):
            requirements.require("unicorn")
