"""Write the outcomes of injected faults into docs/reliability.md.

`python -m bench.reliability FILE…` reads the JSON lines that runs of tests/fault have added to the
file named by BOOTFS_RELIABILITY, and replaces what stands between the marks.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.report import TOP, replace_between
from bench.results import format_table

DOCUMENT = TOP / "docs" / "reliability.md"
COUNTS = ("injected", "reads", "wrong", "hangs")

Case = Mapping[str, Any]
"""A line of tests/support/faultlog.py."""


def read_cases(paths: Iterable[Path]) -> list[Case]:
    """Return the cases of all files, in their order."""
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def total_table(cases: Sequence[Case]) -> str:
    """Return the sums of each area, and of all."""
    sums: dict[str, Counter[str]] = {}
    for case in cases:
        for area in (case["area"], "all"):
            counted = sums.setdefault(area, Counter())
            counted["cases"] += 1
            counted.update({name: case[name] for name in COUNTS})
    ordered = [*sorted(area for area in sums if area != "all"), "all"]
    rows = [(area, *(f"{sums[area][name]:,}" for name in ("cases", *COUNTS))) for area in ordered]
    header = ("faults of", "cases", "injected", "reads compared", "wrong bytes", "hangs")
    return format_table(header, rows)


def fault_table(cases: Sequence[Case]) -> str:
    """Return the faults of one area with what came of each in each mode; counts are sums."""
    modes = list(dict.fromkeys(case["mode"] for case in cases))
    faults: dict[str, list[Case]] = {}
    for case in cases:
        faults.setdefault(case["fault"], []).append(case)
    rows = []
    for fault, of_fault in faults.items():
        told: dict[str, dict[str, None]] = {}
        for case in of_fault:
            told.setdefault(case["mode"], {})[case["outcome"]] = None
        outcomes = [" or ".join(told.get(mode, {"-": None})) for mode in modes]
        counts = (f"{sum(case[name] for case in of_fault):,}" for name in COUNTS)
        rows.append((fault, *outcomes, *counts))
    header = ("fault", *modes, "injected", "reads", "wrong", "hangs")
    return format_table(header, rows, texts=1 + len(modes))


def reliability_part(cases: Sequence[Case]) -> str:
    """Return what stands between the marks."""
    parts = [total_table(cases)]
    for area in sorted({case["area"] for case in cases}):
        of_area = [case for case in cases if case["area"] == area]
        parts += [f"## Faults of: {area}", fault_table(of_area)]
    return "\n\n".join(parts)


def main(arguments: list[str] | None = None) -> int:
    """Write the document."""
    parser = argparse.ArgumentParser(prog="python -m bench.reliability", description=main.__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    cases = read_cases(parser.parse_args(arguments).files)
    if not cases:
        print("reliability: no case; run tests/fault with BOOTFS_RELIABILITY", file=sys.stderr)
        return 1
    DOCUMENT.write_text(replace_between(DOCUMENT.read_text(), reliability_part(cases)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
