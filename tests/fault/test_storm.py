"""Faults that come and go at random while a container reads everything: never a wrong byte."""

from __future__ import annotations

import errno
import threading
import time
from contextlib import closing
from random import Random
from typing import TYPE_CHECKING

import pytest

from boot.repeats import KEPT_S
from tests.fault.reading import MODES, Answer, Place, ReadingContainer, all_paths
from tests.fault.scenarios import SCENARIOS, Scenario
from tests.support.faultlog import FaultCase, FaultLog, is_soak

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.engine import Engine

pytestmark = pytest.mark.system

STORM_S = 300.0 if is_soak() else 4.0
"""In each mode."""
FILES = 1_000 if is_soak() else 20
"""Read by each container, at most."""
LONGEST_FAULT_S = 0.8
LONGEST_CALM_S = 0.3
WEATHER = {
    name: one
    for name, one in SCENARIOS.items()
    if one.recovers_within(1e9) is not None and not (one.tls or one.name_server)
}
PASSING = {
    name: one for name, one in WEATHER.items() if one.is_down or one.is_retried or one.recovers
}
"""Faults that a read gets through when they last shortly; any other ends a container of `lease`."""


class Storm:
    """One fault after the other at a relay, in a thread; a context manager."""

    def __init__(self, container: ReadingContainer, faults: dict[str, Scenario], seed: int) -> None:
        self.injected = 0
        self._container = container
        self._faults = list(faults.values())
        self._random = Random(seed)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._blow, daemon=True)

    def __enter__(self) -> Storm:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _blow(self) -> None:
        relay = self._container.relay
        while not self._over.is_set():
            fault = self._random.choice(self._faults).fault()
            relay.begin(fault)
            self._over.wait(self._random.uniform(0, LONGEST_FAULT_S))
            relay.end()
            self.injected += fault.injected
            self._over.wait(self._random.uniform(0, LONGEST_CALM_S))


@pytest.mark.parametrize("mode", MODES)
def test_a_storm_gives_no_wrong_byte_and_no_hang(
    engine: Engine, place: Place, fault_log: FaultLog, tmp_path: Path, mode: str
) -> None:
    plain_mode, _, mirrors = mode.partition(", ")
    faults = PASSING if mode == "lease" else WEATHER
    answers: list[Answer] = []
    injected = seed = 0
    deadline = time.monotonic() + STORM_S
    while time.monotonic() < deadline or not injected:
        seed += 1
        log = tmp_path / f"{seed}.log"
        container = ReadingContainer(place, engine, plain_mode, bool(mirrors), Scenario(), log)
        with closing(container):
            paths = all_paths()
            Random(seed).shuffle(paths)
            del paths[FILES:]
            with Storm(container, faults, seed) as storm:
                during = [container.read(path) for path in paths]
            injected += storm.injected
            assert not any(answer.has_ended for answer in during), container.lines()
            time.sleep(KEPT_S)
            later = [container.read(path) for path in paths]
            assert all(answer.is_right for answer in later), container.lines()
            answers += during + later
            assert {answer.errno for answer in during} <= {0, errno.EIO}
            # Of two mirrors one is always well.
            assert all(answer.is_right for answer in during) or not mirrors, container.lines()
    eio = sum(answer.errno == errno.EIO for answer in answers)
    fault_log.record(
        FaultCase(
            area="network",
            fault="all of them at random",
            mode=mode,
            outcome="right bytes, or EIO and later right bytes" if eio else "right bytes",
            injected=injected,
            reads=len(answers),
            wrong=sum(answer.is_wrong for answer in answers),
            hangs=sum(answer.hangs for answer in answers),
        )
    )
    assert not any(answer.is_wrong or answer.hangs for answer in answers)
