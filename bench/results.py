"""Keep what a benchmark measured: figures as ratios in one run, a table, and where it ran."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def summarize(values: Sequence[float]) -> dict[str, float]:
    """Give the least, the median and the number of some measured values."""
    return {
        "min": round(min(values), 4),
        "median": round(statistics.median(values), 4),
        "n": len(values),
    }


def describe_machine() -> dict[str, object]:
    """Say what the figures depend on; nothing that names the machine."""
    engine = subprocess.run(
        ["docker", "version", "--format", "{{.Server.Version}}"],
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "docker": engine.stdout.strip(),
    }


def write_results(name: str, figures: Mapping[str, object]) -> Path:
    """Write the figures, and the machine they were taken on, to bench/results/NAME.json."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    document = {"machine": describe_machine(), **figures}
    path.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    return path


def read_figures(name: str, directory: Path = RESULTS) -> dict[str, Any]:
    """Return the figures of NAME.json, and the machine they were taken on.

    Raises:
        FileNotFoundError: there are none of that name.
    """
    found: dict[str, Any] = json.loads((directory / f"{name}.json").read_text())
    return found


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> str:
    """Lay rows out as a Markdown table that also reads well as plain text.

    The first `texts` columns are aligned to the left, the figures after them to the right.
    """
    widths = [max(3, *(len(row[at]) for row in (header, *rows))) for at in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        aligned = (
            cell.ljust(width) if at < texts else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join(aligned)} |"

    rule = [
        "-" * width if at < texts else "-" * (width - 1) + ":" for at, width in enumerate(widths)
    ]
    return "\n".join(line(cells) for cells in (header, rule, *rows))
