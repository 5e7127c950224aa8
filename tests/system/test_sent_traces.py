"""Traces that containers send to their store, profiles made of them; and where none is taken."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from bench.images import IMAGES, build_image
from boot.recording import KEPT
from converter.cli import main
from converter.platforms import OWN_OR_ONLY
from converter.profileplace import open_profiled
from converter.reference import parse_reference
from store.write.backends import open_backend
from tests.support.converted import gateway
from tests.support.servers import Nginx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.converted import Conversions, Converted
    from tests.support.engine import Container, Engine

pytestmark = pytest.mark.system

COMMAND = ("perl", "-e", "use POSIX; print qq(READY\n)")
TAKES = "client_max_body_size 2m; dav_methods PUT; create_full_put_path on;"
GUARDED = """\
location /traces/ {{
    dav_methods PUT;
    create_full_put_path on;
    client_max_body_size 1m;
    limit_except PUT {{ deny all; }}
    auth_basic "traces";
    auth_basic_user_file {users};
}}
"""
"""As in docs/stores/http.md."""
TAKEN_S = 30.0


@pytest.fixture(scope="module")
def image(conversions: Conversions) -> Converted:
    return conversions.convert(build_image(IMAGES["deb"]))


@pytest.fixture
def guarded(tmp_path: Path) -> str:
    """Give what has nginx ask who sends a trace."""
    users = tmp_path / "users"
    users.write_text("recorder:{PLAIN}of-traces\n")
    return GUARDED.format(users=users)


@pytest.fixture
def traces(conversions: Conversions, image: Converted) -> Iterator[Path]:
    """Give the directory of the image's traces in the store, empty before and after."""
    opened = open_profiled(parse_reference(image.boot), str(conversions.directory), OWN_OR_ONLY)
    place = conversions.directory / "traces" / opened.image.hex()
    yield place
    with closing(open_backend(str(conversions.directory))) as backend:
        backend.remove(list(backend.iter_names("traces/")))
    main(["profile", "remove", image.boot, "--store", str(conversions.directory), "--all"])


def record(engine: Engine, image: Converted, *options: str) -> Container:
    """Have a short start recorded, to its end."""
    container = image.start(engine, *COMMAND, options=("-e", "BOOTFS_RECORD=1", *options))
    assert container.wait() == 0
    return container


@pytest.mark.parametrize("mode", ["erofs", "lease"])
def test_a_short_start_is_sent_to_a_web_server_and_taken_from_the_store(
    engine: Engine,
    conversions: Conversions,
    image: Converted,
    traces: Path,
    capsys: pytest.CaptureFixture[str],
    mode: str,
) -> None:
    cache = ("-v", f"{engine.volume()}:/.bootfs/cache")
    with Nginx(conversions.directory, addresses=[gateway()], extra=TAKES) as server:
        url = f"http://{gateway()}:{server.port}"
        container = record(engine, dataclasses.replace(image, store=url, mode=mode), *cache)
        puts = [(r.path, r.status) for r in server.requests() if r.method == "PUT"]
    (sent,) = traces.iterdir()
    assert puts == [(f"/traces/{traces.name}/{sent.name}", 201)]
    assert sent.name.startswith(f"trace-{traces.name[:12]}-20")
    (line,) = container.logs().splitlines()[1:]
    assert line == (
        f"bootfs: the trace is in {url}: traces/{traces.name}/{sent.name}; "
        "bootfs profile add IMAGE --from-store takes it"
    )
    store = ("--store", str(conversions.directory))
    capsys.readouterr()
    # It was removed from the cache: nobody takes it twice.
    assert main(["profile", "add", image.boot, *store, "--from", container.name]) == 10
    assert main(["check", *store]) == 0
    capsys.readouterr()
    assert main(["profile", "add", image.boot, *store, "--from-store", "--json"]) == 0
    captured = capsys.readouterr()
    (fact,) = json.loads(captured.out)
    assert (fact["name"], fact["traces"], fact["command"][-3:]) == ("perl", 1, list(COMMAND))
    assert fact["reads"] > 10 and f"taken: {conversions.directory}/traces/" in captured.err
    assert list(traces.iterdir()) == []
    assert main(["profile", "add", image.boot, *store, "--from-store"]) == 10


def test_a_service_is_sent_when_its_time_is_over_and_runs_on(
    engine: Engine, conversions: Conversions, image: Converted, traces: Path
) -> None:
    options = ("-e", "BOOTFS_RECORD=2", "-v", f"{conversions.directory}:/store")
    container = dataclasses.replace(image, store="/store").start(
        engine, "sleep", "infinity", options=options
    )
    deadline = time.monotonic() + TAKEN_S
    while not traces.is_dir() or not [p for p in traces.iterdir() if p.suffix != ".part"]:
        assert time.monotonic() < deadline, container.logs()
        time.sleep(0.05)
    (sent,) = traces.iterdir()
    assert (sent.stat().st_mode & 0o777, sent.stat().st_size > 100) == (0o644, True)
    assert container.run("perl", "-e", "print 7").stdout == "7"
    assert container.pid()
    container.stop(0)
    assert container.logs().startswith("bootfs: the trace is in /store: traces/")


@pytest.mark.parametrize("kept", [True, False], ids=["volume", "none"])
@pytest.mark.parametrize("kind", ["read-only", "no-put", "401", "registry", "not-asked"])
def test_what_the_store_does_not_take_stays_and_one_line_says_so(
    engine: Engine,
    conversions: Conversions,
    image: Converted,
    traces: Path,
    capsys: pytest.CaptureFixture[str],
    guarded: str,
    kind: str,
    kept: bool,
) -> None:
    options = ["-v", f"{engine.volume()}:/.bootfs/cache"] if kept else []
    extra = guarded if kind == "401" else ""
    with Nginx(conversions.directory, addresses=[gateway()], extra=extra) as server:
        image = dataclasses.replace(image, store=f"http://{gateway()}:{server.port}")
        if kind == "read-only":
            image = dataclasses.replace(image, store="/store")
            options += ["-v", f"{conversions.directory}:/store:ro"]
        elif kind == "registry":
            options += ["-e", "BOOTFS_RECORD_TO=docker://127.0.0.1:1/app"]
        elif kind == "not-asked":
            options += ["-e", "BOOTFS_RECORD_TO=cache"]
        container = record(engine, image, *options)
        puts = [r.status for r in server.requests() if r.method == "PUT"]
    assert not traces.is_dir() or list(traces.iterdir()) == []
    assert puts == {"no-put": [405], "401": [401]}.get(kind, [])
    lines = container.logs().splitlines()[1:]
    if kind == "not-asked":
        assert lines == []
    else:
        (line,) = lines
        assert line.startswith("bootfs: the trace is not sent: ")
        assert ("it stays in the cache volume: " if kept else "and goes with it: ") in line
        assert {
            "read-only": "Read-only file system; mount the store for writing",
            "no-put": ": 405; the server takes no files by PUT",
            "401": ": 401; the server does not let containers write",
            "registry": "containers write no traces to such a store; BOOTFS_RECORD_TO=URL",
        }[kind] in line
    # What the line says to do.
    store = ("--store", str(conversions.directory))
    capsys.readouterr()
    assert main(["profile", "add", image.boot, *store, "--from", container.name]) == 0
    assert capsys.readouterr().out.startswith("perl: ")


def test_with_a_password_of_its_own_the_web_server_takes_it(
    engine: Engine,
    conversions: Conversions,
    image: Converted,
    traces: Path,
    guarded: str,
    tmp_path: Path,
) -> None:
    with Nginx(conversions.directory, addresses=[gateway()], extra=guarded) as server:
        url = f"http://{gateway()}:{server.port}"
        auth = tmp_path / "auth"
        auth.mkdir()
        (auth / "http").write_text(f"{url} basic recorder:of-traces\n")
        # Of several mirrors the first that takes it: nobody listens at the first.
        image = dataclasses.replace(image, store=f"http://{gateway()}:1|{url}")
        container = record(engine, image, "-v", f"{auth}:/.bootfs/auth:ro")
    assert len(list(traces.iterdir())) == 1
    assert f"the trace is in {url}: traces/" in container.logs()


def test_the_store_for_traces_may_be_another_one(
    engine: Engine, conversions: Conversions, image: Converted, traces: Path, tmp_path: Path
) -> None:
    os.chmod(tmp_path, 0o755)
    options = ("-v", f"{tmp_path}:/traces", "-e", "BOOTFS_RECORD_TO=/traces")
    container = record(engine, image, *options)
    assert "/traces: there is no bootfs store" in container.logs()
    (tmp_path / "bootfs-store").write_text("bootfs store 1\n")
    record(engine, image, *options)
    assert len(list((tmp_path / "traces" / traces.name).iterdir())) == 1
    assert not traces.is_dir() or list(traces.iterdir()) == []


def test_a_workload_leads_no_trace_out_of_the_store(
    engine: Engine, image: Converted, traces: Path, tmp_path: Path
) -> None:
    store, aim = tmp_path / "store", tmp_path / "aim"
    store.mkdir()
    aim.mkdir()
    (store / "bootfs-store").write_text("bootfs store 1\n")
    (store / "traces").symlink_to("/aim")
    container = record(
        engine, image, "-v", f"{store}:/to", "-v", f"{aim}:/aim", "-e", "BOOTFS_RECORD_TO=/to"
    )
    assert list(aim.iterdir()) == []
    assert "the trace is not sent: /to/traces/" in container.logs()


def test_a_cache_keeps_so_many_traces(engine: Engine, image: Converted, traces: Path) -> None:
    volume = engine.volume()
    options = ("-v", f"{volume}:/.bootfs/cache", "-e", "BOOTFS_RECORD_TO=cache")
    container = record(engine, image, *options)
    directory = f"/cache/v2/{traces.name}"
    fill = (
        f"cd {directory}; for n in $(seq {KEPT + 3}); do touch -d @$n trace-$n; done; mkdir trace-d"
    )
    shell = ("sh", "-c")
    mount = ("-v", f"{volume}:/cache")
    source = image.source
    assert engine.run(source, *shell, fill, options=mount).returncode == 0
    record(engine, image, *options)
    listed = engine.run(source, *shell, f"cd {directory}; ls -d trace-*", options=mount).stdout
    names = listed.split()
    # Of those that were recorded both; a directory is none of ours.
    assert len([name for name in names if name.startswith(f"trace-{traces.name[:12]}-")]) == 2
    assert "trace-1" not in names and f"trace-{KEPT + 3}" in names
    assert len(names) <= KEPT + 1
    container.remove()
