"""A failure of one of several runs is one of all, and all tests are counted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, str(ROOT / "tests" / "together.py"), "-p", "no:cacheprovider"]
ENVIRONMENT = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
"""Importing plugins would take nearly all of the time."""


def write(tests: Path, part: str, body: str) -> None:
    place = tests / part
    place.mkdir(parents=True)
    (place / f"test_{place.name}_part.py").write_text(f"def test_{place.name}():\n    {body}\n")


@pytest.mark.parametrize(
    ("bodies", "last", "code"),
    [
        (("assert 1",) * 3, "3 passed, 0 failed, 0 errors, 0 skipped", 0),
        (("assert 0", "assert 1", "assert 1"), "2 passed, 1 failed, 0 errors, 0 skipped", 1),
        (("assert 1", "assert 0", "assert 1"), "2 passed, 1 failed, 0 errors, 0 skipped", 1),
        (("assert 1", "assert 1", "assert 0"), "2 passed, 1 failed, 0 errors, 0 skipped", 1),
        (("raise SystemExit", "import os; os._exit(3)"), "0 passed, 1 failed, 1 errors", 3),
        (
            # The body of a made-up test: one that is skipped has to be counted as that.
            ("import pytest; pytest.skip('x')", "assert 1"),
            "1 passed, 0 failed, 0 errors, 1 skip",
            0,
        ),
        (("assert 1",), "1 passed, 0 failed, 0 errors, 0 skipped", 0),
    ],
)
def test_all_runs(tmp_path: Path, bodies: tuple[str, ...], last: str, code: int) -> None:
    for part, body in zip(("unit", "system", "system/same"), bodies, strict=False):
        write(tmp_path / "tests", part, body)
    done = subprocess.run(
        COMMAND, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[-1].startswith(last), done.stdout
    assert done.returncode == code


def test_arguments_that_select_tests_of_one_part_alone(tmp_path: Path) -> None:
    for part in ("unit", "system"):
        write(tmp_path / "tests", part, "pass")
    for arguments, code in ((["-k", "unit"], 0), (["-k", "nothing"], 5)):
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=tmp_path,
            env=ENVIRONMENT,
            capture_output=True,
            check=False,
        )
        assert done.returncode == code
