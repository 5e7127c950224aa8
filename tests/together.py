"""Run all tests in two processes, and count them together: `python -m tests.together [ARGUMENT…]`.

System tests wait most of the time: for containers, for limits, for the kernel.  Beside them, at
the lowest priority, run those that need neither an engine nor privileges.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path

BESIDE = ("unit", "contract", "format", "property", "fuzz")
FIRST = ("budget", "system", "fault", "soak")
KINDS = ("failures", "errors", "skipped")
NO_TESTS = 5
"""pytest's exit code where the arguments select none."""


def command(parts: tuple[str, ...], report: Path, arguments: list[str]) -> list[str]:
    """Give the line that runs the tests of those parts that exist."""
    paths = [f"tests/{part}" for part in parts if Path("tests", part).is_dir()]
    return [sys.executable, "-m", "pytest", *paths, f"--junitxml={report}", *arguments]


def count(reports: list[Path]) -> dict[str, int]:
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


def main(arguments: list[str]) -> int:
    """Run both, print what each said, and a last line for both; give the exit code."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bootfs-tests-") as place:
        reports = [Path(place, "first.xml"), Path(place, "beside.xml")]
        with (
            Path(place, "beside.txt").open("w+") as said,
            subprocess.Popen(
                ["nice", "-n", "19", *command(BESIDE, reports[1], arguments)],
                stdout=said,
                stderr=subprocess.STDOUT,
            ) as beside,
        ):
            try:
                first = subprocess.run(command(FIRST, reports[0], arguments), check=False)
                beside.wait()
            finally:
                beside.terminate()
            said.seek(0)
            print(said.read(), flush=True)
        codes = {first.returncode, beside.returncode}
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
