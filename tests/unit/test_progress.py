import io
import json

import pytest

from converter import progress
from converter.progress import Bar, JsonLines, Silent, choose_progress


def run(shown: progress.Progress) -> None:
    shown.step("read")
    shown.step("store", 100)
    for _ in range(10):
        shown.advance(10)
    shown.end()
    shown.end()


def test_json_lines_say_step_and_bytes_and_end_each_step_once() -> None:
    out = io.StringIO()
    run(JsonLines(out))
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    finished = [line for line in lines if line["finished"]]
    assert [line["step"] for line in finished] == ["read", "store"]
    assert finished[1] == {"step": "store", "done": 100, "total": 100, "finished": True}


def test_a_bar_ends_full_and_each_step_with_a_line() -> None:
    out = io.StringIO()
    run(Bar(out))
    assert out.getvalue().count("\n") == 2
    assert "100%" in out.getvalue()


def test_many_small_amounts_are_not_all_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    out = io.StringIO()
    shown = JsonLines(out)
    shown.step("store", 1000)
    for _ in range(1000):
        now[0] += 0.001
        shown.advance(1)
    assert len(out.getvalue().splitlines()) <= 1 + 1 / progress.INTERVAL_S


def test_without_a_terminal_it_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(choose_progress(None), Silent)
    assert isinstance(choose_progress("none"), Silent)
    run(choose_progress("none"))
    assert capsys.readouterr() == ("", "")
    assert isinstance(choose_progress("bar"), Bar)
    assert isinstance(choose_progress("json"), JsonLines)


def test_a_bar_makes_room_once_and_is_drawn_again() -> None:
    out = io.StringIO()
    shown = Bar(out)
    shown.make_room()
    assert out.getvalue() == ""
    shown.step("store", 100)
    shown.make_room()
    shown.make_room()
    assert out.getvalue().count("\r\x1b[K") == 2 and out.getvalue().endswith("\r\x1b[K")
    shown.advance(50)
    assert " 50%" in out.getvalue()
    shown.end()
    drawn = out.getvalue()
    shown.make_room()
    assert out.getvalue() == drawn
