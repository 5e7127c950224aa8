"""A failure of either of two runs is one of both, and all tests are counted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("unit", "system", "last", "code"),
    [
        ("assert 1", "assert 1", "2 passed, 0 failed, 0 errors, 0 skipped", 0),
        ("assert 0", "assert 1", "1 passed, 1 failed, 0 errors, 0 skipped", 1),
        ("assert 1", "assert 0", "1 passed, 1 failed, 0 errors, 0 skipped", 1),
        ("raise SystemExit", "import os; os._exit(3)", "0 passed, 1 failed, 1 errors", 3),
        # The body of a made-up test: one that is skipped must be counted as that, not as passed.
        ("import pytest; pytest.skip('x')", "assert 1", "1 passed, 0 failed, 0 errors, 1 skip", 0),
    ],
)
def test_two_runs(tmp_path: Path, unit: str, system: str, last: str, code: int) -> None:
    for part, body in (("unit", unit), ("system", system)):
        place = tmp_path / "tests" / part
        place.mkdir(parents=True)
        (place / f"test_{part}_part.py").write_text(f"def test_it():\n    {body}\n")
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "together.py"), "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-1].startswith(last), done.stdout
    assert done.returncode == code


def test_arguments_that_select_tests_of_one_part_alone(tmp_path: Path) -> None:
    for part in ("unit", "system"):
        place = tmp_path / "tests" / part
        place.mkdir(parents=True)
        (place / f"test_{part}_part.py").write_text(f"def test_{part}():\n    pass\n")
    command = [sys.executable, str(ROOT / "tests" / "together.py"), "-p", "no:cacheprovider"]
    for arguments, code in ((["-k", "unit"], 0), (["-k", "nothing"], 5)):
        done = subprocess.run(
            [*command, *arguments], cwd=tmp_path, capture_output=True, check=False
        )
        assert done.returncode == code
