"""The picture of a start: its steps, what was asked of the store, who waited, what was used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from itertools import pairwise

from converter.firstuse import FetchedFile
from converter.statusfile import Read, Request, StatusFile, shown_name

WIDTH = 1000
LEFT, RIGHT = 150, 980
"""Between these is time; to the left, what each band shows."""
ROW = 9
"""Height of a bar with the gap below it."""
LANES = 40
"""Bars one above the other, at most; those that find no room lie on the last."""
QUIET_S = 2.0
"""A start is over when nothing was asked or read for so long, after its workload began."""
STEP_NAMES = {
    "served": "daemon ready",
    "mounted": "image mounted",
    "rooted": "root made",
    "handed": "workload begins",
}


def start_of(status: StatusFile) -> tuple[float, list[Request], list[Read]]:
    """Return when the start was over, in seconds, and what was asked and read until then."""
    events = [(request.begun_s, request.begun_s + request.took_s) for request in status.requests]
    events += [(read.begun_s, read.begun_s + read.waited_s) for read in status.reads]
    end = max((at for name, at in status.steps.items() if name != "ended"), default=0.0)
    for begun_s, ended_s in sorted(events):
        if begun_s > end + QUIET_S:
            break
        end = max(end, ended_s)
    return (
        max(end, 0.001),
        [request for request in status.requests if request.begun_s <= end],
        [read for read in status.reads if read.begun_s <= end],
    )


def iter_waterfall(status: StatusFile, files: Sequence[FetchedFile]) -> Iterator[str]:
    """Yield the picture and its key; all times in it are also in the tables of the page."""
    end, requests, reads = start_of(status)
    bars: list[str] = []
    y = 24
    y = _add_steps(bars, y, status, end)
    spans = [
        (
            request.begun_s,
            request.took_s,
            "failed" if request.has_failed else "request",
            f"{request.size:,} bytes, {1000 * request.took_s:.1f} ms",
        )
        for request in requests
    ]
    y = _add_band(bars, y, f"{len(spans):,} requests", spans, end)
    waits = [
        (
            read.begun_s,
            read.waited_s,
            "wait",
            f"{shown_name(read.name)}, {1000 * read.waited_s:.1f} ms",
        )
        for read in reads
        if read.waited_s
    ]
    y = _add_band(bars, y, f"{len(waits):,} reads waited", waits, end)
    used = [file for file in files if file.first is not None and file.first.begun_s <= end]
    uses = [
        (file.first.begun_s, 0.0, "use", shown_name(file.path))
        for file in used
        if file.first is not None
    ]
    y = _add_band(bars, y, f"{len(uses):,} files used", uses, end)
    yield '<div class="scroll" tabindex="0" role="region" aria-label="The start as a waterfall">'
    yield f'<svg class="fall" viewBox="0 0 {WIDTH} {y + 4}" role="img"'
    yield 'aria-label="The start as a waterfall">'
    yield from _iter_axis(end, y)
    yield from bars
    yield '</svg></div><ul class="key">'
    for name, what in (
        ("step", "steps of the start"),
        ("request", "requests to the store, those that nobody waited for too"),
        ("failed", "requests that failed"),
        ("wait", "reads that waited"),
        ("use", "first use of a file that was fetched"),
    ):
        yield f'<li><i class="{name}" aria-hidden="true"></i>{what}</li>'
    yield "</ul>"


def _place(at: float, end: float) -> float:
    return LEFT + (RIGHT - LEFT) * min(max(at / end, 0.0), 1.0)


def _iter_axis(end: float, height: int) -> Iterator[str]:
    unit = 10.0**-9
    while end / unit > 12:
        unit *= 10
    step = next(unit * factor for factor in (1, 2, 5, 10) if end / (unit * factor) <= 8)
    for number in range(int(end / step) + 1):
        x = _place(number * step, end)
        label = f"{number * step:g} s" if step >= 1 else f"{1000 * number * step:g} ms"
        yield f'<line class="axis" x1="{x:.1f}" y1="16" x2="{x:.1f}" y2="{height}"/>'
        yield f'<text x="{x:.1f}" y="12" text-anchor="middle">{label}</text>'


def _add_steps(bars: list[str], y: int, status: StatusFile, end: float) -> int:
    made = sorted((at, name) for name, at in status.steps.items() if name != "ended")
    for (before, _), (at, name) in pairwise(made):
        what = STEP_NAMES.get(name, name)
        bars.append(_bar(before, at - before, "step", f"{what}: at {1000 * at:.1f} ms", y, end))
        bars.append(f'<text x="{LEFT - 8}" y="{y + 9}" text-anchor="end">{escape(what)}</text>')
        y += 16
    return y + 8


def _add_band(
    bars: list[str], y: int, label: str, spans: Sequence[tuple[float, float, str, str]], end: float
) -> int:
    """Add bars in as few lanes as keep them apart; return where the next band begins."""
    bars.append(f'<text x="{LEFT - 8}" y="{y + 9}" text-anchor="end">{escape(label)}</text>')
    # Two pixels are the narrowest bar.
    gap = 3 * end / (RIGHT - LEFT)
    free: list[float] = []
    for begun_s, took_s, kind, title in sorted(spans):
        lane = next((n for n, until in enumerate(free) if until <= begun_s), len(free))
        lane = min(lane, LANES - 1)
        if lane == len(free):
            free.append(0.0)
        free[lane] = max(free[lane], begun_s + max(took_s, gap))
        bars.append(_bar(begun_s, took_s, kind, title, y + lane * ROW, end))
    return y + max(len(free), 2) * ROW + 10


def _bar(begun_s: float, took_s: float, kind: str, title: str, y: int, end: float) -> str:
    x = _place(begun_s, end)
    width = max(_place(begun_s + took_s, end) - x, 2.0)
    return (
        f'<rect class="{kind}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW - 1}">'
        f"<title>{escape(title)}</title></rect>"
    )
