"""Run all tests in lines side by side, and count them together: `python -m tests.together`.

System tests wait for half of the time: for containers, for limits, for the kernel.  Beside them
run, at a low priority, those that need neither an engine nor privileges, and then more of their own
kind.  A line that is done takes the next part.  Arguments go to each pytest.
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
APART = ("system/same", "system/test_workload.py", "budget")
"""What looks at nothing that is others', and takes a third of the time that system tests take."""
LAST = ("fault", "soak")
LINES = 2
"""With a third one two processors were busy all the time, and limits of tests were near."""
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
    place: Path
    """Where its report is, and what it said, each with an ending."""
    before: Sequence[str] = ()
    """What runs it."""

    @property
    def report(self) -> Path:
        """Its JUnit report."""
        return self.place.with_suffix(".xml")

    @property
    def said(self) -> Path:
        """What it printed."""
        return self.place.with_suffix(".txt")

    def command(self, arguments: Sequence[str]) -> list[str]:
        """Give its line; none where no part exists."""
        paths = [f"tests/{part}" for part in self.parts if Path("tests", part).exists()]
        pytest = [sys.executable, "-m", "pytest", *paths, f"--junitxml={self.report}"]
        return [*self.before, *pytest, *arguments] if paths else []


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


def list_rest() -> list[str]:
    """Give the other system tests: one part, since some look at all that is mounted here."""
    files = sorted(f"system/{path.name}" for path in Path("tests/system").glob("test_*.py"))
    return [name for name in files if name not in APART]


def run_part(run: Run, command: Sequence[str], is_shown: bool) -> int:
    """Run a part, and give its exit code; what it prints is kept unless it is shown."""
    if is_shown:
        return subprocess.run(command, check=False).returncode
    with run.said.open("w") as file:
        return subprocess.run(
            command, stdout=file, stderr=subprocess.STDOUT, check=False
        ).returncode


def main(arguments: Sequence[str]) -> int:
    """Run all parts, print what each said, and a last line for all; give the exit code."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bootfs-tests-") as place:
        # In the order in which lines take them: what takes longest first.
        parts = [list_rest(), PURE, *((one,) for one in APART), LAST]
        runs = [
            Run(part, Path(place, str(number)), ["nice", "-n", str(NICE)] if part == PURE else ())
            for number, part in enumerate(parts)
        ]
        wanted = [(run, command) for run in runs if (command := run.command(arguments))]
        with ThreadPoolExecutor(LINES) as pool:
            going = [
                pool.submit(run_part, *one, is_shown=not number)
                for number, one in enumerate(wanted)
            ]
            codes = {one.result() for one in going}
        for run, _ in wanted[1:]:
            print(run.said.read_text(), flush=True)
        counted = count([run.report for run, _ in wanted])
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
