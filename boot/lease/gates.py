"""Programs that open files with O_NONBLOCK and take EAGAIN for an answer.

Where files are filled when they are opened, these are let in when all files are filled: those of
known names (`Settings.gates`), and those that tell it by what is in them.
"""

from __future__ import annotations

PROGRAM = b"\x7fELF"
MARKS = (b"GHCRTS\0", b"libHSrts", b"PLTUSERHOME\0")
"""Of run-time systems that open all files so.

GHC's: the variable that it reads where it is linked in, the library where it is not; Racket's: a
variable.
"""
LONGEST = max(map(len, MARKS))


def is_gate(name: bytes, mode: int, gates: tuple[bytes, ...]) -> bool:
    """Whether a file of this name and mode starts a program of ``gates``, whatever its version."""
    return bool(mode & 0o111) and name.rstrip(b"0123456789.") in gates


class Search:
    """Looks for marks in the contents of one file, which are told in order."""

    __slots__ = ("_begin", "_is_program", "has_found")

    def __init__(self) -> None:
        self.has_found = False
        """It is such a program."""
        self._begin = b""
        """The end of what was told before: a mark may lie across."""
        self._is_program: bool | None = None
        """None while too little was told."""

    def saw(self, piece: bytes | memoryview) -> None:
        """Look at the next bytes."""
        if self.has_found or self._is_program is False:
            return
        data = self._begin + piece
        if self._is_program is None and len(data) >= len(PROGRAM):
            self._is_program = data.startswith(PROGRAM)
        self.has_found = bool(self._is_program) and any(mark in data for mark in MARKS)
        self._begin = data[-LONGEST:]
