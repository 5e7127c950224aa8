"""Run all tests in two lines side by side, and count them together: `python -m tests.together`.

System tests wait most of the time: for containers, for limits, for the kernel.  Beside them run
first, at a low priority, those that need neither an engine nor privileges, and then those
that start the most containers.  Arguments go to each pytest.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

PURE = ("unit", "contract", "format", "property", "fuzz")
LONGEST = ("system/same", "system/test_workload.py")
"""What takes a third of the time that system tests take."""
REST = ("budget", "system", "fault", "soak")
NICE = 7
"""Some 17 % of a processor that system tests want too: at 19, which is 1.5 %, a login by ssh took
longer than the 10 s that it may."""
KINDS = ("failures", "errors", "skipped")
NO_TESTS = 5
"""pytest's exit code where the arguments select none."""


@dataclass(frozen=True)
class Run:
    """One pytest, over those of some parts that exist."""

    parts: Sequence[str]
    report: Path
    before: Sequence[str] = ()
    """What runs it."""
    options: Sequence[str] = ()

    def command(self, arguments: Sequence[str]) -> list[str]:
        """Give its line; none where no part exists."""
        paths = [f"tests/{part}" for part in self.parts if Path("tests", part).exists()]
        pytest = [sys.executable, "-m", "pytest", *paths, f"--junitxml={self.report}"]
        return [*self.before, *pytest, *self.options, *arguments] if paths else []


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
            if line
        ]


def main(arguments: Sequence[str]) -> int:
    """Run both lines, print what each said, and a last line for all; give the exit code."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bootfs-tests-") as place:
        said = Path(place, "beside.txt")
        ignored = [f"--ignore=tests/{part}" for part in LONGEST]
        rest = Run(REST, Path(place, "rest.xml"), options=ignored)
        pure = Run(PURE, Path(place, "pure.xml"), before=["nice", "-n", str(NICE)])
        longest = Run(LONGEST, Path(place, "longest.xml"))
        runs = [(run, run.command(arguments)) for run in (rest, pure, longest)]
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(run_beside, [command for _, command in runs[1:]], said)
            codes = {subprocess.run(runs[0][1], check=False).returncode} if runs[0][1] else set()
            codes.update(running.result())
        print(said.read_text(), flush=True)
        counted = count([run.report for run, command in runs if command])
    took_s = int(time.monotonic() - begun)
    print(
        f"{counted['passed']} passed, {counted['failures']} failed, {counted['errors']} errors,"
        f" {counted['skipped']} skipped, in all, in {took_s // 60} min {took_s % 60} s"
    )
    if codes != {NO_TESTS}:
        codes.discard(NO_TESTS)
    return max(codes, key=abs, default=NO_TESTS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
