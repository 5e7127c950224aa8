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
    NotFound,
    RemoteError,
    SizeMismatch,
    UsageError,
)
from store.format.chunkindex import ChunkIndex
from store.format.names import hot_pack_name, pack_name, profiles_name
from store.format.profile import DOCUMENT_LIMIT, parse_profiles
from store.format.shownurl import shown
from store.interfaces import Source
from store.read.source import open_source
from store.write.hostsource import open_host_source
from store.write.served import fetch_document

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
    warnings: tuple[str, ...] = ()
    """What only makes starts slower."""

    def as_json(self) -> dict[str, object]:
        """Return what ``--json`` prints."""
        problems = [
            {"name": problem.name, "what": str(problem), "exit_code": problem.error.exit_code}
            for problem in self.problems
        ]
        answer = {"url": shown(self.url), "packs": self.packs, "problems": problems}
        return answer | {"warnings": list(self.warnings)}

    def __str__(self) -> str:
        lines = [str(problem) for problem in self.problems]
        if not lines:
            needed = f"{self.packs} packs, {self.stored_bytes / 1e6:.1f} MB of them needed"
            lines = [f"{needed}, all can be fetched"]
        lines += [f"warning: {warning}" for warning in self.warnings]
        return "\n".join(f"{shown(self.url)}: {line}" for line in lines)


def ask_mirrors(
    image: bytes, index: ChunkIndex, urls: str, limit_s: float, auth: str
) -> Iterator[Answer]:
    """Yield what each mirror of ``urls`` answers, in the order given.

    ``image`` is the raw digest of ``index``.  By two ranges of one byte for each pack: the
    last one, which must be there, and the one behind it, which must not; so for hot packs.
    ``limit_s`` bounds each, retries included.  ``auth`` is as for `open_source`; where it is
    empty, the credentials of this user are taken.

    Raises:
        UsageError: ``urls`` is none.

    """
    if not urls:
        raise UsageError(
            "the image names no store; give --store URL, as its containers get it by BLOB_STORE"
        )
    for url in urls.split("|"):
        yield _ask(image, index, url, limit_s, auth)


def _ask(image: bytes, index: ChunkIndex, url: str, limit_s: float, auth: str) -> Answer:
    packs = list(zip(index.pack_digests, index.pack_sizes, strict=True))
    problems: list[Unfetchable] = []
    warnings: list[str] = []
    try:
        source = open_source(url, limit_s, auth=auth) if auth else open_host_source(url, limit_s)
    except UsageError:
        raise
    except BootfsError as error:
        problems.append(Unfetchable("", error))
    else:
        with closing(source):
            problems += _ask_for_all(source, packs)
            if not any(not problem.name for problem in problems):
                warnings += _ask_for_profiles(source, image)
    stored = sum(index.stored_sizes)
    return Answer(url, len(packs), stored, tuple(problems), tuple(warnings))


def _ask_for_profiles(source: Source, image: bytes) -> list[str]:
    """Return what cannot be fetched of an image's profiles, where it has some."""
    name = profiles_name(image)
    try:
        document = fetch_document(source, name, DOCUMENT_LIMIT)
        profiles = parse_profiles(document, image, name)
    except NotFound:
        return []
    except BootfsError as error:
        return [f"{Unfetchable(name, error)}; starts do without profiles"]
    problems = {
        one.hot_pack: _ask_for(source, hot_pack_name(one.hot_pack), one.hot_pack_size)
        for one in profiles
        if one.hot_pack_size
    }
    return [
        f"{problem}; starts do without this hot pack"
        for problem in problems.values()
        if problem is not None
    ]


def _ask_for_all(source: Source, packs: list[tuple[bytes, int]]) -> list[Unfetchable]:
    """Return what cannot be fetched; the whole mirror where it answers nobody."""
    first = [_ask_for_pack(source, pack) for pack in packs[:1]]
    for problem in first:
        # The others would take as long and say the same.
        if problem is not None and isinstance(problem.error, AccessDenied | RemoteError):
            return [Unfetchable("", problem.error)]
    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        others = pool.map(lambda pack: _ask_for_pack(source, pack), packs[1:])
        return [problem for problem in [*first, *others] if problem is not None]


def _ask_for_pack(source: Source, pack: tuple[bytes, int]) -> Unfetchable | None:
    digest, size = pack
    return _ask_for(source, pack_name(digest), size)


def _ask_for(source: Source, name: str, size: int) -> Unfetchable | None:
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
