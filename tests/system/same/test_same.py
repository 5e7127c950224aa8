"""A converted image behaves as its source does, but for what docs/differences.md lists."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.system.same.allowed import ALLOWED, FOR_MOMENTS, UNSEEN, entry_of, read_entries
from tests.system.same.every_case import CASES
from tests.system.same.modes import MODES

if TYPE_CHECKING:
    from tests.system.same.conftest import Outcomes

pytestmark = pytest.mark.system


def compared(mode: str) -> list[str]:
    """Give the cases that are compared in a mode."""
    return [name for name, case in CASES.items() if MODES[mode].whole or case.everywhere]


@pytest.mark.parametrize(
    ("mode", "case"), [(mode, case) for mode in MODES for case in compared(mode)]
)
def test_as_with_the_source_image(outcomes: Outcomes, mode: str, case: str) -> None:
    unlisted = [
        str(difference)
        for difference in outcomes.differences(case, mode)
        if entry_of(case, mode, difference) is None
    ]
    assert not unlisted, "not in docs/differences.md:\n" + "\n".join(unlisted)


def shown(mode: str, entry: str) -> list[str]:
    """Give the compared cases that may show an entry of the list."""
    forms = [allowed for allowed in ALLOWED if allowed.entry == entry]
    return [case for case in compared(mode) if any(form.matches_case(case) for form in forms)]


@pytest.mark.parametrize(
    ("mode", "entry"),
    [
        (mode, entry)
        for mode in MODES
        for entry, modes in read_entries().items()
        if mode in modes and entry not in FOR_MOMENTS and (MODES[mode].whole or shown(mode, entry))
    ],
)
def test_what_is_listed_still_occurs(outcomes: Outcomes, mode: str, entry: str) -> None:
    occurs = any(
        entry in {entry_of(case, mode, d) for d in outcomes.differences(case, mode)}
        for case in shown(mode, entry)
    )
    if entry in UNSEEN and UNSEEN[entry]():
        # Not a matter of what is installed: a kernel without AppArmor has no such difference.
        assert not occurs, f"{entry} occurs where it cannot: its pattern matches something else"
    else:
        assert occurs, f"{entry} does not occur any more: remove it from docs/differences.md"


def test_nothing_is_allowed_that_is_not_listed() -> None:
    assert {allowed.entry for allowed in ALLOWED} <= set(read_entries())


def test_the_list_names_modes_that_there_are() -> None:
    assert {mode for modes in read_entries().values() for mode in modes} <= {*MODES}
