"""The images of the suite, and what the cases showed, each done once for each way."""

from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.support.require import require
from tests.system.same.cases import CASES
from tests.system.same.comparing import Difference, differences
from tests.system.same.sides import PROBE, Images, Side

if TYPE_CHECKING:
    from tests.support.converted import Conversions


class Outcomes:
    """What each case showed, done when it is first asked for."""

    def __init__(self, images: Images, conversions: Conversions) -> None:
        self._images = images
        self._conversions = conversions
        self._shown: dict[tuple[str, str | None], str] = {}

    def shown(self, case: str, mode: str | None) -> str:
        """Give what a case showed; without a mode, with the source image."""
        key = (case, mode)
        if key not in self._shown:
            side = Side(self._images, mode, self._conversions.url, self._conversions.directory)
            try:
                self._shown[key] = CASES[case].do(side)
            finally:
                side.close()
        return self._shown[key]

    def differences(self, case: str, mode: str) -> list[Difference]:
        """Give what a case showed otherwise with the converted image."""
        with ThreadPoolExecutor(2) as both:
            # Most of a container's time is the engine's.
            plain, booted = both.map(lambda way: self.shown(case, way), (None, mode))
        return differences(plain, booted)


@pytest.fixture(scope="session")
def outcomes(
    conversions: Conversions, base_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Outcomes:
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
    return Outcomes(
        Images(base, engine.build, lambda source: conversions.convert(source).boot), conversions
    )
