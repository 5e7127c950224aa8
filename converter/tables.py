"""Tables for a terminal: columns as wide as what stands in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def iter_table(head: Sequence[str], rows: Sequence[Sequence[str | int]]) -> Iterator[str]:
    """Yield the lines of a table; numbers are set to the right, the last column is left open."""
    shown = [[f"{cell:,}" if isinstance(cell, int) else cell for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *shown, strict=True)]
    is_number = [all(isinstance(row[at], int) for row in rows) for at in range(len(head))]
    for cells in [list(head), *shown]:
        yield "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(cells, widths, is_number, strict=True)
        ).rstrip()
