"""A conversion killed, or its disk failing, at each call that changes a file; several at once."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from converter.cli import main
from store.errors import BootfsError, StorageFull
from store.format.names import STORE_MARK
from tests.support.faultlog import FaultCase, FaultLog
from tests.support.layers import directory, docker_archive, file, tar_of
from tests.support.require import require
from tests.support.wholestores import (
    files_of,
    make_old,
    make_orphans,
    needed_files,
    problems_of,
)

SHARED = file("shared", Random(1).randbytes(700_000))
IMAGES = {
    name: docker_archive(
        tar_of(directory("own/"), file(f"own/{name}", Random(n).randbytes(200_000)), SHARED)
    )
    for n, name in enumerate("abc", 2)
}
MOST = 28
"""Calls that are tried, evenly over all there are."""
ROUNDS = 3


@dataclass
class Place:
    """Images to convert, a store and destinations; faults happen below ``changed``."""

    path: Path

    def __post_init__(self) -> None:
        self.changed = self.path / "changed"
        self.store = self.changed / "store"
        for name, data in IMAGES.items():
            (self.path / f"{name}.tar").write_bytes(data)

    def destination(self, name: str) -> Path:
        return self.changed / f"boot-{name}"

    def command(self, name: str) -> list[str]:
        source = f"docker-archive:{self.path}/{name}.tar"
        return ["convert", source, f"oci:{self.destination(name)}", "--store", str(self.store)]

    def begin(self, start: Path | None) -> None:
        """Begin again with a copy of the store ``start``, or without one."""
        shutil.rmtree(self.changed, ignore_errors=True)
        self.changed.mkdir()
        if start is not None:
            shutil.copytree(start, self.store)

    def run(self, command: list[str], **faults: object) -> subprocess.CompletedProcess[str]:
        """Run bootfs in a process of its own, with the variables of writes.c."""
        variables = {f"FAULT_{key.upper()}": str(value) for key, value in faults.items()}
        environment = os.environ | variables | {"FAULT_BELOW": str(self.changed)}
        environment["LD_PRELOAD"] = str(self.path / "writes.so")
        return subprocess.run(
            [sys.executable, "-m", "converter.cli", *command],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    require("gcc")
    path = tmp_path_factory.mktemp("writes")
    source = Path(__file__).with_name("writes.c")
    command = ["gcc", "-Wall", "-Werror", "-O1", "-shared", "-fPIC", "-o", path / "writes.so"]
    subprocess.run([*command, source, "-ldl"], check=True)
    return Place(path)


@pytest.fixture(scope="module")
def orphans(place: Place) -> Path:
    """Give a store in which an image that was never finished left what others share with it."""
    place.begin(None)
    assert main(place.command("b")) == 0
    make_orphans(place.store)
    (place.store / "packs" / "tmpold.part").write_bytes(b"left")
    make_old(place.store)
    return Path(shutil.move(place.store, place.path / "orphans"))


def tree_of(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


class Undisturbed:
    """What a conversion of image ``a`` makes when nothing happens, and the calls that it makes."""

    def __init__(self, place: Place, start: Path | None) -> None:
        log = place.path / "log"
        log.unlink(missing_ok=True)
        place.begin(start)
        done = place.run(place.command("a"), log=log)
        assert done.returncode == 0, done.stderr
        self.calls = log.read_text().split()
        self.tree = tree_of(place.destination("a"))
        self.needed = needed_files(place.store)


def some_calls(calls: list[str], most: int) -> list[int]:
    """Return the numbers of calls to disturb, from 1, the first and the last among them."""
    return sorted({1 + i * (len(calls) - 1) // (most - 1) for i in range(most)})


def check_after(place: Place, undisturbed: Undisturbed) -> None:
    """Check what holds after whatever happened, and that the same conversion can be done now."""
    if (place.store / STORE_MARK).exists():
        assert problems_of(place.store) == []
    destination = place.destination("a")
    if destination.exists():
        assert tree_of(destination) == undisturbed.tree
        assert undisturbed.needed <= files_of(place.store)
        shutil.rmtree(destination)
    assert main(place.command("a")) == 0
    assert tree_of(destination) == undisturbed.tree
    assert problems_of(place.store) == []
    assert main(["collect", str(place.store), "--delete", "--grace", "0"]) == 0
    assert files_of(place.store) == undisturbed.needed
    source = f"docker-archive:{place.path}/a.tar"
    assert main(["check", source, f"oci:{destination}", "--store", str(place.store)]) == 0


def record(log: FaultLog, fault: str, injected: int) -> None:
    """Note faults after each of which the store was whole, and the next try went well."""
    outcome = "a whole store, and the same digests the next time"
    log.record(FaultCase("store that is written", fault, "-", outcome, injected, injected))


@pytest.mark.parametrize("start", ["nothing", "orphans"])
def test_killed_at_any_call_the_store_is_whole_and_the_next_conversion_goes_on(
    place: Place, orphans: Path, fault_log: FaultLog, start: str
) -> None:
    base = orphans if start == "orphans" else None
    undisturbed = Undisturbed(place, base)
    kinds = {"open64", "write", "fsync", "fchmod", "rename", "mkdir", "utimensat"}
    assert set(undisturbed.calls) == kinds
    numbers = some_calls(undisturbed.calls, MOST if base is None else MOST // 2)
    for number in numbers:
        place.begin(base)
        done = place.run(place.command("a"), at=number)
        assert done.returncode == -signal.SIGKILL, (number, undisturbed.calls[number - 1])
        check_after(place, undisturbed)
    record(fault_log, "conversion killed at a call that writes", len(numbers))


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
def test_where_a_call_fails_one_line_says_so_and_the_store_is_whole(
    place: Place, orphans: Path, fault_log: FaultLog, error: int
) -> None:
    undisturbed = Undisturbed(place, orphans)
    numbers = some_calls(undisturbed.calls, MOST // 2)
    for number in numbers:
        place.begin(orphans)
        done = place.run(place.command("a"), at=number, errno=error)
        call = undisturbed.calls[number - 1]
        what = (number, call, done.stderr)
        if done.returncode == 0:
            # Of a directory that was there anyway.
            assert call == "mkdir" and tree_of(place.destination("a")) == undisturbed.tree, what
            check_after(place, undisturbed)
            continue
        expected = StorageFull if error == errno.ENOSPC else BootfsError
        assert done.returncode == expected.exit_code, what
        assert done.stderr.startswith("bootfs: ") and done.stderr.count("\n") == 1, what
        assert os.strerror(error) in done.stderr or "the disk is full" in done.stderr, what
        assert str(place.changed) in done.stderr, what
        assert not place.destination("a").exists(), what
        # Nothing half remains that a collection would have to take: it was not killed.
        assert [n for n in files_of(place.store) if n.endswith(".part")] == ["packs/tmpold.part"]
        check_after(place, undisturbed)
    name = errno.errorcode[error]
    record(fault_log, f"a call of a conversion fails with {name}", len(numbers))


@pytest.fixture(scope="module")
def two(place: Place) -> Path:
    """Give a whole store of two images that share a pack."""
    place.begin(None)
    for name in "ab":
        assert main(place.command(name)) == 0
    return Path(shutil.copytree(place.store, place.path / "two"))


def damage(store: Path) -> None:
    """Damage one object of each kind, and remove another."""
    for kind in ("packs/*", "indexes", "bootstraps", "manifests"):
        first, second = sorted(store.glob(f"{kind}/*"))
        first.write_bytes(first.read_bytes()[:-1] + b"?")
        if kind != "manifests":
            second.unlink()


def orphan_all(store: Path) -> None:
    make_orphans(store)
    (store / "indexes" / "tmp.part").touch()


@pytest.mark.parametrize("what", ["collect", "forget", "repair"])
def test_keeping_a_store_is_killed_at_any_call_and_done_again(
    place: Place, two: Path, fault_log: FaultLog, what: str
) -> None:
    image = min(two.glob("manifests/*")).name
    command, prepare = {
        "collect": (["collect", str(place.store), "--delete", "--grace", "0"], orphan_all),
        "forget": (["forget", str(place.store), f"blake3:{image}"], make_old),
        "repair": (["check", "--store", str(place.store), "--repair", str(two)], damage),
    }[what]
    log = place.path / "log"
    log.unlink(missing_ok=True)
    place.begin(two)
    prepare(place.store)
    done = place.run(command, log=log)
    assert done.returncode == 0, done.stderr
    calls = log.read_text().split()
    after = tree_of(place.store)
    numbers = some_calls(calls, MOST)
    for number in numbers:
        place.begin(two)
        prepare(place.store)
        before = tree_of(place.store)
        assert place.run(command, at=number).returncode == -signal.SIGKILL, calls[number - 1]
        if what == "repair":
            # Each is as it was, or whole.
            whole = tree_of(two)
            for name, data in tree_of(place.store).items():
                assert data in (before.get(name), whole.get(name)) or name.endswith(".part")
        else:
            assert problems_of(place.store) == []
        status = main(command)
        # One that had forgotten the image before it was killed has nothing left to do.
        assert status == 0 or (what == "forget" and status == 10), calls[number - 1]
        assert problems_of(place.store) == []
        left = {n: d for n, d in tree_of(place.store).items() if not n.endswith(".part")}
        assert left == after
    record(fault_log, f"{what} killed at a call that writes", len(numbers))


def start(arguments: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "converter.cli", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)


def finish(process: subprocess.Popen[str]) -> None:
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, output + errors


def check_images(place: Place) -> None:
    assert problems_of(place.store) == []
    for name in IMAGES:
        source, boot = f"docker-archive:{place.path}/{name}.tar", place.destination(name)
        assert main(["check", source, f"oci:{boot}", "--store", str(place.store)]) == 0


def test_conversions_at_once_into_one_store_are_all_complete(place: Place) -> None:
    for _ in range(ROUNDS):
        place.begin(None)
        again = place.changed / "again"
        same = [*place.command("a")[:2], f"oci:{again}", *place.command("a")[3:]]
        running = [start(same), *(start(place.command(name)) for name in IMAGES)]
        for process in running:
            finish(process)
        check_images(place)
        source = f"docker-archive:{place.path}/a.tar"
        assert main(["check", source, f"oci:{again}", "--store", str(place.store)]) == 0


def test_collections_beside_conversions_take_nothing_from_them(place: Place, orphans: Path) -> None:
    for _ in range(ROUNDS):
        place.begin(orphans)
        make_old(place.store)
        running = [start(place.command(name)) for name in IMAGES]
        collections = 0
        while not collections or any(process.poll() is None for process in running):
            assert main(["collect", str(place.store), "--delete"]) == 0
            collections += 1
        for process in running:
            finish(process)
        check_images(place)
        assert not (place.store / "packs" / "tmpold.part").exists()
