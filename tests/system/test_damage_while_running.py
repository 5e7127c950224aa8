"""A bit turned over anywhere while a container runs is repaired or an error, never read."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.engine import Engine, docker
from tests.support.faultlog import FaultCase
from tests.support.servers import Nginx
from tests.system.test_daemon_death import container_init, daemon_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.converted import Conversions, Converted
    from tests.support.engine import Container
    from tests.support.faultlog import FaultLog

pytestmark = pytest.mark.system

STEP = 50_000
"""Bytes between two bits that are turned over: every chunk of some size has one."""
LIMITED = ("-e", "BOOTFS_READ_LIMIT=3")


def turn_over(path: Path, step: int = STEP) -> None:
    """Turn over a bit in every ``step`` bytes of a file, in its place; twice is as before."""
    with path.open("r+b") as file:
        for at in range(step // 2, path.stat().st_size, step):
            file.seek(at)
            byte = file.read(1)
            file.seek(at)
            file.write(bytes([byte[0] ^ 0x10]))


def fill(path: Path, byte: bytes) -> None:
    """Overwrite a file in its place."""
    with path.open("r+b") as file:
        file.write(byte * path.stat().st_size)


@dataclasses.dataclass
class Running:
    """A container with everything in its cache that was read in an earlier one, and /big unread."""

    container: Container
    store: Path
    cache: Path
    """The image's directory in the cache volume."""
    mode: str
    digest: str
    """SHA-256 of /big."""
    own_layer: Path
    """Where the engine keeps boot config, chunk index and bootstrap, each alone in its layer."""
    log: FaultLog

    def record(self, place: str, outcome: str, reads: int = 1) -> None:
        """Note what came of bits turned over in one place."""
        fault = f"bits turned over in {place}"
        self.log.record(FaultCase("bytes at rest", fault, self.mode, outcome, 1, reads))

    def packs(self) -> list[Path]:
        """List the packs of the container's own copy of the store."""
        return [path for path in (self.store / "packs").glob("*/*") if path.is_file()]

    def reads(self) -> bool:
        """Read /big, from outside, where that needs no program; whether it could be read."""
        root = Path(f"/proc/{container_init(self.container)}/root")
        try:
            found = hashlib.sha256((root / "big").read_bytes()).hexdigest()
        except OSError as error:
            assert error.errno == errno.EIO
            return False
        assert found == self.digest
        return True

    def lines(self) -> list[str]:
        """Give what bootfs has said, each line once."""
        lines = [x for x in self.container.logs().splitlines() if x.startswith("bootfs: ")]
        assert len(lines) == len(set(lines)), lines
        return lines


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What containers are started with: image, cache volume, and where both lie on this machine."""

    image: Converted
    volume: str
    store: Path
    cache: Path
    own_layer: Path


@pytest.fixture(scope="module")
def prepared(
    conversions: Conversions,
    converted_workshop: Converted,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Prepared]:
    """Give an image with a store and a layer of its own, and a volume with all of it cached."""
    engine, context = Engine(), tmp_path_factory.mktemp("damage")
    shutil.copytree(conversions.directory, context / "store")
    made = engine.create(converted_workshop.boot)
    docker("cp", f"{made.name}:/.bootfs/image", str(context / "image"))
    # Written anew, so that they are in a layer that no other image shares.
    (context / "image/own").write_text(engine.prefix)
    (context / ".dockerignore").write_text("store\n")
    dockerfile = f"FROM {converted_workshop.boot}\nCOPY image /.bootfs/image\n"
    boot = engine.build(dockerfile, context)
    (inspected,) = json.loads(docker("inspect", boot).stdout)
    layer = Path(inspected["GraphDriver"]["Data"]["UpperDir"]) / ".bootfs/image"
    volume = engine.volume()
    place = docker("volume", "inspect", "-f", "{{.Mountpoint}}", volume).stdout.strip()
    with Nginx(context / "store", addresses=[conversions.address]) as server:
        url = f"http://{conversions.address}:{server.port}"
        image = dataclasses.replace(converted_workshop, boot=boot, store=url)
        options = ("-v", f"{volume}:/.bootfs/cache", *LIMITED)
        filled = image.run(engine, "sha256sum", "-c", "/big.sum", options=options)
        assert filled.returncode == 0, filled.stderr
        (data,) = Path(place).glob("**/data")
        yield Prepared(image, volume, context / "store", data.parent, layer)
    engine.close()


@pytest.fixture(params=["erofs", "fuse"])
def running(
    engine: Engine, prepared: Prepared, fault_log: FaultLog, request: pytest.FixtureRequest
) -> Running:
    """Give a running container."""
    image = dataclasses.replace(prepared.image, mode=request.param)
    # Or /big would be read at once, as in the start before.
    os.truncate(prepared.cache / "reads", 0)
    options = ("-v", f"{prepared.volume}:/.bootfs/cache", *LIMITED)
    container = image.start(engine, "sleep", "1000", options=options)
    digest = container.run("cat", "/big.sum").stdout.split()[0]
    return Running(
        *(container, prepared.store, prepared.cache, image.mode, digest, prepared.own_layer),
        log=fault_log,
    )


def test_in_cached_data_it_is_repaired_from_the_store(running: Running) -> None:
    turn_over(running.cache / "data")
    assert running.reads()
    lines = running.lines()
    assert lines
    assert all(line.startswith("bootfs: cache: chunk ") for line in lines), lines
    running.record("cached data", "right bytes, repaired from the store")


def test_in_cached_data_it_is_an_error_without_the_store(running: Running) -> None:
    packs = running.packs()
    for pack in packs:
        pack.rename(pack.with_name("away-" + pack.name))
    try:
        turn_over(running.cache / "data")
        assert not running.reads()
        assert any("404" in line for line in running.lines())
    finally:
        for pack in packs:
            pack.with_name("away-" + pack.name).rename(pack)
    assert running.reads()
    running.record("cached data, and no store", "EIO, later right bytes", 2)


def test_in_store_and_cache_it_is_an_error_until_one_is_repaired(running: Running) -> None:
    for pack in running.packs():
        turn_over(pack)
    try:
        turn_over(running.cache / "data")
        assert not running.reads()
        assert any("damaged" in line for line in running.lines())
    finally:
        for pack in running.packs():
            turn_over(pack)
    assert running.reads()
    running.record("cached data and packs", "EIO, later right bytes", 2)


@pytest.mark.parametrize("byte", [b"\0", b"\xff"])
def test_in_the_presence_map_it_costs_a_fetch(running: Running, byte: bytes) -> None:
    fill(running.cache / "present", byte)
    if byte != b"\0":
        # What is said to be there was never written, or is gone.
        fill(running.cache / "data", b"\0")
    assert running.reads()
    assert all(line.startswith("bootfs: cache: chunk ") for line in running.lines())
    running.record("the presence map", "right bytes")


def test_in_the_bootstrap_it_is_an_error_for_names_until_it_is_mended(running: Running) -> None:
    """Of a part that has not been read yet; in mode ``fuse`` all of it is in memory."""
    bootstrap = running.own_layer / "bootstrap"
    whole = bootstrap.read_bytes()
    turn_over(bootstrap, 1000)
    everything = ("find", "/usr", "/var", "-xdev", "-ls")
    seen = running.container.run(*everything, check=False)
    bootstrap.write_bytes(whole)
    if running.mode == "erofs":
        assert seen.returncode
        assert "Input/output error" in seen.stderr
        assert any("bootstrap" in line for line in running.lines())
    again = running.container.run(*everything)
    assert again.stdout.count("\n") >= seen.stdout.count("\n") > 0
    assert set(seen.stdout.splitlines()) <= set(again.stdout.splitlines())
    outcome = "EIO for names, later right ones" if running.mode == "erofs" else "right: in memory"
    running.record("the bootstrap", outcome, 2)


@pytest.mark.parametrize("running", ["erofs"], indirect=True)
@pytest.mark.parametrize("name", ["chunk-index", "config"])
def test_in_what_is_read_at_the_start_it_shows_when_a_daemon_starts_again(
    running: Running, name: str
) -> None:
    damaged = running.own_layer / name
    big = os.open(f"/proc/{container_init(running.container)}/root/big", os.O_RDONLY)
    turn_over(damaged, damaged.stat().st_size)
    try:
        os.kill(daemon_of(running.container), signal.SIGKILL)
        line = running.container.wait_for_line("what is not in memory fails from now on")
        assert line.startswith("bootfs: the daemon ended ")
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            os.pread(big, 4096, 20_000_000)
        assert running.container.inspect()["State"]["Running"]
    finally:
        os.close(big)
        turn_over(damaged, damaged.stat().st_size)
    running.record(f"the {name}, and the daemon killed", "EIO, the container runs on")
