"""ELF files: what the kernel and the dynamic loader read of them.

Layout: elf(5), 64-bit little-endian.  Read by hand and not by a library: a start touches four
tables, and what is read here is hostile, so every number is bounded
(docs/decisions/0024-analysis.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from struct import Struct

# ------  ----  ------------------------------------------------
# offset  size  ELF header field
# ------  ----  ------------------------------------------------
#      0    16  identification: \x7fELF, class 2, data 1
#     18     2  machine
#     24     8  entry point
#     32     8  offset of the program headers
#     54     2  size of a program header
#     56     2  number of program headers
# ------  ----  ------------------------------------------------
_HEADER = Struct("<16sHHIQQQIHHH")
_IDENTIFICATION = b"\x7fELF\x02\x01"
# type, flags, offset, virtual address, physical address, size in the file, in memory, alignment
_PROGRAM_HEADER = Struct("<IIQQQQQQ")
_DYNAMIC = Struct("<qQ")

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_NEEDED, _STRTAB, _INIT, _FINI, _SONAME, _RPATH, _RUNPATH, _FLAGS_1 = (
    *(1, 5, 12, 13, 14, 15, 29),
    0x6FFFFFFB,
)
_NODEFLIB = 0x800
_HEADERS_LIMIT = 64
_DYNAMIC_LIMIT = 16 << 10
_NEEDED_LIMIT = 256
_TEXT_LIMIT = 4096

EXECUTABLE, WRITABLE = 1, 2
"""Flags of a segment."""


@dataclass(frozen=True, slots=True)
class ElfSegment:
    """A part of the file that is mapped; ``address`` is where, before relocation."""

    flags: int
    offset: int
    size: int
    address: int


@dataclass(slots=True)
class Elf:
    """What a program or shared object says to who loads it."""

    machine: int
    entry: int
    """Address of the first instruction; 0 in a library."""
    segments: list[ElfSegment] = field(default_factory=list)
    interpreter: bytes = b""
    needed: list[bytes] = field(default_factory=list)
    rpath: bytes = b""
    runpath: bytes = b""
    init: int = 0
    """Address of the code that runs first."""
    is_dynamic: bool = False
    has_default_directories: bool = True

    def place_of(self, address: int) -> int | None:
        """Return the offset in the file of an address; None where the file has none."""
        for one in self.segments:
            if one.address <= address < one.address + one.size:
                return one.offset + address - one.address
        return None


def parse_elf(read: Callable[[int, int], bytes]) -> Elf | None:
    """Return what an ELF file says; None where it is none, or damaged.

    ``read`` returns bytes by offset and number, fewer at the end of the file.
    """
    head = read(0, 64)
    if len(head) < 64 or not head.startswith(_IDENTIFICATION):
        return None
    _, _, machine, _, entry, headers_at, _, _, _, size, count = _HEADER.unpack_from(head)
    if size != _PROGRAM_HEADER.size or not 0 < count <= _HEADERS_LIMIT or headers_at >> 62:
        return None
    headers = read(headers_at, size * count)
    if len(headers) != size * count:
        return None
    elf = Elf(machine, entry)
    dynamic_at = dynamic_size = 0
    for kind, flags, offset, address, _, in_file, _, _ in _PROGRAM_HEADER.iter_unpack(headers):
        if (offset | address | in_file) >> 62:
            return None
        if kind == _PT_LOAD:
            elf.segments.append(ElfSegment(flags & 7, offset, in_file, address))
        elif kind == _PT_INTERP:
            elf.interpreter = read(offset, min(in_file, _TEXT_LIMIT)).partition(b"\0")[0]
        elif kind == _PT_DYNAMIC:
            dynamic_at, dynamic_size = offset, min(in_file, _DYNAMIC_LIMIT)
    if dynamic_size:
        elf.is_dynamic = True
        _parse_dynamic(elf, read, read(dynamic_at, dynamic_size))
    return elf


def _parse_dynamic(elf: Elf, read: Callable[[int, int], bytes], table: bytes) -> None:
    """Add to ``elf`` what its dynamic section says, as far as it is in order."""
    table = table[: len(table) - len(table) % _DYNAMIC.size]
    values: dict[int, int] = {}
    needed: list[int] = []
    for tag, value in _DYNAMIC.iter_unpack(table):
        if tag == 0:
            break
        if tag == _NEEDED:
            needed.append(value)
        else:
            values[tag] = value
    strings = elf.place_of(values.get(_STRTAB, -1))
    elf.init = values.get(_INIT, 0)
    elf.has_default_directories = not values.get(_FLAGS_1, 0) & _NODEFLIB
    if strings is None:
        return

    def text(at: int) -> bytes:
        if at >> 62:
            return b""
        found, end, _ = read(strings + at, _TEXT_LIMIT).partition(b"\0")
        return found if end else b""

    elf.needed = [name for name in map(text, needed[:_NEEDED_LIMIT]) if name]
    elf.rpath = text(values[_RPATH]) if _RPATH in values else b""
    elf.runpath = text(values[_RUNPATH]) if _RUNPATH in values else b""
