import time

import pytest

from store.errors import (
    AccessDenied,
    BootfsError,
    IntegrityError,
    PackNotFound,
    RemoteBusy,
    RemoteProtocolError,
    TimedOut,
    Unreachable,
)
from store.read import retry
from store.read.retry import until_done


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(retry, "LONGEST_WAIT_S", 0.01)


class Attempts:
    def __init__(self, *answers: bytes | Exception) -> None:
        self.answers = list(answers)
        self.left: list[float] = []

    def __call__(self, left_s: float) -> bytes:
        self.left.append(left_s)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_it_asks_again_while_that_can_help() -> None:
    attempt = Attempts(Unreachable("1"), TimedOut("2"), RemoteBusy("3"), b"found")
    assert until_done(attempt, 10, "it") == b"found"
    assert len(attempt.left) == 4
    assert attempt.left == sorted(attempt.left, reverse=True)


@pytest.mark.parametrize(
    "error", [PackNotFound("x"), AccessDenied("x"), RemoteProtocolError("x"), BootfsError("x")]
)
def test_it_does_not_where_it_cannot(error: BootfsError) -> None:
    attempt = Attempts(error)
    with pytest.raises(type(error)):
        until_done(attempt, 10, "it")
    assert len(attempt.left) == 1


def test_wrong_bytes_are_asked_for_once_more() -> None:
    assert until_done(Attempts(IntegrityError("1"), b"right"), 10, "it") == b"right"
    attempt = Attempts(Unreachable("1"), IntegrityError("2"), TimedOut("3"), IntegrityError("4"))
    with pytest.raises(IntegrityError, match="4"):
        until_done(attempt, 10, "it")
    assert len(attempt.left) == 4


def test_it_ends_at_the_limit_with_the_last_reason() -> None:
    started = time.monotonic()
    with pytest.raises(TimedOut, match="no route"):
        until_done(Attempts(Unreachable("no route")), 0.2, "it")
    assert time.monotonic() - started < 0.5


def test_what_is_back_shortly_before_the_limit_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT_S", 0.1)
    monkeypatch.setattr(retry, "LONGEST_WAIT_S", 60.0)
    started = time.monotonic()

    def attempt(_: float) -> bytes:
        if time.monotonic() - started < 1.6:
            raise Unreachable("gone")
        return b"back"

    # Waits that double alone would end at 1.5 s and 3.1 s, or give up before.
    assert until_done(attempt, 2.5, "it") == b"back"


def test_retry_after_is_kept() -> None:
    started = time.monotonic()
    assert until_done(Attempts(RemoteBusy("busy", 0.2), b"ok"), 10, "it") == b"ok"
    assert time.monotonic() - started >= 0.2


def test_retry_after_beyond_the_limit_is_not_waited_for() -> None:
    started = time.monotonic()
    with pytest.raises(TimedOut, match="busy"):
        until_done(Attempts(RemoteBusy("busy", 3600.0)), 5, "it")
    assert time.monotonic() - started < 1
