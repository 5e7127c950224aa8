"""Recordings: when they end, what is sent of them, and what becomes of a trace that is not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from boot import recording as module
from boot.config import Settings
from boot.recording import KEPT, Recording
from boot.sending import send_object
from store.errors import AccessDenied, BootError, BootfsError
from store.format.bootconfig import BootConfig
from store.format.names import STORE_MARK, STORE_MARK_TEXT
from store.format.trace import parse_trace

IMAGE = b"\7" * 32
STORE = b"http://store.example"


def settings_of(**variables: str) -> Settings:
    config = BootConfig(b"1", b"x", b"\1" * 32, [b"sh"], STORE)
    return Settings(config, {name.encode(): value.encode() for name, value in variables.items()})


@pytest.mark.parametrize(
    ("record", "to", "url", "sends"),
    [
        ("1", "", "http://store.example", True),
        ("1", "store", "http://store.example", True),
        ("30", "s3://bucket/traces", "s3://bucket/traces", True),
        ("1", "/traces", "/traces", True),
        ("1", "cache", "", False),
        ("", "store", "http://store.example", False),
    ],
)
def test_where_a_trace_is_sent(record: str, to: str, url: str, sends: bool) -> None:
    settings = settings_of(BOOTFS_RECORD=record, BOOTFS_RECORD_TO=to)
    assert (settings.record_to, settings.sends_recording) == (url, sends)


@pytest.mark.parametrize("to", ["yes", "off", "traces/here", "s3:bucket"])
def test_what_is_no_place_for_traces_is_refused(to: str) -> None:
    with pytest.raises(BootError, match="give store, cache, or the URL of a store"):
        settings_of(BOOTFS_RECORD="1", BOOTFS_RECORD_TO=to)


class Recorded:
    """A recording of two reads, in a directory of its own, and what is said of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.said: list[str] = []
        self.recording = Recording(str(directory), IMAGE, [b"sh"], 60.0, self.said.append)
        self.recording.saw(0, 4096)
        self.recording.saw(8192, 100)
        (self.path,) = directory.iterdir()

    def end(self, send: module.Send | None, is_kept: Callable[[], bool] = lambda: True) -> None:
        """Have it sent, and return when that is done; reads that come later do not count."""
        self.recording.begin(send, is_kept)
        self.recording.end(exits=False)
        self.recording.wait_until_sent()
        self.recording.saw(0, 4096)


@pytest.fixture
def recorded(tmp_path: Path) -> Recorded:
    (tmp_path / "cache").mkdir()
    return Recorded(tmp_path / "cache")


def test_what_is_sent_is_the_trace_and_goes_from_the_cache(recorded: Recorded) -> None:
    sent: list[tuple[str, bytes, float]] = []

    def send(name: str, data: bytes, limit_s: float) -> str:
        sent.append((name, data, limit_s))
        return "there"

    recorded.end(send)
    ((name, data, limit_s),) = sent
    assert name == f"traces/{IMAGE.hex()}/{recorded.path.name}"
    # As at the end of a workload, which waits for it.
    assert limit_s == module.LAST_LIMIT_S
    trace = parse_trace(data, "it")
    assert [(first, pages) for _, first, pages in trace.reads] == [(0, 1), (2, 1)]
    assert not recorded.path.exists()
    assert recorded.said == [
        f"the trace is in there: {name}; bootfs profile add IMAGE --from-store takes it"
    ]


@pytest.mark.parametrize(
    ("kept", "place"), [(True, "in the cache volume: "), (False, "in the container, and goes")]
)
@pytest.mark.parametrize("error", [AccessDenied("no"), RuntimeError("a fault")])
def test_what_cannot_be_sent_stays_and_is_told_once(
    recorded: Recorded, error: Exception, kept: bool, place: str
) -> None:
    def send(*_: object) -> str:
        raise error

    recorded.end(send, lambda: kept)
    assert len(parse_trace(recorded.path.read_bytes(), "it").reads) == 2
    (line,) = recorded.said
    assert line.startswith("the trace is not sent: ")
    assert place in line or not isinstance(error, BootfsError)


def test_without_a_thread_it_stays_and_a_line_says_what_to_do(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(module, "start_new_thread", refuse)
    recorded.end(lambda *_: "there")
    assert recorded.path.exists()
    (line,) = recorded.said
    assert "--from CONTAINER takes it from there" in line and "--pids-limit" in line


def test_old_ones_go_and_the_newest_stay_also_where_nothing_is_sent(recorded: Recorded) -> None:
    for number in range(KEPT + 5):
        path = recorded.directory / f"trace-{number:016x}"
        path.touch()
        os.utime(path, (number, number))
    (recorded.directory / "present").touch()
    recorded.recording._remove_old()
    left = sorted(path.name for path in recorded.directory.iterdir())
    assert len(left) == KEPT + 1 and recorded.path.name in left
    assert f"trace-{5:016x}" not in left and f"trace-{KEPT + 4:016x}" in left


def test_each_mirror_that_does_not_take_it_is_named(tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in ("one", "two", "three"))
    second.mkdir()
    third.mkdir()
    (third / STORE_MARK).write_bytes(STORE_MARK_TEXT)

    def send(*places: Path) -> str:
        urls = "|".join(map(str, places))
        return send_object(urls, "traces/x/trace-1", b"data", 5.0, "", "")

    with pytest.raises(BootfsError) as caught:
        send(first, second)
    assert f"{first}/traces/x/trace-1: No such file or directory; " in str(caught.value)
    assert str(caught.value).endswith(f"{second}: there is no bootfs store")
    assert send(first, second, third) == str(third)
    assert (third / "traces/x/trace-1").read_bytes() == b"data"
    with pytest.raises(BootfsError, match="write no traces to such a store"):
        send_object("docker://registry.example/app", "traces/x/trace-1", b"", 5.0, "", "")
    assert [path.name for path in (third / "traces/x").iterdir()] == ["trace-1"]
