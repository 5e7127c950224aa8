"""Pieces of an HTML page: everything that comes from an image is escaped here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True, slots=True)
class Bytes:
    """A number of bytes, shown in the unit that suits it, the exact number as its title."""

    size: int

    def __str__(self) -> str:
        return shown_size(self.size)


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a whole, shown in per cent and, where there is room, as a bar."""

    part: int
    whole: int


@dataclass(frozen=True, slots=True)
class Code:
    """A text such as a path or a command."""

    text: str


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time on an axis, all in the same unit; shown as a bar at its place."""

    start: float
    length: float
    whole: float


_SPACE = "\N{NO-BREAK SPACE}"
Cell = str | int | Bytes | Share | Code | Span


def shown_size(size: int) -> str:
    """Return a size with a unit, three digits of it at least."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.{1 if size >= 10 * factor else 2}f}{_SPACE}{unit}"
    return f"{size}{_SPACE}B"


def percent(part: int, whole: int) -> str:
    """Return a part of a whole in per cent."""
    return f"{100 * part / whole:.1f}{_SPACE}%" if whole else f"0{_SPACE}%"


def iter_table(caption: str, head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Iterator[str]:
    """Yield a table; the first cell of each row names it, columns of numbers stand to the right.

    A table that is wider than the screen scrolls by itself, by keyboard too.
    """
    kinds = [rows[0][at] if rows else "" for at in range(len(head))]
    yield f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
    yield f"<caption>{escape(caption)}</caption><thead><tr>"
    for name, kind in zip(head, kinds, strict=True):
        yield f'<th scope="col"{_class(kind)}>{escape(name)}</th>'
    yield "</tr></thead><tbody>"
    for row in rows:
        yield f'<tr><th scope="row">{_inner(row[0])}</th>'
        for cell in row[1:]:
            yield f"<td{_class(cell)}{_title(cell)}>{_inner(cell)}</td>"
        yield "</tr>"
    yield "</tbody></table></div>"


def _class(cell: Cell) -> str:
    if isinstance(cell, int | Bytes):
        return ' class="n"'
    if isinstance(cell, Span):
        return ' class="span"'
    return ' class="share"' if isinstance(cell, Share) else ""


def _title(cell: Cell) -> str:
    return f' title="{cell.size:,} bytes"' if isinstance(cell, Bytes) else ""


def _inner(cell: Cell) -> str:
    if isinstance(cell, Share):
        width = 100 * cell.part / cell.whole if cell.whole else 0
        bar = f'<b aria-hidden="true"><i style="width:{width:.1f}%"></i></b>'
        return f"{bar}<span>{percent(cell.part, cell.whole)}</span>"
    if isinstance(cell, Span):
        left = min(max(100 * cell.start / cell.whole, 0.0), 100.0) if cell.whole else 0.0
        width = min(max(100 * cell.length / cell.whole, 0.0), 100.0 - left) if cell.whole else 0.0
        place = f"left:{left:.2f}%;width:{width:.2f}%"
        return f'<b aria-hidden="true"><i style="{place}"></i></b>'
    if isinstance(cell, Code):
        return f"<code>{escape(cell.text)}</code>"
    return escape(f"{cell:,}" if isinstance(cell, int) else str(cell))
