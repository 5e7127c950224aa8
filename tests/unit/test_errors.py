from pathlib import Path

import pytest

from boot.log import log
from converter.cli import DIFFERENT, EXIT_STATUS, INTERRUPTED
from store.errors import (
    BootError,
    BootfsError,
    DigestMismatch,
    FormatError,
    RemoteBusy,
    SizeMismatch,
)
from store.exitcodes import OTHER, document, iter_errors, owns_code

DOCUMENT = Path(__file__).parents[2] / "docs" / "exit-codes.md"


def test_the_document_is_current() -> None:
    assert DOCUMENT.read_text() == document(), "python -m store.exitcodes > docs/exit-codes.md"


def test_no_code_has_two_meanings() -> None:
    owners = [kind.exit_code for kind in iter_errors() if owns_code(kind)]
    assert len(owners) == len(set(owners))
    assert not set(owners) & set(OTHER)
    assert {DIFFERENT, INTERRUPTED} <= set(OTHER)


def test_every_code_can_be_an_exit_code_and_keeps_clear_of_signals() -> None:
    assert all(0 < kind.exit_code < 128 for kind in iter_errors())


def test_the_help_names_the_codes_of_the_command_line() -> None:
    codes = {
        kind.exit_code
        for kind in iter_errors()
        if owns_code(kind) and not issubclass(kind, BootError)
    }
    for code in codes | {0, DIFFERENT, INTERRUPTED}:
        assert f"{code} " in EXIT_STATUS.replace("\n", " ")


def test_every_error_says_what_it_is() -> None:
    for kind in iter_errors():
        assert kind.__doc__ and kind.__doc__.partition("\n")[0].endswith(".")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (DigestMismatch("pack", "blake3:aa", "blake3:bb"), ("pack", "blake3:aa", "blake3:bb")),
        (SizeMismatch("pack", 10, 5), ("pack", "10", "5")),
        (FormatError("pack", 7, "no magic"), ("pack", "7", "no magic")),
        (RemoteBusy("busy", 1.5), ("busy",)),
    ],
)
def test_messages_have_the_thing_and_the_numbers(
    error: BootfsError, words: tuple[str, ...]
) -> None:
    assert all(word in str(error) for word in words)


def test_a_line_is_logged_once(capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        log("one line\nand no more \udcff")
    assert capfd.readouterr().err.count("bootfs: one line and no more") == 1
