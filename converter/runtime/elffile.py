"""Shared objects cut to what the loader maps, and what they need.

Layout: elf(5), 64-bit little-endian.
"""

from __future__ import annotations

from struct import Struct, error

from store.errors import FormatError

# ------  ----  ------------------------------------------------
# offset  size  ELF header field
# ------  ----  ------------------------------------------------
#      0    16  identification: \x7fELF, class 2, data 1
#     32     8  offset of the program headers
#     40     8  offset of the section headers
#     54     2  size of a program header
#     56     2  number of program headers
#     58     2  size of a section header
#     60     2  number of section headers
#     62     2  which section holds the sections' names
# ------  ----  ------------------------------------------------
_HEADER = Struct("<16s16xQQ6xHHHHH")
_IDENTIFICATION = b"\x7fELF\x02\x01"
# type, flags, offset, virtual address, physical address, size in the file, in memory, alignment
_PROGRAM_HEADER = Struct("<IIQQQQQQ")
_SECTIONS_AT = 40
_SECTION_COUNTS_AT = 58

_PT_LOAD = 1


def strip_unmapped(what: str, binary: bytes) -> bytes:
    """Return a shared object or program without the part of it that is never mapped.

    That part is symbol tables, debugging information and the section headers: some
    wheels carry ten times as much of it as of code.  Only the tail is cut, so that
    no offset changes.  ``what`` names the object in errors.

    Raises:
        FormatError: not a 64-bit little-endian ELF file, or truncated.

    """
    try:
        identification, programs_at, _, size, count, *_ = _HEADER.unpack_from(binary)
        if not identification.startswith(_IDENTIFICATION):
            raise FormatError(what, 0, "not a 64-bit little-endian ELF file")
        if size != _PROGRAM_HEADER.size or programs_at < _HEADER.size:
            raise FormatError(what, 32, f"program headers of {size} bytes at {programs_at}")
        end = programs_at + size * count
        for at in range(programs_at, end, size):
            kind, _, offset, _, _, in_file, *_ = _PROGRAM_HEADER.unpack_from(binary, at)
            end = max(end, offset + in_file) if kind == _PT_LOAD else end
    # OverflowError: an offset that no buffer has.
    except (error, OverflowError) as problem:
        raise FormatError(what, len(binary), f"truncated ELF file ({problem})") from problem
    if end > len(binary):
        raise FormatError(what, len(binary), f"segments end at byte {end}")
    out = bytearray(binary[:end])
    out[_SECTIONS_AT : _SECTIONS_AT + 8] = bytes(8)
    out[_SECTION_COUNTS_AT : _SECTION_COUNTS_AT + 6] = bytes(6)
    return bytes(out)
