"""Run all tests in two lines side by side, and count them together: `python -m tests.together`.

System tests wait most of the time: for containers, for limits, for the kernel.  Beside them run
first, at the lowest priority, those that need neither an engine nor privileges, and then the
comparison with plain Docker, which starts the most containers.  Arguments go to each pytest.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PURE = ("unit", "contract", "format", "property", "fuzz")
COMPARISON = "system/same"
REST = ("budget", "system", "fault", "soak")
KINDS = ("failures", "errors", "skipped")
NO_TESTS = 5
"""pytest's exit code where the arguments select none."""


def command(parts: Sequence[str], report: Path, arguments: Sequence[str]) -> list[str]:
    """Give the line that runs the tests of those parts that exist."""
    paths = [f"tests/{part}" for part in parts if Path("tests", part).is_dir()]
    return [sys.executable, "-m", "pytest", *paths, f"--junitxml={report}", *arguments]


def count(reports: Sequence[Path]) -> dict[str, int]:
    """Sum up what reports say; a report that is missing counts as an error."""
    total = dict.fromkeys(("passed", *KINDS), 0)
    for report in reports:
        if not report.exists():
            total["errors"] += 1
            continue
        for suite in ET.parse(report).getroot().iter("testsuite"):
            found = {kind: int(suite.get(kind, "0")) for kind in KINDS}
            total["passed"] += int(suite.get("tests", "0")) - sum(found.values())
            for kind in KINDS:
                total[kind] += found[kind]
    return total


def run_beside(commands: Sequence[Sequence[str]], said: Path) -> list[int]:
    """Run the commands one after the other, what they print to ``said``; give their exit codes."""
    with said.open("w") as file:
        return [
            subprocess.run(line, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
            for line in commands
        ]


def main(arguments: Sequence[str]) -> int:
    """Run both lines, print what each said, and a last line for all; give the exit code."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bootfs-tests-") as place:
        reports = [Path(place, f"{name}.xml") for name in ("rest", "pure", "comparison")]
        said = Path(place, "beside.txt")
        beside = [
            ["nice", "-n", "19", *command(PURE, reports[1], arguments)],
            command([COMPARISON], reports[2], arguments),
        ]
        rest = [*command(REST, reports[0], arguments), f"--ignore=tests/{COMPARISON}"]
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(run_beside, beside, said)
            codes = {subprocess.run(rest, check=False).returncode}
            codes.update(running.result())
        print(said.read_text(), flush=True)
        counted = count(reports)
    took_s = int(time.monotonic() - begun)
    print(
        f"{counted['passed']} passed, {counted['failures']} failed, {counted['errors']} errors,"
        f" {counted['skipped']} skipped, in all, in {took_s // 60} min {took_s % 60} s"
    )
    if codes != {NO_TESTS}:
        codes.discard(NO_TESTS)
    return max(codes, key=abs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
