"""A server that was never there: commands say it soon, containers say it and go on trying."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from store.errors import NotReached, RemoteBusy, TimedOut
from store.format.names import pack_name
from store.read import retry
from store.read.source import open_source
from store.write.contact import Contact
from tests.support.layers import docker_archive, file, tar_of
from tests.support.require import require
from tests.support.scripted import ScriptedServer, response
from tests.support.servers import Nginx, free_port

Run = Callable[..., tuple[int, str, str]]
SOON_S = 15.0
"""About 5 s, on a machine that is busy with other things; it was a minute and more."""
NOWHERE = "no-such-host.invalid"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    yield


def quick(run: Run, *arguments: object) -> str:
    began = time.monotonic()
    status, out, err = run(*arguments)
    assert time.monotonic() - began < SOON_S
    assert (status, out) == (14, "") and err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    "url",
    [
        "docker://127.0.0.1:{port}/a",
        "docker+http://{name}/a",
        "s3://images/a?endpoint=http://127.0.0.1:{port}",
        "s3://images/a?endpoint=http://{name}",
        "ssh://127.0.0.1:{port}/a",
        "ssh://{name}/a",
    ],
)
def test_a_conversion_says_it_before_it_does_anything(run: Run, tmp_path: Path, url: str) -> None:
    if url.startswith("ssh"):
        require("sshd")
    (tmp_path / "a.tar").write_bytes(docker_archive(tar_of(file("a", b"x"))))
    store = url.format(port=free_port(), name=NOWHERE)
    image = f"oci:{tmp_path}/boot"
    err = quick(run, "convert", f"docker-archive:{tmp_path}/a.tar", image, "--store", store)
    assert "refused" in err or "Could not connect" in err or NOWHERE in err
    assert not (tmp_path / "boot").exists()


@pytest.mark.parametrize("what", ["source", "destination"])
def test_so_it_does_of_the_images(run: Run, tmp_path: Path, what: str) -> None:
    (tmp_path / "a.tar").write_bytes(docker_archive(tar_of(file("a", b"x"))))
    here, there = f"docker-archive:{tmp_path}/a.tar", f"docker://127.0.0.1:{free_port()}/a:1"
    images = (there, f"oci:{tmp_path}/boot") if what == "source" else (here, there)
    assert "refused" in quick(run, "convert", *images, "--store", tmp_path / "store")


@pytest.mark.parametrize("kind", ["http", "docker"])
def test_so_does_a_command_that_reads(run: Run, tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.tar").write_bytes(docker_archive(tar_of(file("a", b"x"))))
    archive, boot = f"docker-archive:{tmp_path}/a.tar", f"oci:{tmp_path}/boot"
    assert run("convert", archive, boot, "--store", tmp_path / "store")[0] == 0
    store = f"{kind}://127.0.0.1:{free_port()}/a"
    assert "refused" in quick(run, "export", boot, f"oci:{tmp_path}/back", "--store", store)


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("docker+https://127.0.0.1:{port}/a", "docker+http://"),
        ("s3://images/a?endpoint=https://127.0.0.1:{port}", "endpoint=http://"),
    ],
)
def test_tls_with_a_server_that_has_none_is_advised_about(
    run: Run, tmp_path: Path, serve: Callable[..., Nginx], url: str, advice: str
) -> None:
    (tmp_path / "a.tar").write_bytes(docker_archive(tar_of(file("a", b"x"))))
    store = url.format(port=serve(tmp_path).port)
    archive = f"docker-archive:{tmp_path}/a.tar"
    assert advice in quick(run, "convert", archive, f"oci:{tmp_path}/boot", "--store", store)


@pytest.mark.parametrize("scheme", ["https", "docker+https"])
def test_tls_with_a_server_that_has_none_is_advised_about_at_run_time(
    tmp_path: Path, serve: Callable[..., Nginx], scheme: str
) -> None:
    url = f"{scheme}://127.0.0.1:{serve(tmp_path).port}/a"
    with closing(open_source(url, 0.5)) as source, pytest.raises(TimedOut) as caught:
        source.fetch(pack_name(bytes(32)), 0, 1)
    assert "write http:// in place of https://, docker+http:// for a registry" in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}",
        "docker://127.0.0.1:{port}/a",
        "s3://images/a?endpoint=http://127.0.0.1:{port}",
        "ssh://127.0.0.1:{port}/a",
    ],
)
def test_a_container_says_once_that_it_waits(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if url.startswith("ssh"):
        require("sshd")
    monkeypatch.setattr(retry, "QUIET_S", 0.5)
    lines: list[tuple[float, str]] = []
    began = time.monotonic()

    def log(line: str) -> None:
        lines.append((time.monotonic() - began, line))

    with closing(open_source(url.format(port=free_port()), 4, log=log)) as source:
        for _ in range(2):
            with pytest.raises(TimedOut):
                source.fetch(pack_name(bytes(32)), 0, 1)
    ((when_s, line),) = lines
    assert when_s < 4 and "refused" in line and line.endswith("each time for 4 s at most")


def test_a_store_that_is_there_again_is_news_the_next_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retry, "QUIET_S", 0.0)
    lines: list[str] = []
    good = response("206 Partial", b"x", content_range="bytes 0-0/1")
    answers = [("request", response("503 Later")), ("request", good)]
    with (
        ScriptedServer(*answers, *answers) as server,
        closing(open_source(server.url, 5, log=lines.append)) as source,
    ):
        for count in (1, 2):
            assert source.fetch("name", 0, 1) == b"x"
            assert len(lines) == count and "503" in lines[-1]


def test_who_was_reached_is_waited_for() -> None:
    nobody = NotReached("nobody")
    for happened in ("worked", "busy"):
        lines: list[str] = []
        contact = Contact(lines.append)
        contact.failed(nobody, 1.0, 60.0)
        with pytest.raises(NotReached):
            contact.failed(nobody, 4.0, 60.0)
        if happened == "worked":
            contact.worked()
        else:
            contact.failed(RemoteBusy("later"), 0.1, 60.0)
        contact.failed(nobody, 40.0, 60.0)
        assert lines == ["nobody; asked again, each time for 60 s at most"]
