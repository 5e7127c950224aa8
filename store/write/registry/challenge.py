"""What a registry asks for: the WWW-Authenticate header of its answer 401 (RFC 9110, 11.6.1)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# Spaces and commas between are one class, so that many of them cost no time.
_SCHEME = re.compile(rf"[\s,]*({_WORD})(?:\s+|\Z|(?=,))")
_PARAMETER = re.compile(rf"[\s,]*({_WORD})\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s,\"]+))")
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to authenticate."""

    scheme: str
    """In lower case: ``basic``, ``bearer``, …"""
    parameters: dict[str, str] = field(default_factory=dict)
    """By name in lower case."""


def parse_challenges(values: Iterable[str]) -> list[Challenge]:
    """Return the challenges in the values of WWW-Authenticate headers, in their order.

    What does not follow the grammar ends its value.
    """
    found = []
    for value in values:
        at = 0
        while scheme := _SCHEME.match(value, at):
            at = scheme.end()
            challenge = Challenge(scheme[1].lower())
            while parameter := _PARAMETER.match(value, at):
                at = parameter.end()
                text = parameter[3]
                if text is None:
                    text = _ESCAPED.sub(r"\1", parameter[2])
                challenge.parameters[parameter[1].lower()] = text
            found.append(challenge)
    return found
