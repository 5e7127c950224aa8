"""Each fault of a network in each mode: the right bytes, or EIO in time and the right bytes later.

The cases run beside one another, since most of the time they wait; a test looks at one of them.
"""

from __future__ import annotations

import errno
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from boot.repeats import KEPT_S
from tests.fault.reading import LATER, MODES, Answer, Place, ReadingContainer, path_of
from tests.fault.scenarios import SCENARIOS, Scenario
from tests.support.engine import Engine
from tests.support.faultlog import FaultCase, FaultLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.system

AT_ONCE = 6
"""Cases of one mode beside one another."""


@dataclass
class Outcome:
    """What a case has come to."""

    during: Answer
    injected: int
    later: list[Answer] = field(default_factory=list)
    exit_code: int | None = None
    """Where the container has ended."""
    lines: list[str] = field(default_factory=list)
    """Of its log."""
    is_returned_to: bool = False
    """The first mirror is asked again."""

    @property
    def answers(self) -> list[Answer]:
        """All reads."""
        return [self.during, *self.later]


class Lane:
    """Runs cases of one mode one after the other, in one container as far as that lives."""

    def __init__(self, place: Place, mode: str, directory: Path) -> None:
        self._place = place
        self._mode = mode
        self._directory = directory
        self._engine = Engine()
        self._count = 0
        self._container: ReadingContainer | None = None

    def close(self) -> None:
        """Remove the containers."""
        if self._container is not None:
            self._container.close()
        self._engine.close()

    def run(self, scenario: Scenario) -> Outcome:
        """Inject a fault, read meanwhile, and read again when it is over."""
        container = self._container_for(scenario)
        try:
            return self._run_in(container, scenario)
        finally:
            if container is not self._container:
                container.close()
            elif container.is_lost:
                container.close()
                self._container = None

    def _container_for(self, scenario: Scenario) -> ReadingContainer:
        """Give a new container, or one that has gone through others' faults."""
        is_shared = self._mode in ("erofs", "fuse") and not (scenario.tls or scenario.name_server)
        if is_shared and self._container is not None:
            self._container.group += 1
            return self._container
        mode, _, mirrors = self._mode.partition(", ")
        self._count += 1
        log = self._directory / f"{self._count}.log"
        container = ReadingContainer(self._place, self._engine, mode, bool(mirrors), scenario, log)
        if is_shared:
            self._container = container
        return container

    def _run_in(self, container: ReadingContainer, scenario: Scenario) -> Outcome:
        group = container.group
        later = []
        if self._mode != "lease":
            # There, what nobody has asked for comes in the background.
            later.append(container.read(path_of(group, "before")))
        fault = scenario.fault()
        if scenario.tls:
            fault.contexts = [self._place.untrusted if scenario.tls == "untrusted" else None]
        server = container.name_server
        if server is not None:
            # Before connections are cut, or new ones may be made to an address found by then.
            server.fault = scenario.name_server
        container.relay.begin(fault)
        over = threading.Event()

        def end() -> None:
            container.relay.end()
            if server is not None:
                server.fault = ""
            over.set()

        timer = threading.Timer(scenario.lasts_s, end)
        if scenario.lasts_s:
            timer.start()
        during = container.read(path_of(group, "during"))
        injected = fault.injected + (server.injected if server is not None else 0)
        outcome = Outcome(during, injected, later)
        if self._mode == "erofs, mirrors" and not scenario.is_long_left:
            self._see_return(container, end, outcome)
        elif not scenario.lasts_s:
            end()
        over.wait()
        if during.has_ended:
            outcome.exit_code = container.exit_code()
        elif not during.hangs:
            # What is asked for at once would be taken for the kernel's repetition.
            time.sleep(KEPT_S)
            later += [container.read(path_of(group, name)) for name in ("during", "after")]
        outcome.lines = container.lines()
        return outcome

    @staticmethod
    def _see_return(container: ReadingContainer, end: Callable[[], None], outcome: Outcome) -> None:
        """End the fault, and read on until the first mirror is asked again, which it has to be."""
        end()
        asked = container.relay.requests
        for number in range(LATER):
            # A mirror is left alone for 1 s, and twice that when it fails again.
            time.sleep(1.2 * 2**number)
            outcome.later.append(container.read(path_of(0, f"later{number}")))
            if container.relay.requests > asked:
                outcome.is_returned_to = True
                return


class Cases:
    """The cases that are wanted, under way."""

    def __init__(self, place: Place, wanted: set[tuple[str, str]], directory: Path) -> None:
        self._lanes: list[Lane] = []
        self._futures: dict[tuple[str, str], Future[Outcome]] = {}
        self._pools = [ThreadPoolExecutor(AT_ONCE) for _ in MODES]
        for mode, pool in zip(MODES, self._pools, strict=True):
            free: list[Lane] = []
            for number in range(AT_ONCE):
                own = directory / f"{mode}{number}"
                own.mkdir()
                free.append(Lane(place, mode, own))
            self._lanes += free
            for name in SCENARIOS:
                if (name, mode) in wanted:
                    self._futures[name, mode] = pool.submit(self._run, free, SCENARIOS[name])

    @staticmethod
    def _run(free: list[Lane], scenario: Scenario) -> Outcome:
        # As many as there are threads, so there is one.
        lane = free.pop()
        try:
            return lane.run(scenario)
        finally:
            free.append(lane)

    def outcome(self, name: str, mode: str) -> Outcome:
        """Return what a case has come to, when it has."""
        return self._futures[name, mode].result()

    def close(self) -> None:
        """Wait for all, and remove the containers."""
        for pool in self._pools:
            pool.shutdown(cancel_futures=True)
        for lane in self._lanes:
            lane.close()


@pytest.fixture(scope="module")
def cases(
    request: pytest.FixtureRequest, place: Place, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cases]:
    """Give all cases that this run looks at."""
    wanted = {
        (str(item.callspec.params["fault"]), str(item.callspec.params["mode"]))
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and item.originalname == test_a_fault_gives_no_wrong_byte_and_no_hang.__name__
    }
    cases = Cases(place, wanted, tmp_path_factory.mktemp("cases"))
    yield cases
    cases.close()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fault", SCENARIOS)
def test_a_fault_gives_no_wrong_byte_and_no_hang(
    cases: Cases, place: Place, fault_log: FaultLog, fault: str, mode: str
) -> None:
    outcome = cases.outcome(fault, mode)
    fault_log.record(
        FaultCase(
            area="network",
            fault=fault,
            mode=mode,
            outcome=told(outcome),
            injected=outcome.injected,
            reads=sum(not answer.has_ended for answer in outcome.answers),
            wrong=sum(answer.is_wrong for answer in outcome.answers),
            hangs=sum(answer.hangs for answer in outcome.answers),
        )
    )
    assert outcome.injected
    assert not any(answer.is_wrong or answer.hangs for answer in outcome.answers)
    recovers = True if "mirrors" in mode else SCENARIOS[fault].recovers_within(place.limit_s)
    if recovers is not None:
        assert outcome.during.is_right == recovers, outcome.lines
    if outcome.during.has_ended:
        assert mode == "lease"
        assert outcome.exit_code == 125
        assert outcome.lines and outcome.lines[-1].startswith("bootfs: ")
        return
    assert outcome.during.is_right or outcome.during.errno == errno.EIO
    assert outcome.during.is_right or mode != "lease"
    assert all(answer.is_right for answer in outcome.later), outcome.lines
    if "mirrors" in mode:
        assert outcome.is_returned_to != SCENARIOS[fault].is_long_left, outcome.lines


def told(outcome: Outcome) -> str:
    """Say in the words of the document what a case has come to."""
    if outcome.during.hangs:
        return "no answer"
    if outcome.during.has_ended:
        return f"ends with {outcome.exit_code}"
    first = "right bytes" if outcome.during.is_right else "EIO"
    if outcome.during.is_right and outcome.is_returned_to:
        return "right bytes, later from the first again"
    return first if outcome.during.is_right else f"{first}, later right bytes"
