"""Where in registries a layer is that many images share, so that it is sent once to each.

A registry takes a blob over from another of its repositories, but only if it is told
which.  What is remembered here may be wrong, or lost: then the layer is sent.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Self

from store.errors import UsageError
from store.write.registry.endpoint import parse_endpoint

_KEPT = 100
_LINE = re.compile(r"sha256:[0-9a-f]{64} (\S+)\Z")


class Places:
    """A file with lines of a digest and the URL of a repository, the latest last."""

    @classmethod
    def of_user(cls) -> Self:
        """Return what who runs this has in his cache."""
        chosen = os.environ.get("XDG_CACHE_HOME")
        cache = Path(chosen) if chosen else Path.home() / ".cache"
        return cls(cache / "bootfs" / "repositories")

    def __init__(self, path: Path) -> None:
        self._path = path

    def find(self, digest: str, url: str) -> str:
        """Return the name of a repository, beside the one at ``url``, that has a blob.

        Empty where none is known.
        """
        here = parse_endpoint(url)
        for line in reversed(self._lines()):
            held, _, place = line.partition(" ")
            if held != digest or place == str(here):
                continue
            there = parse_endpoint(place)
            if there.api == here.api:
                return there.repository
        return ""

    def add(self, digest: str, url: str) -> None:
        """Remember that the repository at ``url`` has a blob; where that fails, do not."""
        line = f"{digest} {parse_endpoint(url)}"
        known = [other for other in self._lines() if other != line]
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text("\n".join([*known[1 - _KEPT :], line]) + "\n")

    def _lines(self) -> list[str]:
        """Return the lines that are whole: others may be written at this moment."""
        try:
            lines = self._path.read_text(errors="replace").splitlines()
        except OSError:
            return []
        return [line for line in lines if _is_whole(line)]


def _is_whole(line: str) -> bool:
    found = _LINE.match(line)
    if found is None:
        return False
    try:
        parse_endpoint(found[1])
    except UsageError:
        return False
    return True
