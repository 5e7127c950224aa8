"""The images of the suite, and what the cases showed, each done once for each way."""

from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.support.engine import EngineError
from tests.support.require import require
from tests.system.same.cases import CASES
from tests.system.same.comparing import Difference, differences
from tests.system.same.sides import PROBE, Images, Side

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tests.support.converted import Conversions

AT_ONCE = 2
"""Ways of a case that are gone at once."""
BUSY = "ext file busy"
"""What docs/differences.md says of execve(2) in mode ``lease``, "while files are being filled"."""
TRIES = 3


class Outcomes:
    """What each case showed, done when it is first asked for."""

    def __init__(
        self,
        images: Images,
        conversions: Conversions,
        network: str,
        compared: Iterable[tuple[str, str]],
    ) -> None:
        """Do nothing yet; ``compared`` are the cases and modes that will be asked for."""
        self._images = images
        self._conversions = conversions
        self._network = network
        self._modes: dict[str, list[str]] = {}
        for case, mode in compared:
            self._modes.setdefault(case, []).append(mode)
        # Most of a container's time is the engine's.
        self._pool = ThreadPoolExecutor(AT_ONCE)
        self._shown: dict[tuple[str, str | None], Future[str]] = {}

    def close(self) -> None:
        """Let nothing begin any more, and wait for what has."""
        self._pool.shutdown(cancel_futures=True)

    def differences(self, case: str, mode: str) -> list[Difference]:
        """Give what a case showed otherwise with the converted image."""
        for way in (None, mode, *self._modes.get(case, ())):
            # All ways of a case at once: its other modes are asked for later.
            if (case, way) not in self._shown:
                self._shown[case, way] = self._pool.submit(self._do, case, way)
        plain, booted = self._shown[case, None], self._shown[case, mode]
        return differences(plain.result(), booted.result())

    def _do(self, case: str, mode: str | None) -> str:
        for _ in range(TRIES - 1 if mode == "lease" else 0):
            try:
                shown = self._do_once(case, mode)
            except EngineError as error:
                if BUSY not in str(error):
                    raise
            else:
                if BUSY not in shown:
                    return shown
        return self._do_once(case, mode)

    def _do_once(self, case: str, mode: str | None) -> str:
        store = self._conversions
        side = Side(self._images, mode, store.url, store.directory, self._network)
        try:
            return CASES[case].do(side)
        finally:
            side.close()


@pytest.fixture(scope="session")
def outcomes(
    request: pytest.FixtureRequest,
    conversions: Conversions,
    network: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Outcomes]:
    """Give what the cases showed."""
    require("docker", "gcc")
    context = tmp_path_factory.mktemp("same") / "context"
    shutil.copytree(PROBE, context)
    for name in ("calls", "static", "sweep"):
        source, program = context / f"{name}.c", context / name
        subprocess.run(["gcc", "-static", "-O1", "-o", program, source], check=True)
    for name in ("all", "calls", "static"):
        (context / name).chmod(0o755)
    engine = conversions.engine
    base = engine.build((context / "Dockerfile").read_text(), context)
    images = Images(base, engine.build, lambda source: conversions.convert(source).boot)
    outcomes = Outcomes(images, conversions, network, _compared(request.session.items))
    yield outcomes
    outcomes.close()


def _compared(tests: Sequence[pytest.Item]) -> Iterator[tuple[str, str]]:
    """Yield case and mode of each comparison among tests."""
    for test in tests:
        if isinstance(test, pytest.Function) and hasattr(test, "callspec"):
            chosen = test.callspec.params
            if "case" in chosen and "mode" in chosen:
                yield str(chosen["case"]), str(chosen["mode"])
