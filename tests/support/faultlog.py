"""What a run of faults came to: one JSON line a case, for `python -m bench.reliability`."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

VARIABLE = "BOOTFS_RELIABILITY"
"""Names the file to add lines to, instead of one of the run's own."""


def is_soak() -> bool:
    """Whether long variants are wanted (`nox -s soak`)."""
    return os.environ.get("BOOTFS_SOAK", "") == "1"


@dataclass(frozen=True)
class FaultCase:
    """One fault in one mode, and what came of it."""

    area: str
    """What the fault befalls: ``network``, ``daemon``, ``cache``, …; a table of the document."""
    fault: str
    mode: str
    outcome: str
    """What was to be, and was: ``right bytes``, ``EIO, later right bytes``, …"""
    injected: int = 1
    """How many times the fault happened."""
    reads: int = 0
    """Reads whose every byte was compared with the source."""
    wrong: int = 0
    """Of them, how many gave wrong bytes."""
    hangs: int = 0
    """Reads that were not answered within their limit."""


class FaultLog:
    """Lines of cases, added to a file; may be used by many threads at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def record(self, case: FaultCase) -> None:
        """Add a case."""
        with self._lock, self.path.open("a") as file:
            file.write(json.dumps(asdict(case)) + "\n")
