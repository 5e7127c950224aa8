"""All cases: whoever imports `CASES` from here has them whole."""

from __future__ import annotations

from tests.system.same import lifecycle, programs, run_options, volumes
from tests.system.same.cases import CASES

__all__ = ["CASES", "lifecycle", "programs", "run_options", "volumes"]
