"""Whether all that an image needs can be fetched, asked of a store without fetching it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

from store.errors import (
    AccessDenied,
    BootfsError,
    IntegrityError,
    RemoteError,
    SizeMismatch,
    UsageError,
)
from store.format.chunkindex import ChunkIndex
from store.format.names import pack_name
from store.format.shownurl import shown
from store.interfaces import Source
from store.read.source import open_source
from store.write.hostsource import open_host_source

ASKED_AT_ONCE = 8
"""Packs: as many as a daemon has fetches under way, more or less."""


@dataclass(frozen=True, slots=True)
class Unfetchable:
    """A pack that cannot be fetched as the image needs it, or a whole mirror."""

    name: str
    """The pack's name; empty for all."""
    error: BootfsError

    def __str__(self) -> str:
        said = str(self.error)
        return said if not self.name or self.name in said else f"{self.name}: {said}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What one mirror said."""

    url: str
    packs: int
    """How many were asked for."""
    stored_bytes: int
    """Bytes of the image's chunks in them."""
    problems: tuple[Unfetchable, ...]

    def as_json(self) -> dict[str, object]:
        """Return what ``--json`` prints."""
        problems = [
            {"name": problem.name, "what": str(problem), "exit_code": problem.error.exit_code}
            for problem in self.problems
        ]
        return {"url": shown(self.url), "packs": self.packs, "problems": problems}

    def __str__(self) -> str:
        if not self.problems:
            needed = f"{self.packs} packs, {self.stored_bytes / 1e6:.1f} MB of them needed"
            return f"{shown(self.url)}: {needed}, all can be fetched"
        return "\n".join(f"{shown(self.url)}: {problem}" for problem in self.problems)


def ask_mirrors(index: ChunkIndex, urls: str, limit_s: float, auth: str) -> Iterator[Answer]:
    """Yield what each mirror of ``urls`` answers, in the order given.

    By two ranges of one byte for each pack: the last one, which must be there, and the
    one behind it, which must not.  ``limit_s`` bounds each, retries included.  ``auth`` is
    as for `open_source`; where it is empty, the credentials of this user are taken.

    Raises:
        UsageError: ``urls`` is none.

    """
    if not urls:
        raise UsageError(
            "the image names no store; give --store URL, as its containers get it by BLOB_STORE"
        )
    for url in urls.split("|"):
        yield _ask(index, url, limit_s, auth)


def _ask(index: ChunkIndex, url: str, limit_s: float, auth: str) -> Answer:
    packs = list(zip(index.pack_digests, index.pack_sizes, strict=True))
    problems: list[Unfetchable] = []
    try:
        source = open_source(url, limit_s, auth=auth) if auth else open_host_source(url, limit_s)
    except UsageError:
        raise
    except BootfsError as error:
        problems.append(Unfetchable("", error))
    else:
        with closing(source):
            problems += _ask_for_all(source, packs)
    return Answer(url, len(packs), sum(index.stored_sizes), tuple(problems))


def _ask_for_all(source: Source, packs: list[tuple[bytes, int]]) -> list[Unfetchable]:
    """Return what cannot be fetched; the whole mirror where it answers nobody."""
    first = [_ask_for(source, *pack) for pack in packs[:1]]
    for problem in first:
        # The others would take as long and say the same.
        if problem is not None and isinstance(problem.error, AccessDenied | RemoteError):
            return [Unfetchable("", problem.error)]
    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        others = pool.map(lambda pack: _ask_for(source, *pack), packs[1:])
        return [problem for problem in [*first, *others] if problem is not None]


def _ask_for(source: Source, digest: bytes, size: int) -> Unfetchable | None:
    name = pack_name(digest)
    try:
        source.fetch(name, size - 1, 1)
        try:
            source.fetch(name, size, 1)
        except SizeMismatch:
            return None
        raise IntegrityError(
            f"{name}: more than the {size} bytes of the pack; something else is in its place"
        )
    except BootfsError as error:
        return Unfetchable(name, error)
