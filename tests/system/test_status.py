"""How containers do, asked from outside: while reads wait, when they have ended, whoever forges."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from converter.asking import DIRECTORY
from converter.cli import main
from tests.support.engine import docker
from tests.support.ownstore import OwnStore
from tests.system.test_daemon_death import daemon_of
from tests.unit.test_htmlreport import Page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.converted import Conversions, Converted
    from tests.support.engine import Container, Engine

pytestmark = pytest.mark.system

PAUSE = "echo up; sleep 1000"
READ_BIG = ("sha256sum", "-c", "/big.sum")


@pytest.fixture(params=["erofs", "fuse", "lease"])
def image(converted_workshop: Converted, request: pytest.FixtureRequest) -> Converted:
    """Give an image with a file of 30 MB, in each mode."""
    return dataclasses.replace(converted_workshop, mode=request.param)


@pytest.fixture
def own(conversions: Conversions, image: Converted, tmp_path: Path) -> Iterator[OwnStore]:
    """Give a store that can be switched off."""
    own = OwnStore(conversions, image, tmp_path / "store")
    own.serve()
    yield own
    own.close()


Ask = "Callable[..., Any]"


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Ask:
    """Give what runs ``bootfs status --json`` and returns what it said."""

    def run(container: Container, *options: str) -> Any:
        capsys.readouterr()
        assert main(["status", container.name, "--json", *options]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def wait_for(ask: Ask, container: Container, is_so: Callable[[Any], bool]) -> Any:
    """Return the first status that is so; fail when none is for too long."""
    deadline = time.monotonic() + 60
    while not is_so(said := ask(container)):
        assert time.monotonic() < deadline, said
        time.sleep(0.05)
    return said


def test_a_read_that_waits_is_seen_while_it_waits(
    engine: Engine, own: OwnStore, ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    if own.image.mode == "lease":
        # Or all is filled before it is switched off.
        own.serve("limit_rate 200k;")
    container = own.image.start(engine, "sh", "-c", PAUSE, options=("--tmpfs", "/content"))
    container.wait_for_line("up")
    # What is read by the way is over.
    wait_for(ask, container, lambda said: said["waiting"] == 0)
    own.close()
    before = ask(container)
    assert (before["mode"], before["running"], before["fresh"]) == (own.image.mode, True, True)
    command = ["docker", "exec", container.name, *READ_BIG]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
        said = wait_for(ask, container, lambda said: said["waiting"] >= 1)
        if own.image.mode != "lease":
            assert {one["process"] for one in said["waiting_reads"]} <= {
                "sha256sum",
                "runc:[2:INIT]",
            }
            assert all(one["pid"] and one["size"] for one in said["waiting_reads"])
            assert main(["status", container.name]) == 0
            shown = capsys.readouterr().out
            assert "the longest, of " in shown
        own.serve()
        out, _ = reader.communicate(timeout=90)
        assert (reader.returncode, out) == (0, "/big: OK\n")
    after = wait_for(ask, container, lambda said: said["waiting"] == 0)
    assert after["fetched_bytes"] > before["fetched_bytes"]
    assert sum(after["wait_seconds"]["counts"]) == after["waits"] > before["waits"]
    assert after["wait_seconds"]["sum"] > before["wait_seconds"]["sum"]
    assert after["waiting_reads"] == []


def test_the_counts_are_the_server_s(
    engine: Engine, conversions: Conversions, image: Converted, ask: Ask, tmp_path: Path
) -> None:
    conversions.server.forget()
    script = "trap 'exit 0' TERM; sha256sum -c /big.sum; sleep 1000 & wait"
    container = image.start(engine, "sh", "-c", script, options=("--tmpfs", "/content"))
    container.wait_for_line("/big: OK")
    if image.mode == "lease":
        running = wait_for(ask, container, lambda said: said["filled"] == said["to_fill"] > 0)
    else:
        running = wait_for(ask, container, lambda said: said["age_s"] > 4 and not said["waiting"])
    # Whether there is a profile, which there is not, is asked beside.
    asked = [request for request in conversions.server.requests() if "profile" not in request.path]
    assert {request.status for request in asked} == {206}
    assert (running["requests"], running["errors"]) == (len(asked), 0)
    assert running["fetched_bytes"] == sum(request.size for request in asked)
    assert sum(running["fetch_seconds"]["counts"]) == running["requests"]
    if image.mode != "lease":
        assert running["cached_chunks"] == running["fetched_chunks"] > 0
        assert running["cached_bytes"] > 30_000_000
    steps = list(running["steps"].values())
    assert steps == sorted(steps) and {"begun", "served", "rooted", "handed"} <= set(
        running["steps"]
    )

    # What it says when it has ended is what it said, and says so.
    container.signal("TERM")
    container.wait()
    assert container.inspect()["State"]["Running"] is False

    # The metrics, read by Prometheus' own parser.
    place = tmp_path / "bootfs.prom"
    assert main(["status", container.name, "--metrics", str(place)]) == 0
    samples = {
        sample.name: sample.value
        for family in text_string_to_metric_families(place.read_text())
        for sample in family.samples
        if "le" not in sample.labels
    }
    assert samples["bootfs_running"] == 0
    assert samples["bootfs_requests_total"] == running["requests"]
    assert samples["bootfs_fetched_bytes_total"] == running["fetched_bytes"]
    assert samples["bootfs_fetch_seconds_count"] == running["requests"]
    assert [path.name for path in tmp_path.iterdir()] == ["bootfs.prom"]

    # Which files came, and by whom.
    files = {one["path"]: one for one in ask(container, "--files")["files"]}
    big = files["/big"]
    assert big["fetched"] >= 30_000_000
    assert big["first_read"] is not None
    if image.mode != "lease":
        assert big["first_read"]["process"] == "sha256sum"
        assert files["/usr/bin/sha256sum"]["first_read"]["process"] in ("sh", "sha256sum")

    # The page.
    page = tmp_path / "page.html"
    assert main(["report", container.name, "-o", str(page)]) == 0
    read = Page(page.read_text())
    assert "/big" in read.text and f"mode {image.mode}" in read.text
    assert sum(tag == "rect" for tag, _ in read.tags) > 10


def test_a_container_that_ended_by_itself_has_said_how_it_was(
    engine: Engine, image: Converted, ask: Ask
) -> None:
    container = engine.start(image.boot, "sh", "-c", "exit 7", options=image.options())
    assert container.wait() == 7
    said = ask(container)
    assert (said["running"], said["mode"], said["waiting"]) == (False, image.mode, 0)
    assert "ended" in said["steps"]
    assert said["requests"] > 0


@pytest.mark.parametrize("image", ["erofs", "lease"], indirect=True)
def test_nothing_is_written_while_nobody_asks(engine: Engine, image: Converted, ask: Ask) -> None:
    container = image.start(engine, "sh", "-c", PAUSE)
    container.wait_for_line("up")
    container.run(*READ_BIG)
    mounts = container.inspect()["Mounts"]
    (place,) = (m["Source"] for m in mounts if m["Destination"] == "/.bootfs/rw")
    # Listing its own directory is what asks: so the one look there is the last step.
    first = os.listdir(f"{place}/status")
    assert first == []
    assert ask(container)["fresh"]
    assert len(os.listdir(f"{place}/status")) == 1
    # Who is paused answers nobody; what is shown is not said to be of now.
    docker("pause", container.name)
    assert not ask(container)["fresh"]
    docker("unpause", container.name)
    assert ask(container)["fresh"]


@pytest.mark.parametrize("image", ["erofs", "lease"], indirect=True)
def test_containers_on_one_volume_have_their_own(
    engine: Engine, image: Converted, ask: Ask, capsys: pytest.CaptureFixture[str]
) -> None:
    first = image.start(engine, "sh", "-c", PAUSE)
    second = image.start(engine, "sh", "-c", PAUSE, options=("--volumes-from", first.name))
    for container in (first, second):
        container.wait_for_line("up")
    # In mode lease it would fill its files by itself meanwhile.
    docker("pause", second.name)
    first.run(*READ_BIG)
    docker("unpause", second.name)
    counts = [ask(container) for container in (first, second)]
    assert [one["container"] for one in counts] == [first.name, second.name]
    assert counts[0]["answered"] > counts[1]["answered"] > 0
    capsys.readouterr()
    assert main(["status", "--all", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {first.name, second.name} <= {one["container"] for one in lines}


def test_a_daemon_that_is_started_again_goes_on_counting(
    engine: Engine, converted_workshop: Converted, ask: Ask
) -> None:
    container = converted_workshop.start(engine, "sh", "-c", PAUSE)
    container.wait_for_line("up")
    before = ask(container)
    os.kill(daemon_of(container), signal.SIGKILL)
    container.run(*READ_BIG)
    after = ask(container)
    assert (before["daemons"], after["daemons"]) == (1, 2)
    assert after["requests"] > before["requests"] > 0
    assert after["waiting"] == 0


@pytest.mark.parametrize(
    "forgery",
    [
        "head -c 5000 /dev/urandom >$f",
        "rm -r $d; mkdir $d; truncate -s 20G $d/own",
        "rm -r $d; mkdir $d; ln -s /etc/shadow $f; cd $d; touch $(seq 200)",
        "rm -r $d; : >$d",
    ],
    ids=["garbage", "huge", "many", "none"],
)
def test_what_a_workload_forges_is_refused(
    engine: Engine,
    converted_workshop: Converted,
    forgery: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    image = dataclasses.replace(converted_workshop, mode="lease")
    # PID 1 answers no more where its directory is gone; a stopped container keeps what lies there.
    script = f"d={DIRECTORY}; f=$d/$(ls $d | head -n 1); {forgery}; echo forged; exec sleep 1000"
    container = image.start(engine, "sh", "-c", f"ls {DIRECTORY}; sleep 1; {script}")
    container.wait_for_line("forged")
    code = main(["status", container.name])
    said = capsys.readouterr()
    if forgery.startswith("head"):
        # PID 1 has written it anew.
        assert code == 0
    else:
        # 14 is the engine's: it goes through no file as if that were a directory.
        assert code in (10, 12, 14)
        assert said.err.startswith("bootfs: ") and said.err.count("\n") == 1
    assert container.inspect()["State"]["Running"]


def test_no_container_of_a_boot_image(
    engine: Engine, base_image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    container = engine.create(base_image, "true")
    assert main(["status", container.name]) == 2
    assert "not a container of a boot image" in capsys.readouterr().err
    assert main(["status", f"{container.name}-not"]) == 10


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_following_is_ended_by_a_signal_without_a_word(
    engine: Engine, converted_workshop: Converted, number: int
) -> None:
    container = converted_workshop.start(engine, "sleep", "1000")
    command = [sys.executable, "-m", "converter.cli", "status", container.name, "--follow"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert container.name in process.stdout.readline()
        process.send_signal(number)
        assert process.wait(30) == 0
        assert process.stderr.read() == ""
