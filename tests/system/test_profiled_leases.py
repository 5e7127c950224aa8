"""Mode lease with profiles: files are filled by what one request brings, before they are opened."""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from bench.images import IMAGES, build_image
from converter.cli import main
from tests.support.converted import Converted, gateway
from tests.support.engine import Container, Engine, docker
from tests.support.relay import Exchange, Fault, Relay
from tests.support.servers import Nginx, Request

pytestmark = pytest.mark.system

COMMAND = ("perl", "-e", "use POSIX; print qq(READY\n)")
TWICE = 0.03
"""Of the chunks; some are used by files far from one another, and nothing keeps them till then."""
AWAY = "location /packs/ { return 503; }"


@dataclass
class Leased:
    """A boot image in mode lease, its store, which has profiles of it, and the store's server."""

    image: Converted
    store: Path
    address: str
    server: Nginx

    def serve(self, extra: str = "") -> None:
        """Serve the store with this in the server's block from now on."""
        self.server.close()
        self.server = Nginx(self.store, addresses=[self.address], port=self.server.port,
                            extra=extra)  # fmt: skip

    def add(self, *arguments: str) -> None:
        """Change the image's profiles."""
        assert (
            main(["profile", "add", self.image.boot, "--store", str(self.store), *arguments]) == 0
        )

    def listed(self, capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
        """Return the image's profiles."""
        capsys.readouterr()
        list_ = ["profile", "list", self.image.boot, "--store", str(self.store), "--json"]
        assert main(list_) == 0
        profiles: list[dict[str, object]] = json.loads(capsys.readouterr().out)
        return profiles

    def forget_profiles(self) -> None:
        """Remove all of them."""
        remove = ["profile", "remove", self.image.boot, "--store", str(self.store), "--all"]
        assert main(remove) == 0

    def requests(self, kind: str) -> list[Request]:
        """Return those that were made of one kind of objects."""
        return [one for one in self.server.requests() if one.path.startswith(f"/{kind}/")]


@pytest.fixture(scope="module")
def made() -> Iterator[Leased]:
    engine = Engine()
    store = Path(tempfile.mkdtemp(prefix="bootfs-leased-"))
    address = gateway()
    server = Nginx(store, addresses=[address])
    source, boot = build_image(IMAGES["deb"]), engine.image_name()
    convert = ["convert", source, boot, "--store", str(store), "--level", "1", "--no-profile"]
    assert main(convert) == 0
    url = f"http://{address}:{server.port}"
    leased = Leased(Converted(source, boot, url, "lease"), store, address, server)
    yield leased
    leased.server.close()
    engine.close()
    shutil.rmtree(store, ignore_errors=True)


@pytest.fixture
def leased(made: Leased) -> Iterator[Leased]:
    """Give an image without profiles, and its store, served as ever."""
    made.server.forget()
    yield made
    made.forget_profiles()
    shutil.rmtree(made.store / "hot", ignore_errors=True)
    made.serve()


def record(leased: Leased, engine: Engine, *command: str, mode: str = "lease") -> Container:
    """Start a container that records; return it when it has ended."""
    image = replace(leased.image, mode=mode)
    options = ("-v", f"{engine.volume()}:/.bootfs/cache", "-e", "BOOTFS_RECORD=1")
    options += ("-e", "BOOTFS_RECORD_TO=cache")
    container = engine.start(image.boot, *command, options=image.options(*options))
    assert container.wait() == 0, container.logs()
    return container


def recorded(leased: Leased, engine: Engine, mode: str = "lease") -> None:
    """Have a profile made of a start in a mode."""
    leased.add("--from", record(leased, engine, *COMMAND, mode=mode).name)
    leased.server.forget()


def test_a_profile_of_this_mode_is_all_that_a_start_fetches(
    engine: Engine, leased: Leased, capsys: pytest.CaptureFixture[str]
) -> None:
    container = record(leased, engine, *COMMAND)
    assert container.logs() == "READY\n"
    leased.add("--from", container.name)
    (fact,) = leased.listed(capsys)
    assert (fact["name"], fact["origin"]) == ("perl", "recording")
    # Whatever else is asked for, for the rest, is not had.
    leased.serve(AWAY)
    done = leased.image.run(engine, *COMMAND)
    assert (done.returncode, done.stdout) == (0, "READY\n"), done.stderr
    assert [one.size for one in leased.requests("hot")] == [fact["hot_pack"]]
    assert len(leased.requests("profiles")) == 1


def test_what_a_hot_pack_lacks_of_its_files_is_fetched_beside_it(
    engine: Engine, leased: Leased
) -> None:
    # Of single pages: mode erofs notes those that are read.
    recorded(leased, engine, mode="erofs")
    done = leased.image.run(engine, *COMMAND)
    assert (done.returncode, done.stdout, done.stderr) == (0, "READY\n", "")
    assert len(leased.requests("hot")) == 1
    # Which profile it is, is asked for by name as well, or for none.
    for name, count in (("perl", 1), ("off", 0)):
        leased.server.forget()
        options = ("-e", f"BOOTFS_PROFILE={name}")
        done = leased.image.run(engine, "sh", "-c", "echo READY", options=options)
        assert (done.returncode, done.stdout) == (0, "READY\n")
        assert len(leased.requests("hot")) == len(leased.requests("profiles")) == count


def status(container: Container, capsys: pytest.CaptureFixture[str]) -> dict[str, int]:
    """Return what a container has counted."""
    capsys.readouterr()
    assert main(["status", container.name, "--json"]) == 0
    said: dict[str, int] = json.loads(capsys.readouterr().out)
    return said


def test_everything_is_filled_in_the_end_and_fetched_once(
    engine: Engine, leased: Leased, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded(leased, engine)
    script = (
        "perl -e 'use POSIX'; find /usr /etc -xdev -type f ! -path '/etc/host*' ! -name resolv.conf"
        " -print0 | sort -z | xargs -0 sha256sum"
    )
    options = ("-e", "BOOTFS_PROFILE=perl")
    done = leased.image.run(engine, "sh", "-c", script, options=options)
    assert done.returncode == 0, done.stderr
    assert done.stdout == leased.image.run_source(engine, "sh", "-c", script).stdout
    leased.server.forget()
    container = leased.image.start(engine, "sleep", "1000", options=options)
    deadline = time.monotonic() + 60
    while (said := status(container, capsys))["filled"] < said["to_fill"]:
        assert time.monotonic() < deadline, said
        time.sleep(0.2)
    assert len(leased.requests("hot")) == 1
    assert said["fetched_chunks"] <= said["chunks"] * (1 + TWICE)


@pytest.mark.parametrize("damage", ["damaged", "short", "gone"])
def test_a_hot_pack_that_is_wrong_costs_time_alone(
    engine: Engine, leased: Leased, damage: str
) -> None:
    recorded(leased, engine)
    (path,) = (leased.store / "hot").iterdir()
    data = bytearray(path.read_bytes())
    if damage == "damaged":
        data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    path.unlink()
    if damage != "gone":
        path.write_bytes(data if damage == "damaged" else data[: len(data) // 2])
    done = leased.image.run(engine, *COMMAND)
    assert (done.returncode, done.stdout) == (0, "READY\n"), done.stderr
    assert "going on without" in done.stderr
    assert leased.requests("packs")


def test_a_profile_of_another_command_costs_time_alone(engine: Engine, leased: Leased) -> None:
    recorded(leased, engine)
    script = "tar --version | head -1; awk 'BEGIN { print 6 * 7 }'"
    options = ("-e", "BOOTFS_PROFILE=perl")
    done = leased.image.run(engine, "sh", "-c", script, options=options)
    assert done.returncode == 0, done.stderr
    assert done.stdout == leased.image.run_source(engine, "sh", "-c", script).stdout
    assert len(leased.requests("hot")) == 1


def test_a_store_that_goes_in_the_middle_of_a_hot_pack(engine: Engine, leased: Leased) -> None:
    recorded(leased, engine)
    broken = threading.Event()

    def cut(exchange: Exchange) -> None:
        if exchange.head.startswith(b"GET /hot/"):
            head, body = exchange.fetched()
            exchange.send(head + body[: len(body) // 2])
            broken.set()
        else:
            exchange.send(b"".join(exchange.fetched()))

    with Relay(("127.0.0.1", leased.server.port), address=leased.address) as relay:
        relay.begin(Fault(cut))
        image = replace(leased.image, store=f"http://{leased.address}:{relay.port}")
        done = image.run(engine, *COMMAND)
    assert broken.is_set()
    assert (done.returncode, done.stdout) == (0, "READY\n"), done.stderr
    assert "going on without" in done.stderr


def test_a_store_by_name_that_keeps_no_connections(engine: Engine, leased: Leased) -> None:
    recorded(leased, engine)
    # Each request looks up the name again.
    leased.serve("keepalive_timeout 0;")
    image = replace(leased.image, store=f"http://store.test:{leased.server.port}")
    options = ("--add-host", f"store.test:{leased.address}")
    done = image.run(engine, *COMMAND, options=options)
    assert (done.returncode, done.stdout, done.stderr) == (0, "READY\n", "")
    assert len(leased.requests("hot")) == 1


def test_mode_eager_asks_for_no_profile_and_fetches_nothing_twice(
    engine: Engine, leased: Leased, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded(leased, engine)
    image = replace(leased.image, mode="eager")
    container = image.start(engine, "sleep", "1000")
    said = status(container, capsys)
    assert said["fetched_chunks"] <= said["chunks"] * (1 + TWICE)
    assert not leased.requests("hot") and not leased.requests("profiles")


def test_a_second_start_of_a_container_asks_for_no_profile(engine: Engine, leased: Leased) -> None:
    recorded(leased, engine)
    container = leased.image.start(engine, *COMMAND)
    assert container.wait() == 0
    leased.server.forget()
    docker("start", container.name)
    assert container.wait() == 0
    assert container.logs() == "READY\nREADY\n"
    assert not leased.requests("profiles")


def test_what_cannot_be_recorded_is_said(engine: Engine, leased: Leased) -> None:
    container = record(leased, engine, *COMMAND, mode="eager")
    assert "nothing is recorded" in container.logs()
    container = record(leased, engine, "sh", "-c", "grep -c root /etc/passwd; perl -e 1")
    assert "recording ends here: a program starts that waits for all" in container.logs()
