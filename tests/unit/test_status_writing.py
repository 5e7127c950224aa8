"""PID 1's side: told by the kernel of who looks, and writing whatever lies in its place."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from boot import status as module
from boot.config import WRITABLE
from boot.status import ASKED, DIRECTORY, Status
from converter import asking
from converter.statusfile import parse_status
from store.format.status import HANDED
from store.read.counts import Counts
from tests.support.statuses import CHUNK_INDEX

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


_watching: list[Status] = []
_told: list[int] = []


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give the directory of status files; a handler notes what PID 1 waits for."""
    monkeypatch.setattr(module, "DIRECTORY", str(tmp_path / "status"))
    before = signal.signal(ASKED, lambda number, _: _told.append(number))
    yield tmp_path / "status"
    # Or the kernel would go on telling, and end this process.
    while _watching:
        if (directory := _watching.pop()._directory) >= 0:
            os.close(directory)
    was_told()
    signal.signal(ASKED, before)


def watching() -> Status:
    status = Status()
    status.watch("erofs", CHUNK_INDEX, "name")
    _watching.append(status)
    return status


def was_told() -> bool:
    told = bool(_told)
    _told.clear()
    return told


def test_the_directory_is_on_the_container_s_own_volume() -> None:
    assert f"{WRITABLE}/status" == DIRECTORY == asking.DIRECTORY


def test_the_kernel_tells_of_who_looks(place: Path) -> None:
    status = watching()
    assert not was_told()
    os.listdir(place)
    assert was_told()
    status.answer()
    # What is written here is no reading.
    assert not was_told()
    assert [path.name for path in place.iterdir()] == ["name"]
    assert was_told()
    parse_status((place / "name").read_bytes())
    assert was_told()


def test_what_is_written_is_as_of_then(place: Path) -> None:
    status = watching()
    counts = Counts(status.memory)
    status.write()
    assert parse_status((place / "name").read_bytes()).numbers["requests"] == 0
    counts.add_request(0, 0, 5, 1, 0.0)
    status.step(HANDED)
    status.write(has_ended=True)
    said = parse_status((place / "name").read_bytes())
    assert (said.numbers["requests"], said.has_ended) == (1, True)
    assert set(said.steps) == {"begun", "handed"}
    assert status.number("fetched_bytes") == 5


def test_daemons_are_counted_from_the_one_that_serves(place: Path) -> None:
    status = Status()
    for _ in range(2):
        # Of a mode that was tried in vain, and of the one that worked.
        Counts(status.memory)
    _watching.append(status)
    status.watch("fuse", CHUNK_INDEX, "name")
    assert status.number("daemons") == 1
    status.count_daemon()
    status.write()
    assert parse_status((place / "name").read_bytes()).numbers["daemons"] == 2


def test_many_questions_at_once_have_one_answer(place: Path) -> None:
    status = watching()
    status.answer()
    first = (place / "name").stat().st_ino
    status.answer()
    assert (place / "name").stat().st_ino == first


@pytest.mark.parametrize("kind", ["file", "link", "fifo", "dangling"])
def test_what_lies_in_its_place_is_not_written_to(place: Path, tmp_path: Path, kind: str) -> None:
    status = watching()
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for name in ("name", "name.new"):
        if kind == "file":
            os.link(victim, place / name)
        elif kind == "fifo":
            os.mkfifo(place / name)
        else:
            (place / name).symlink_to(victim if kind == "link" else tmp_path / "nothing")
    status.write()
    assert victim.read_text() == "mine"
    assert not (tmp_path / "nothing").exists()
    assert (place / "name").stat().st_mode == 0o100600
    parse_status((place / "name").read_bytes())


def test_what_cannot_be_written_is_said_and_ends_nothing(
    place: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    status = watching()
    (place / "name.new").mkdir()
    status.write()
    assert "bootfs: status: Is a directory" in capfd.readouterr().err
    assert not (place / "name").exists()


def test_without_a_volume_nothing_is_written(place: Path) -> None:
    place.write_text("no directory")
    watching().write()
    place.unlink()
    place.parent.joinpath("elsewhere").mkdir()
    place.symlink_to(place.parent / "elsewhere")
    watching().write()
    assert not list(place.parent.joinpath("elsewhere").iterdir())
