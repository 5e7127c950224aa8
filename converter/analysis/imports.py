"""What Python source imports when it runs: found line by line, not parsed.

The imports of a program with pandas are 1,000 files, 17 MB of source: `ast` takes some ten
times as long for them as this, and no source can hang or exhaust it.  What stands
within a function, or for type checkers alone, is not run at once and does not count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

NAME_LIMIT = 200
_LINES_A_STEP = 8

_LINE = re.compile(
    rb"^([ \t]*)(?:(import|from)[ \t]+([^\n#]*)|(def|class|async|if|else|elif|try|with|for|while)\b"
    rb"([^\n]*))",
    re.MULTILINE,
)
_DOTTED = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
_FROM = re.compile(rb"(\.*)[ \t]*([A-Za-z0-9_.]*)[ \t]+import\b[ \t]*(.*)", re.DOTALL)
_TYPES = re.compile(rb"[ \t]*(?:typing\.)?TYPE_CHECKING\b")
_MAIN = re.compile(rb"[ \t]*__name__[ \t]*==")
_NAMES_LIMIT = 4000


def iter_imports(
    source: bytes, spend: Callable[[int], None], *, is_main: bool
) -> Iterator[tuple[int, bytes, list[bytes]]]:
    """Yield what a module imports: leading dots, dotted name, names taken out of it.

    ``import a.b`` has no names; ``from . import c`` has one dot and no dotted name.  What
    stands under ``if __name__ == …`` counts where the module is the program.  ``spend`` is
    told of work done, and may end it by raising.
    """
    closed: int | None = None  # the indent of a block that is not run
    for number, match in enumerate(_LINE.finditer(source)):
        if number % _LINES_A_STEP == 0:
            spend(1)
        indent = len(match[1])
        if closed is not None and indent > closed:
            continue
        closed = None
        if match[4]:
            is_left_out = _TYPES.match(match[5]) or (_MAIN.match(match[5]) and not is_main)
            if match[4] in (b"def", b"async") or (match[4] == b"if" and is_left_out):
                closed = indent
            continue
        if match[2] == b"import":
            yield from _imported(match[3])
        else:
            yield from _taken(match[3], source, match.end())


def split_statements(code: bytes) -> bytes:
    """Return a line of code (``python -c``) with each of its simple statements on a line."""
    return re.sub(rb";[ \t]*", b"\n", code)


def _imported(rest: bytes) -> Iterator[tuple[int, bytes, list[bytes]]]:
    for part in rest.partition(b";")[0].split(b",")[:_NAMES_LIMIT]:
        match = _DOTTED.match(part.strip())
        if match and len(match[0]) <= NAME_LIMIT:
            yield 0, match[0], []


def _taken(rest: bytes, source: bytes, end: int) -> Iterator[tuple[int, bytes, list[bytes]]]:
    match = _FROM.match(rest)
    if match is None or len(match[2]) > NAME_LIMIT:
        return
    names = match[3]
    if names.startswith(b"(") and b")" not in names:
        close = source.find(b")", end, end + (64 << 10))
        names += re.sub(rb"#[^\n]*", b"", source[end : max(close, end)])
    words = [
        found[0]
        for part in names.strip(b"( \t").split(b",")[:_NAMES_LIMIT]
        if (found := _DOTTED.match(part.strip(b"() \t\n\\")))
    ]
    yield len(match[1]), match[2].strip(b"."), [word for word in words if len(word) <= NAME_LIMIT]
