"""A first start that is cut off while it fills a volume: the next one finishes it."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.bootedtree import MODES
from tests.support.engine import docker
from tests.support.ownstore import OwnStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.converted import Conversions, Converted
    from tests.support.engine import Engine

pytestmark = pytest.mark.system

DATABASE = """\
FROM debian:bookworm-slim
RUN useradd -u 4242 worker && mkdir -p /vol/below && cd /vol \\
 && for i in $(seq 20); do head -c 300000 /dev/urandom >file$i; done \\
 && ln file1 hard && ln -s file1 soft && mv file20 below \\
 && chown -R worker . && chmod 2750 . below \\
 && find /vol -type f -exec sha256sum {} + >/sums && echo begun >/vol/log
VOLUME /vol
CMD ["sh", "-c", "sha256sum -c --quiet /sums && ls -A /vol && echo whole"]
"""

OF_ENGINE = {"below", "soft"}
"""What the engine finds in the boot image's own layer, and copies before we are there."""


@pytest.fixture(scope="module")
def converted_database(conversions: Conversions) -> tuple[Converted, list[str]]:
    """Give an image with much in a volume, and the packs that its conversion has made."""

    def packs() -> set[str]:
        root = conversions.directory
        return {str(p.relative_to(root)) for p in root.glob("packs/*/*") if p.is_file()}

    before = packs()
    image = conversions.convert(conversions.engine.build(DATABASE))
    return image, sorted(packs() - before)


@pytest.fixture(params=MODES)
def own(
    conversions: Conversions,
    converted_database: tuple[Converted, list[str]],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Iterator[OwnStore]:
    image = dataclasses.replace(converted_database[0], mode=request.param)
    own = OwnStore(conversions, image, tmp_path / "store")
    yield own
    own.close()


def place_of(volume: str) -> Path:
    """Give where a volume lies on this machine."""
    return Path(docker("volume", "inspect", "-f", "{{.Mountpoint}}", volume).stdout.strip())


def test_a_store_that_fails_and_is_repaired(
    engine: Engine,
    own: OwnStore,
    conversions: Conversions,
    converted_database: tuple[Converted, list[str]],
) -> None:
    for name in converted_database[1]:
        data = (own.root / name).read_bytes()
        (own.root / name).write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    own.serve()
    volume = engine.volume()
    container = engine.create(own.image.boot, options=own.image.options("-v", f"{volume}:/vol"))
    docker("start", container.name)
    assert container.wait() == 125
    assert "damaged" in container.logs()
    assert set(os.listdir(place_of(volume))) == OF_ENGINE
    assert os.listdir(place_of(volume) / "below") == []

    for name in converted_database[1]:
        shutil.copy(conversions.directory / name, own.root / name)
    docker("start", container.name)
    assert container.wait() == 0, container.logs()
    assert "\nwhole\n" in container.logs()


def begin_and_kill(engine: Engine, own: OwnStore, volume: str) -> str:
    """Kill a container while it fills a volume; give its name."""
    # So slowly that a busy machine sees it half done.
    own.serve("limit_rate 100k;")
    container = engine.create(own.image.boot, options=own.image.options("-v", f"{volume}:/vol"))
    docker("start", container.name)
    part = place_of(volume) / ".bootfs-filling" / "part"
    deadline = time.monotonic() + 60
    while not part.exists() or len(os.listdir(part)) < 3:
        assert time.monotonic() < deadline, container.logs()
        assert container.inspect()["State"]["Running"], container.logs()
        time.sleep(0.01)
    container.signal("KILL")
    assert container.wait() == 137
    own.serve()
    return container.name


@pytest.mark.parametrize("who", ["the same container", "another container"])
def test_killed_while_it_fills(engine: Engine, own: OwnStore, who: str) -> None:
    volume = engine.volume()
    killed = begin_and_kill(engine, own, volume)
    options = ("-v", f"{volume}:/vol")
    if who == "the same container":
        docker("start", "-a", killed)
    else:
        done = own.image.run(engine, options=options)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.endswith("whole\n")
    script = "cd /vol && stat -c '%n %F %a %u %g %h %s' $(find | sort) && sha256sum -c /sums"
    booted = own.image.run(engine, "sh", "-c", script, options=options)
    plain = own.image.run_source(engine, "sh", "-c", script)
    assert (booted.returncode, booted.stdout, booted.stderr) == (0, plain.stdout, "")


def test_what_the_user_put_there_meanwhile_stays(engine: Engine, own: OwnStore) -> None:
    volume = engine.volume()
    killed = begin_and_kill(engine, own, volume)
    (place_of(volume) / "file1").write_text("mine\n")
    docker("start", killed)
    docker("wait", killed)
    assert set(os.listdir(place_of(volume))) == {"file1", *OF_ENGINE}
    assert os.listdir(place_of(volume) / "below") == []
    assert (place_of(volume) / "file1").read_text() == "mine\n"


def test_containers_that_fill_one_volume_at_once(engine: Engine, own: OwnStore) -> None:
    own.serve("limit_rate 2m;")
    volume = engine.volume()
    # Who is first goes on to change a file, and another one's copy must not change it back.
    script = "echo changed >>/vol/log; sleep 4; sha256sum -c --quiet /sums && cat /vol/log"
    options = own.image.options("-v", f"{volume}:/vol")
    containers = [
        engine.start(own.image.boot, "sh", "-c", script, options=options) for _ in range(3)
    ]
    assert [container.wait() for container in containers] == [0, 0, 0]
    assert (place_of(volume) / "log").read_text() == "begun\n" + "changed\n" * 3
    assert not (place_of(volume) / ".bootfs-filling").exists()
