"""What fetches show of the way to a store, and what is read ahead for that."""

from __future__ import annotations

import pytest

from store.read import link
from store.read.link import PACE, TRAIN, Arrivals, Link


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(link, "monotonic", clock)
    return clock


def bring(clock: Clock, way: Link, pieces: list[tuple[float, int]]) -> None:
    """Let an answer come: after each pause, so many bytes are there."""
    arrivals = Arrivals(way)
    for pause_s, size in pieces:
        clock.now += pause_s
        arrivals.saw(size)
    arrivals.end()


def test_nothing_is_known_at_first() -> None:
    assert Link().in_a_round_trip == 0


def test_the_pace_of_what_comes_close_together_is_the_rate(clock: Clock) -> None:
    way = Link()
    # A window of a connection that has just begun, a round trip, a window of twice the size.
    windows = [(0.2, 64_000), (0.005, 128_000), (0.2, 192_000), (0.005, 256_000), (0.005, 320_000)]
    bring(clock, way, windows)
    assert way.round_trip_s == pytest.approx(0.2)
    assert way.rate == pytest.approx(64_000 / 0.005)
    assert way.in_a_round_trip == pytest.approx(0.2 * 64_000 / 0.005, abs=1)
    # However fast the link, a processor is not.
    way.brought(1 << 20, 0.001)
    assert way.in_a_round_trip == pytest.approx(0.2 * PACE, abs=1)


def test_little_says_nothing_of_the_rate(clock: Clock) -> None:
    way = Link()
    bring(clock, way, [(0.01, 1000), (0.0001, 1000 + TRAIN - 1)])
    assert (way.round_trip_s, way.rate) == (pytest.approx(0.01), 0)


def test_another_try_does_not_count_as_bytes(clock: Clock) -> None:
    way = Link()
    bring(clock, way, [(0.1, 100_000), (0.001, 200_000), (0.001, 50_000), (0.001, 60_000)])
    assert way.rate == pytest.approx(100_000 / 0.001)


def test_what_is_better_counts_at_once_and_what_is_worse_slowly(clock: Clock) -> None:
    way = Link()
    bring(clock, way, [(0.1, 1), (0.01, 100_001)])
    bring(clock, way, [(0.3, 1), (0.02, 100_001)])
    assert 0.1 < way.round_trip_s < 0.12
    assert 9_000_000 < way.rate < 10_000_000
    for _ in range(100):
        bring(clock, way, [(0.3, 1), (0.02, 100_001)])
    assert way.round_trip_s == pytest.approx(0.3, rel=0.02)
    assert way.rate == pytest.approx(5_000_000, rel=0.02)
    bring(clock, way, [(0.05, 1), (0.01, 200_001)])
    assert (way.round_trip_s, way.rate) == (pytest.approx(0.05), pytest.approx(20_000_000))
