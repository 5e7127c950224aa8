"""What a case is: something done the same way with either image, and what it showed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.system.same.sides import Side


@dataclass(frozen=True)
class Case:
    """One thing to be done with either image."""

    do: Callable[[Side], str]
    """Does it; gives what it showed, in sections that each begin with a line ``== NAME``."""
    everywhere: bool
    """Compared also in modes that are not compared whole."""


CASES: dict[str, Case] = {}
"""By name, in the order in which they are written down."""


def case(*, everywhere: bool = False) -> Callable[[Callable[[Side], str]], Callable[[Side], str]]:
    """Make a function a case of its name."""

    def register(do: Callable[[Side], str]) -> Callable[[Side], str]:
        add(do.__name__.replace("_", "-"), do, everywhere=everywhere)
        return do

    return register


def add(name: str, do: Callable[[Side], str], *, everywhere: bool = False) -> None:
    """Make a function a case.

    Raises:
        ValueError: there is one of this name.

    """
    if name in CASES:
        raise ValueError(f"two cases are called {name}")
    CASES[name] = Case(do, everywhere)


def titled(**parts: Any) -> str:
    """Give sections, each under its title."""
    return "".join(f"== {title.replace('_', ' ')}\n{text}\n" for title, text in parts.items())
