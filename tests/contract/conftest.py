"""What contract suites share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from converter.cli import main


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Give a function that runs the command line and returns its status, output and errors."""

    def call(*arguments: object) -> tuple[int, str, str]:
        # What was said before is not this command's.
        capsys.readouterr()
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call
