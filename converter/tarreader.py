"""Read the entries of a plain tar without touching the contents of its files.

Understood are V7, ustar, GNU and PAX, with long names, sparse files of all four
formats, ``SCHILY.xattr`` attributes, and times before 1970 and between seconds.
Global PAX headers are passed over, as engines do.  Names are bytes as they
stand in the archive; whether they are safe is for the reader of the entries.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from zlib import adler32

from converter.tarformat import (
    BLOCK,
    HEADER,
    USTAR_MAGIC,
    FieldError,
    check_sparse_map,
    parse_decimal,
    parse_gnu_sparse,
    parse_number,
    parse_pax,
    parse_time_ns,
    pax_sparse_map,
)
from converter.tree import EMPTY, Content, NamedBlob, Segment
from store.errors import ConvertError, FormatError, SizeMismatch, UnsupportedEntry

REGULAR = b"0"
HARD_LINK = b"1"
SYMLINK = b"2"
CHARACTER_DEVICE = b"3"
BLOCK_DEVICE = b"4"
DIRECTORY = b"5"
FIFO = b"6"

_REGULAR_FLAGS = b"0\x007"
_HEADER_ONLY = b"123456"
_PAX = b"x"
_PAX_GLOBAL = b"g"
_GNU_LONG_NAME = b"L"
_GNU_LONG_LINK = b"K"
_GNU_SPARSE = b"S"

_ZERO_BLOCK = bytes(BLOCK)
_NO_RECORDS: list[tuple[bytes, bytes]] = []
_XATTR = b"SCHILY.xattr."
_NUMBER_LIMIT = 40
_U32 = 0xFFFF_FFFF
_MAX_SIZE = (1 << 63) - 1

HEADER_LIMIT = 1 << 20
"""The longest extended header or long name, in bytes: xattrs are at most 64 KiB each."""

SPARSE_LIMIT = 8 << 20
"""The longest sparse map as it lies in the archive, in bytes: some 400,000 runs."""


MEMORY_LIMIT = 900_000_000
"""Of one image's entries, in bytes.  All else of a conversion takes some 100 MB."""
NODE_MEMORY = 800
DIRECTORY_MEMORY = 1250
RUN_MEMORY = 200
"""A run of a file's bytes: one of a plain file, any number of a sparse one."""
XATTR_MEMORY = 400


@dataclass(slots=True)
class Budget:
    """The memory that the entries of all layers of one image may take together.

    It is reckoned, by the constants below: what a conversion of 200,000 entries of one
    kind takes at its peak, divided by their number and rounded up.
    """

    limit: int = MEMORY_LIMIT
    used: int = 0

    def take(self, what: str, memory: int) -> None:
        """Use up a part.

        Raises:
            ConvertError: there is not that much left.

        """
        self.used += memory
        if self.used > self.limit:
            raise ConvertError(
                f"{what}: its entries would take more memory than the limit of "
                f"{self.limit / 1e6:,.0f} MB, some {self.limit // (NODE_MEMORY + RUN_MEMORY):,} "
                "files with short names; build the image without what it does not need"
            )


@dataclass(slots=True)
class Entry:
    """One member of a tar."""

    at: int
    """Where its header stands in the tar."""
    kind: bytes
    """One of the constants above, `REGULAR` to `FIFO`."""
    name: bytes
    link: bytes
    """Target of a hard link (a path in the archive) or of a symbolic link."""
    mode: int
    """Permission bits alone, 0 to 0o7777."""
    uid: int
    gid: int
    mtime_ns: int
    device: tuple[int, int]
    content: Content
    xattrs: dict[bytes, bytes] = field(default_factory=dict)


def iter_entries(blob: NamedBlob, budget: Budget) -> Iterator[Entry]:
    """Yield the entries of the plain tar ``blob``, in order.

    Contents refer to ``blob``, which must stay open as long as they are read.

    Raises:
        FormatError: a header is damaged, or the tar ends within an entry.
        UnsupportedEntry: an entry is of a kind that no engine unpacks.
        ConvertError: ``budget`` is used up, or a header is longer than its limit.

    """
    return _Reader(blob, budget).run()


class _Reader:
    __slots__ = ("_blob", "_budget", "_next", "_what")

    def __init__(self, blob: NamedBlob, budget: Budget) -> None:
        self._blob = blob
        self._budget = budget
        self._what = blob.name
        self._next = 0

    def run(self) -> Iterator[Entry]:
        long_name = long_link = b""
        records = _NO_RECORDS
        while True:
            at = self._next
            header = self._header(at)
            if header is None:
                if records or long_name or long_link:
                    raise self._damaged(at, "the tar ends after an extended header")
                return
            try:
                fields = HEADER.unpack(header)
                flag = fields[7]
                if flag in (_PAX, _PAX_GLOBAL, _GNU_LONG_NAME, _GNU_LONG_LINK):
                    data = self._extended(at, parse_number(fields[4]))
                    if flag == _PAX:
                        records = parse_pax(data)
                    elif flag == _GNU_LONG_NAME:
                        long_name = data.split(b"\0", 1)[0]
                    elif flag == _GNU_LONG_LINK:
                        long_link = data.split(b"\0", 1)[0]
                    continue
                entry = self._entry(at, header, fields, records)
            except FieldError as error:
                raise self._damaged(at, str(error)) from error
            if long_name:
                entry.name = long_name
            if long_link:
                entry.link = long_link
            if b"\0" in entry.name or b"\0" in entry.link:
                raise self._damaged(at, "a name holds a zero byte")
            self._budget.take(self._what, _memory_of(entry))
            long_name = long_link = b""
            records = _NO_RECORDS
            yield entry

    def _damaged(self, at: int, problem: str) -> FormatError:
        return FormatError(self._what, at, f"{problem}; the tar is damaged or none, fetch it again")

    def _header(self, at: int) -> bytes | None:
        """Return the header block at ``at``, or None where the archive ends."""
        size = self._blob.size
        # Some writers leave out the two zero blocks; engines accept that.
        if at == size:
            return None
        if at + BLOCK > size:
            raise self._damaged(at, f"the tar ends within a header, at {size}")
        header = self._blob.pread(at, BLOCK)
        if header == _ZERO_BLOCK:
            end = at + BLOCK
            if end + BLOCK <= size and self._blob.pread(end, BLOCK) != _ZERO_BLOCK:
                raise self._damaged(end, "data after a zero block")
            return None
        stated = header[148:156]
        try:
            wanted = parse_number(stated)
        except FieldError as error:
            raise self._damaged(at, "this is not a tar header") from error
        # The sum counts its own field as spaces.  Some old writers summed signed bytes.
        actual = sum_of(header) - sum_of(stated) + 256
        if wanted != actual:
            signed = actual - 256 * sum(byte > 127 for byte in header[:148] + header[156:])
            if wanted != signed:
                raise self._damaged(at, f"header checksum is {actual}, stated {wanted}")
        return header

    def _extended(self, at: int, size: int) -> bytes:
        if not 0 <= size <= HEADER_LIMIT:
            raise ConvertError(
                f"{self._what}: at byte {at}: an extended header of {size:,} bytes; "
                f"the limit is {HEADER_LIMIT:,}; is it a tar? Build or fetch it again"
            )
        data = self._data(at + BLOCK, size)
        self._next = _padded(at + BLOCK + size)
        return data

    def _data(self, offset: int, size: int) -> bytes:
        if offset + size > self._blob.size:
            raise SizeMismatch(
                f"{self._what}: data at byte {offset}", size, max(0, self._blob.size - offset)
            )
        return self._blob.pread(offset, size)

    def _entry(
        self,
        at: int,
        header: bytes,
        fields: tuple[bytes, ...],
        records: list[tuple[bytes, bytes]],
    ) -> Entry:
        raw_name, mode, uid, gid, size, mtime, _, flag, raw_link, magic, major, minor, prefix = (
            fields[:13]
        )
        name = raw_name.split(b"\0", 1)[0]
        if magic == USTAR_MAGIC and prefix[0]:
            # Schily's tar keeps times in the last 24 bytes of the prefix.
            end = 131 if fields[13][8:] == b"tar\0" else 155
            name = prefix[:end].split(b"\0", 1)[0] + b"/" + name
        entry = Entry(
            at,
            flag,
            name,
            raw_link.split(b"\0", 1)[0],
            parse_number(mode) & 0o7777,
            parse_number(uid),
            parse_number(gid),
            parse_number(mtime) * 1_000_000_000,
            (0, 0),
            EMPTY,
        )
        stored = parse_number(size)
        real = -1
        if records:
            stored, real = self._apply_records(entry, records, stored)
        if flag in _REGULAR_FLAGS:
            # Before ustar, a name that ends in a slash was all that made a directory.
            entry.kind = DIRECTORY if flag == b"\0" and entry.name.endswith(b"/") else REGULAR
        elif flag == _GNU_SPARSE:
            entry.kind = REGULAR
        elif flag not in _HEADER_ONLY:
            raise UnsupportedEntry(
                f"{self._what}: at byte {at}: entry {entry.name!r} is of type {flag!r}, "
                "which engines do not unpack either; build the image without it"
            )
        if flag in (CHARACTER_DEVICE, BLOCK_DEVICE):
            entry.device = (parse_number(major), parse_number(minor))
        self._check_numbers(entry, stored)
        if entry.kind == REGULAR:
            entry.content = self._content(
                at, header, entry, records=records, stored=stored, real=real
            )
        else:
            # A size on any other kind means nothing: no data follows.
            self._next = at + BLOCK
        return entry

    def _check_numbers(self, entry: Entry, stored: int) -> None:
        if not (0 <= entry.uid <= _U32 and 0 <= entry.gid <= _U32):
            raise UnsupportedEntry(
                f"{self._what}: entry {entry.name!r}: "
                f"owner {entry.uid}:{entry.gid} is not 32 bits; "
                "build the image with another"
            )
        if not -(1 << 63) <= entry.mtime_ns // 1_000_000_000 < 1 << 63:
            raise UnsupportedEntry(
                f"{self._what}: entry {entry.name!r}: mtime out of range; touch the file"
            )
        major, minor = entry.device
        if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
            raise UnsupportedEntry(
                f"{self._what}: entry {entry.name!r}: device {major}:{minor} is out of range; "
                "build the image without it"
            )
        if not 0 <= stored <= _MAX_SIZE:
            raise FieldError(f"size {stored} of {entry.name!r} is impossible")

    def _apply_records(
        self, entry: Entry, records: list[tuple[bytes, bytes]], stored: int
    ) -> tuple[int, int]:
        """Put PAX records into ``entry``; return its stored size and, if sparse, the real one."""
        real = -1
        for key, value in records:
            if not value:
                continue  # An empty value gives the header's own back.
            if key.startswith(_XATTR):
                entry.xattrs[key[len(_XATTR) :]] = value
            elif key == b"path":
                entry.name = value
            elif key == b"linkpath":
                entry.link = value
            elif key == b"uid":
                entry.uid = parse_decimal(value)
            elif key == b"gid":
                entry.gid = parse_decimal(value)
            elif key == b"size":
                stored = parse_decimal(value)
            elif key == b"mtime":
                entry.mtime_ns = parse_time_ns(value)
            elif key in (b"GNU.sparse.realsize", b"GNU.sparse.size"):
                real = parse_decimal(value)
        if real >= 0:
            # The path is a made-up one ("GNUSparseFile.0/name") for readers that know nothing.
            for key, value in records:
                if key == b"GNU.sparse.name" and value:
                    entry.name = value
        return stored, real

    def _content(
        self,
        at: int,
        header: bytes,
        entry: Entry,
        *,
        records: list[tuple[bytes, bytes]],
        stored: int,
        real: int,
    ) -> Content:
        start = at + BLOCK
        pairs: list[tuple[int, int]] | None = None
        if header[156:157] == _GNU_SPARSE:
            pairs, start = self._old_gnu_map(at, header)
            real = parse_number(header[483:495])
        elif real >= 0:
            if (b"GNU.sparse.major", b"1") in records:
                pairs, start = self._leading_map(start, stored)
                stored -= start - at - BLOCK
            else:
                pairs = pax_sparse_map(records)
        if start + stored > self._blob.size:
            raise SizeMismatch(
                f"{self._what}: entry {entry.name!r} at byte {at}",
                stored,
                max(0, self._blob.size - start),
            )
        self._next = _padded(start + stored)
        if pairs is None:
            if not stored:
                return entry.content
            return Content(stored, (Segment(0, stored, self._blob, start),))
        if not 0 <= real <= _MAX_SIZE:
            raise FieldError(f"size {real} of {entry.name!r} is impossible")
        check_sparse_map(pairs, real, stored)
        segments = []
        for offset, size in pairs:
            if size:
                segments.append(Segment(offset, size, self._blob, start))
                start += size
        return Content(real, tuple(segments))

    def _old_gnu_map(self, at: int, header: bytes) -> tuple[list[tuple[int, int]], int]:
        """Return the sparse map of an old GNU header and where the data starts."""
        pairs = parse_gnu_sparse(header[386:482])
        extended = header[482]
        start = at + BLOCK
        while extended:
            if start - at > SPARSE_LIMIT:
                raise ConvertError(
                    f"{self._what}: at byte {at}: the sparse map is too long; "
                    "build the image without holes"
                )
            block = self._data(start, BLOCK)
            pairs += parse_gnu_sparse(block[:504])
            extended = block[504]
            start += BLOCK
        return pairs, start

    def _leading_map(self, start: int, stored: int) -> tuple[list[tuple[int, int]], int]:
        """Return the sparse map before the data (PAX format 1.0) and where the data starts."""
        text = b""
        wanted = 1
        lines: list[bytes] = []
        at = start
        while len(lines) < wanted:
            if at - start >= min(stored, SPARSE_LIMIT):
                raise FieldError("the sparse map does not end")
            if len(text) > _NUMBER_LIMIT:
                raise FieldError("a number of the sparse map is too long")
            text += self._data(at, BLOCK)
            at += BLOCK
            *complete, text = text.split(b"\n")
            lines += complete
            if lines and wanted == 1:
                count = parse_decimal(lines[0])
                if count < 0 or count > SPARSE_LIMIT // 4:
                    raise FieldError(f"a sparse map of {count} runs")
                wanted = 1 + 2 * count
        numbers = [parse_decimal(line) for line in lines[1:wanted]]
        return list(zip(numbers[::2], numbers[1::2], strict=True)), at


def _memory_of(entry: Entry) -> int:
    memory = DIRECTORY_MEMORY if entry.kind == DIRECTORY else NODE_MEMORY
    # A target lies in the tree and in the bootstrap, as do xattrs.  Of the path, the last
    # name does.
    memory += len(entry.name) + 2 * len(entry.link) + RUN_MEMORY * len(entry.content.segments)
    for name, value in entry.xattrs.items():
        memory += XATTR_MEMORY + 2 * (len(name) + len(value))
    return memory


def sum_of(block: bytes) -> int:
    """Return the sum of up to 512 bytes; ``sum`` is a sixth of the time of reading a tar."""
    # The low half of Adler-32 (RFC 1950) is 1 + the sum, modulo 65,521: more than 256
    # bytes can come to.
    return (adler32(block[:256]) & 0xFFFF) + (adler32(block[256:]) & 0xFFFF) - 2


def _padded(offset: int) -> int:
    return -(-offset // BLOCK) * BLOCK
