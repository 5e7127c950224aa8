"""Changes to inputs that keep them worth parsing: digests, checksums and sizes made right again.

A fuzzer that changes a byte behind a digest learns only that digests work.  Each part of a
dresser is left out now and then, so that what it makes right is seen wrong too.
"""

from __future__ import annotations

import gzip
import lzma
import struct
import zlib
from array import array
from contextlib import suppress
from random import Random

import zstandard

from converter.tarformat import BLOCK as TAR_BLOCK
from converter.tarformat import FieldError, parse_number
from store.format import bootconfig, chunkindex, erofslayout, packfile, profile
from store.format.crc32c import update_crc32c
from store.format.digest import digest_of
from tests.fuzz.registry import Change

NUMBERS = (0, 1, 2, 3, 7, 16, 63, 255, 256, 4095, 4096, 4097, 65535, 1 << 20, 1 << 31, 1 << 32)


def _does(random: Random) -> bool:
    return random.random() < 0.95


def any_number(random: Random, bits: int) -> int:
    """Return a number of that many bits: often one at an edge."""
    kind = random.randrange(4)
    if kind == 0:
        return random.randrange(1 << bits)
    if kind == 1:
        return (random.choice(NUMBERS) - random.randrange(2)) % (1 << bits)
    if kind == 2:
        return (1 << bits) - 1 - random.randrange(3)
    return random.randrange(200) % (1 << bits)


def dress_pack(data: bytes, random: Random) -> bytes:
    """Make bodies end where the table begins, and give it its digest."""
    header, entry, footer = packfile.HEADER, packfile.ENTRY, packfile.FOOTER
    room = len(data) - header.size - footer.size
    if room < entry.size + 1:
        return data
    found = bytearray(data)
    if _does(random):
        found[: header.size] = packfile.encode_header()
    at = len(found) - footer.size
    count = footer.unpack_from(found, at)[1] or 1
    if _does(random):
        count = 1 + (count - 1) % min(room // (entry.size + 1), 50)
    table_at = at - count * entry.size
    if table_at < header.size:
        return bytes(found)
    left = table_at - header.size
    for number in range(count):
        place = table_at + number * entry.size
        digest, stored, plain = entry.unpack_from(found, place)
        if _does(random):
            stored = left if number == count - 1 else 1 + stored % max(1, left - count + number + 1)
            plain = max(stored, plain % (packfile.CHUNK_LIMIT + 1))
        left = max(left - stored, 1)
        entry.pack_into(found, place, digest, stored % (1 << 32), plain)
    table = bytes(found[table_at:at])
    if _does(random):
        footer.pack_into(
            found, at, table_at, count, packfile.VERSION, 0, digest_of(table), 0, packfile.MAGIC
        )
    return bytes(found)


def dress_chunk_index(data: bytes, random: Random) -> bytes:
    """Make counts fit the columns, columns fit one another, and the digest the body."""
    header = chunkindex.HEADER
    data = data.ljust(header.size, b"\0")
    fields = list(header.unpack_from(data))
    body = data[header.size :]
    if fields[12] != fields[13]:
        # A frame can claim any size.
        with suppress(zstandard.ZstdError, MemoryError):
            body = zstandard.ZstdDecompressor().decompress(body, max_output_size=1 << 16)
    if not _does(random):
        return data
    bootstrap = fields[4] % (3 * chunkindex.FRAME) or 1
    frames = -(-bootstrap // chunkindex.FRAME)
    packs, chunks, pack_runs, place_runs = (count % 12 for count in fields[8:12])
    columns = _Columns(body)
    frame_sizes = columns.take("I", frames)
    frame_digests = columns.bytes(32 * frames)
    pack_digests = columns.bytes(32 * packs)
    pack_sizes = columns.take("Q", packs)
    digests = columns.bytes(32 * chunks)
    plains, storeds = columns.take("I", chunks), columns.take("I", chunks)
    firsts, numbers = columns.take("I", pack_runs), columns.take("I", pack_runs)
    offsets = columns.take("Q", pack_runs)
    place_firsts, lengths = columns.take("I", place_runs), columns.take("I", place_runs)
    data_size = fields[6] % (1 << 44)
    if _does(random):
        frame_sizes = array("I", [1 + n % chunkindex.FRAME_STORED_LIMIT for n in frame_sizes])
    if _does(random):
        plains = array("I", [1 + (n - 1) % packfile.CHUNK_LIMIT for n in plains])
        storeds = array("I", [1 + (n - 1) % p for n, p in zip(storeds, plains, strict=True)])
    if _does(random) and chunks and packs:
        if not pack_runs:
            firsts, numbers, offsets = array("I", [0]), array("I", [0]), array("Q", [16])
        starts = sorted({n % chunks for n in firsts} | {0})
        firsts = array("I", starts)
        numbers = array("I", [numbers[i % len(numbers)] % packs for i in range(len(starts))])
        offsets = array(
            "Q", [16 + offsets[i % len(offsets)] % (1 << 40) for i in range(len(starts))]
        )
        for i, pack in enumerate(numbers):
            end = firsts[i + 1] if i + 1 < len(firsts) else chunks
            run_end = offsets[i] + sum(storeds[firsts[i] : end])
            pack_sizes[pack] = max(pack_sizes[pack], run_end)
    if _does(random):
        at = 0
        for i, first in enumerate(place_firsts):
            if first == chunkindex.HOLE or not chunks:
                place_firsts[i] = chunkindex.HOLE
                lengths[i] = 1 + lengths[i] % (1 << 20)
                at += lengths[i] * chunkindex.BLOCK
            else:
                place_firsts[i] = first % chunks
                lengths[i] = 1 + lengths[i] % (chunks - first % chunks)
                at += sum(plains[first % chunks : first % chunks + lengths[i]])
        if place_runs and at % chunkindex.BLOCK and chunks and _does(random):
            # Only whole blocks: of each chunk, then.
            plains = array("I", [chunkindex.BLOCK * (1 + p % 256) for p in plains])
            storeds = array("I", [min(s, p) for s, p in zip(storeds, plains, strict=True)])
            at = sum(
                lengths[i] * chunkindex.BLOCK
                if first == chunkindex.HOLE
                else sum(plains[first : first + lengths[i]])
                for i, first in enumerate(place_firsts)
            )
        data_size = at
    start = -(-bootstrap // chunkindex.REGION_ALIGNMENT) * chunkindex.REGION_ALIGNMENT
    body = b"".join(
        (
            frame_sizes.tobytes(), frame_digests, pack_digests, pack_sizes.tobytes(), digests,
            plains.tobytes(), storeds.tobytes(), firsts.tobytes(), numbers.tobytes(),
            offsets.tobytes(), place_firsts.tobytes(), lengths.tobytes(),
        )
    )  # fmt: skip
    plain = len(body)
    if random.random() < 0.1:
        body = zstandard.ZstdCompressor(write_content_size=_does(random)).compress(body)
    return header.pack(
        chunkindex.MAGIC, chunkindex.VERSION, 0, chunkindex.FRAME, bootstrap, start, data_size,
        frames, packs, chunks, len(firsts), place_runs, plain, len(body), 0, digest_of(body),
    ) + body  # fmt: skip


class _Columns:
    """A body cut into columns, zeros behind its end."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._at = 0

    def bytes(self, size: int) -> bytes:
        found = self._body[self._at : self._at + size].ljust(size, b"\0")
        self._at += size
        return found

    def take(self, kind: str, count: int) -> array[int]:
        column: array[int] = array(kind)
        column.frombytes(self.bytes(count * column.itemsize))
        return column


def dress_profiles(data: bytes, random: Random) -> bytes:
    """Change a byte of the body of a document of profiles, or a number; set digests and sizes."""
    if len(data) < profile.HEADER.size:
        return data
    head = bytearray(data[: profile.HEADER.size])
    stored = data[profile.HEADER.size :]
    try:
        # `max_output_size` is for frames that do not say how large they are.
        body = bytearray(zstandard.ZstdDecompressor().decompress(stored, max_output_size=1 << 20))
    except (zstandard.ZstdError, MemoryError):
        return data  # a frame can claim any size
    at = 0
    while at + profile.PROFILE.size <= len(body):
        fields = list(profile.PROFILE.unpack_from(body, at))
        if _does(random):
            number = random.randrange(7)
            fields[number] = any_number(random, (8, 8, 16, 32, 32, 32, 64)[number])
            profile.PROFILE.pack_into(body, at, *fields)
        at += profile.PROFILE.size + fields[0] + fields[2] + 8 * fields[4] + 4 * fields[5]
    if body and _does(random):
        body[random.randrange(len(body))] = random.randrange(256)
    stored = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(body))
    struct.pack_into("<I", head, 12, len(body))
    head[48:80] = digest_of(stored)
    return bytes(head) + stored


def dress_boot_config(data: bytes, random: Random) -> bytes:
    """Make fields end where the next begins, and the header fit them."""
    fields = bytearray(data[bootconfig.HEADER.size :])
    at = 0
    while at + bootconfig.FIELD.size <= len(fields):
        tag, _, size = bootconfig.FIELD.unpack_from(fields, at)
        left = len(fields) - at - bootconfig.FIELD.size
        if _does(random):
            tag, size = tag % 8, size % 64 if size % 64 <= left else left
            bootconfig.FIELD.pack_into(fields, at, tag, 0, size)
        at += bootconfig.FIELD.size + size
    head = bootconfig.HEADER.pack(
        bootconfig.MAGIC, bootconfig.VERSION, 0, len(fields), digest_of(bytes(fields))
    )
    return (head if _does(random) else data[: len(head)]) + bytes(fields)


def dress_bootstrap(data: bytes, random: Random) -> bytes:
    """Make magic and checksum right, or have none."""
    at = erofslayout.SUPERBLOCK_OFFSET
    if len(data) < erofslayout.BLOCK:
        data = data.ljust(erofslayout.BLOCK, b"\0")
    found = bytearray(data)
    struct.pack_into("<I", found, at, erofslayout.MAGIC)
    if random.random() < 0.9:
        found[at + 8] &= ~erofslayout.FEATURE_CHECKSUM
    else:
        struct.pack_into("<I", found, at + 4, 0)
        crc = update_crc32c(erofslayout.CHECKSUM_SEED, bytes(found[at : erofslayout.BLOCK]))
        struct.pack_into("<I", found, at + 4, crc)
    return bytes(found)


_INODE_FIELDS = (
    (0, 2), (2, 2), (4, 2), (8, 8), (16, 4), (20, 4), (24, 4), (32, 8), (40, 4), (44, 4),
    (64, 4), (68, 1), (76, 1), (77, 1), (78, 2),
)  # fmt: skip
_SUPERBLOCK_FIELDS = ((12, 1), (14, 2), (16, 8), (36, 4), (40, 4), (80, 4))


def edit_bootstrap(data: bytes, random: Random) -> bytes:
    """Set one field of the superblock, an inode, or what follows an inode."""
    found = bytearray(data)
    slots = len(found) // erofslayout.SLOT
    first = erofslayout.FIRST_NID
    # An inode begins with a layout that bootfs writes.
    inodes = [
        nid for nid in range(first, slots)
        if bytes(found[nid * 32 : nid * 32 + 2]) in (b"\x01\0", b"\x05\0")
    ]  # fmt: skip
    if not inodes:
        return data
    nid = random.choice(inodes)
    base = nid * erofslayout.SLOT
    kind = random.randrange(8)
    if kind == 0:
        base = erofslayout.SUPERBLOCK_OFFSET
        at, size = random.choice(_SUPERBLOCK_FIELDS)
    elif kind < 4:
        at, size = random.choice(_INODE_FIELDS)
    else:
        # An entry of a directory with an inline tail.
        at = 64 + 12 * random.randrange(6)
        at, size = random.choice(((at, 8), (at + 8, 2), (at + 10, 1)))
    value = random.choice(inodes) if random.random() < 0.5 else any_number(random, 8 * size)
    if random.random() < 0.2:
        old = int.from_bytes(found[base + at : base + at + size], "little")
        value = old + random.choice((-1, 1, 4096, -4096))
    value %= 1 << 8 * size
    if base + at + size <= len(found):
        found[base + at : base + at + size] = value.to_bytes(size, "little")
    return bytes(found)


def dress_zstd(data: bytes, random: Random) -> bytes:
    """Compress what follows the size, or leave a frame as it was changed."""
    data = data.ljust(4, b"\0")
    rest = data[4:]
    if random.random() < 0.4:
        return data
    try:
        plain = zstandard.ZstdDecompressor().decompressobj().decompress(rest)[: 1 << 16]
    except zstandard.ZstdError:
        plain = rest
    frame = zstandard.ZstdCompressor(
        write_content_size=random.random() < 0.5, write_checksum=random.random() < 0.5
    ).compress(plain)
    return struct.pack("<I", max(0, len(plain) + random.choice((0, 0, 0, 1, -1)))) + frame


def dress_stream(data: bytes, random: Random) -> bytes:
    """Compress, in one of the ways of layers, one or several members of it."""
    kind = random.randrange(4)
    if kind == 0:
        return data
    half = random.randrange(len(data) + 1)
    parts = (data[:half], data[half:]) if random.random() < 0.5 else (data,)
    if kind == 1:
        return b"".join(gzip.compress(part, 1, mtime=0) for part in parts)
    if kind == 2:
        return b"".join(zstandard.compress(part, 1) for part in parts)
    skippable = struct.pack("<II", 0x184D2A50 + random.randrange(16), half % 40) + bytes(half % 40)
    return skippable + zstandard.compress(data, 1)


def dress_tar(data: bytes, random: Random) -> bytes:
    """Give each header its checksum, each PAX record its length; sizes stay within the tar."""
    found = bytearray(data + bytes(-len(data) % TAR_BLOCK))
    at = 0
    while at + TAR_BLOCK <= len(found):
        header = found[at : at + TAR_BLOCK]
        if not any(header):
            break
        flag = bytes(header[156:157])
        try:
            size = parse_number(bytes(header[124:136]))
        except FieldError:
            size = -1
        has_data = flag not in b"123456"
        left = len(found) - at - TAR_BLOCK
        if has_data and not 0 <= size <= left and _does(random):
            size = left % 600
            header[124:136] = b"%011o\0" % size
        if flag == b"x" and 0 <= size <= left and _does(random):
            records = _dress_records(bytes(found[at + TAR_BLOCK : at + TAR_BLOCK + size]))
            end = at + TAR_BLOCK + size + -size % TAR_BLOCK
            found[at + TAR_BLOCK : end] = records + bytes(-len(records) % TAR_BLOCK)
            size = len(records)
            header[124:136] = b"%011o\0" % size
        if _does(random):
            header[148:156] = b" " * 8
            header[148:156] = b"%06o\0 " % sum(header)
        found[at : at + TAR_BLOCK] = header
        at += TAR_BLOCK
        if has_data and size > 0:
            at += size + -size % TAR_BLOCK
    return bytes(found)


def _dress_records(data: bytes) -> bytes:
    records = []
    for line in data.split(b"\n"):
        text = line.lstrip(b"0123456789").lstrip(b" ")
        if text:
            records.append(pax_record(text))
    return b"".join(records)


def pax_record(text: bytes) -> bytes:
    """Return ``key=value`` with its length, which counts itself."""
    size = len(text) + 3
    while len(b"%d %s\n" % (size, text)) != size:
        size = len(b"%d %s\n" % (size, text))
    return b"%d %s\n" % (size, text)


PATHS = (
    b"", b".", b"..", b"/", b"a", b"a/", b"a/b", b"a/b/c", b"a/..", b"../a", b"/a", b"./a",
    b"a//b",
    b"l", b"l/x", b"d", b"d/l", b"d/../..", b".wh.a", b"a/.wh.b", b".wh..wh..opq",
    b"a/.wh..wh..opq",
    b".wh.", b".wh..", b".wh...", b".wh..wh.plnk", b"n" * 100, b"/../../etc/passwd", b"d/l/../a",
    b"h", b"\xff\xfe", b"a\nb",
)  # fmt: skip
_RECORDS = (
    b"path=a/b", b"path=../x", b"linkpath=/a", b"linkpath=..", b"size=3", b"uid=4294967295",
    b"mtime=-1.5", b"mtime=1e9", b"SCHILY.xattr.user.a=1", b"SCHILY.xattr.trusted.overlay.opaque=y",
    b"SCHILY.xattr.security.capability=\1\0\0\2\0\0\0\0", b"SCHILY.xattr.user.b=x\ny",
    b"GNU.sparse.size=10", b"GNU.sparse.map=0,2,5,1", b"GNU.sparse.major=1", b"GNU.sparse.minor=0",
    b"GNU.sparse.realsize=4611686018427387904", b"GNU.sparse.name=s", b"GNU.sparse.offset=1",
    b"GNU.sparse.numbytes=1", b"GNU.sparse.numblocks=1",
)  # fmt: skip


def edit_tar(data: bytes, random: Random) -> bytes:
    """Change one member: its kind, a name, a number; or repeat, drop or add one."""
    blocks = max(len(data) // TAR_BLOCK, 1)
    found = bytearray(data.ljust(TAR_BLOCK, b"\0"))
    # A member begins where a checksum is.
    starts = [b * TAR_BLOCK for b in range(blocks) if _is_header(found, b * TAR_BLOCK)] or [0]
    at = random.choice(starts)
    what = random.randrange(9)
    if what == 0:
        found[at + 156 : at + 157] = random.choice((b"0", b"1", b"2", b"3", b"4", b"5", b"6", b"S"))
    elif what == 1:
        found[at : at + 100] = random.choice(PATHS)[:100].ljust(100, b"\0")
    elif what == 2:
        found[at + 157 : at + 257] = random.choice(PATHS)[:100].ljust(100, b"\0")
    elif what == 3:
        place, size = random.choice(((100, 8), (108, 8), (116, 8), (124, 12), (136, 12), (329, 8)))
        value = any_number(random, 8 * size - 2)
        field = b"%o" % value
        if len(field) >= size or random.random() < 0.3:
            field = (value | 1 << (8 * size - 1)).to_bytes(size, "big")
        found[at + place : at + place + size] = field.rjust(size, b"0")
    elif what == 4:
        end = next((s for s in starts if s > at), at + TAR_BLOCK)
        place = random.choice(starts)
        found[place:place] = found[at:end]
    elif what == 5:
        end = next((s for s in starts if s > at), at + TAR_BLOCK)
        del found[at:end]
    elif what == 6:
        texts = random.choices(_RECORDS, k=random.randrange(1, 4))
        found[at:at] = _extended(b"x", b"".join(map(pax_record, texts)))
    elif what == 7:
        long = random.choice((b"p/" * 60, b"q" * 300, b"../" * 40, random.choice(PATHS))) + b"\0"
        found[at:at] = _extended(random.choice((b"L", b"K")), long)
    else:
        found[at : at + 500] = member_header(
            random.choice(PATHS), random.choice(b"0123456"), random.choice(PATHS)
        )[:500]
    return bytes(found)


def _is_header(data: bytes | bytearray, at: int) -> bool:
    return data[at + 257 : at + 262] == b"ustar" or data[at + 154 : at + 156] == b"\0 "


def member_header(name: bytes, flag: int, link: bytes = b"", size: int = 0) -> bytes:
    """Return a header block without its checksum."""
    return struct.pack(
        "100s8s8s8s12s12s8sB100s8s247x",
        name, b"0000755", b"0000000", b"0000000", b"%011o" % size, b"00000000001", b" " * 8,
        flag, link, b"ustar\x0000",
    )  # fmt: skip


def _extended(flag: bytes, data: bytes) -> bytes:
    head = member_header(b"@", flag[0], size=len(data)).ljust(TAR_BLOCK, b"\0")
    return head + data + bytes(-len(data) % TAR_BLOCK)


def split_parts(data: bytes) -> list[bytes]:
    """Return what a series of parts holds, each behind its size in four bytes."""
    parts: list[bytes] = []
    while len(data) > 4 and len(parts) < 5:
        (size,) = struct.unpack_from("<I", data)
        parts.append(data[4 : 4 + size])
        data = data[4 + size :]
    return parts


def join_parts(parts: list[bytes]) -> bytes:
    """Return parts in a row, each behind its size."""
    return b"".join(struct.pack("<I", len(part)) + part for part in parts)


def in_parts(change: Change) -> Change:
    """Return a change of each part of a series, of which sizes come right again."""

    def changed(data: bytes, random: Random) -> bytes:
        return join_parts([change(part, random) for part in split_parts(data)])

    return changed


def in_one_part(change: Change) -> Change:
    """Return a change of one part of a series."""

    def changed(data: bytes, random: Random) -> bytes:
        parts = split_parts(data)
        if parts:
            at = random.randrange(len(parts))
            parts[at] = change(parts[at], random)
            if random.random() < 0.1:
                parts.append(random.choice(parts))
        return join_parts(parts)

    return changed


def in_deb(change: Change) -> Change:
    """Return a change of the tar in a Debian package, whose own sizes come right again."""

    def changed(data: bytes, random: Random) -> bytes:
        if not data.startswith(b"!<arch>\n"):
            return data
        at = 8
        out = b"!<arch>\n"
        while at + 60 <= len(data):
            name, size = data[at : at + 16], data[at + 48 : at + 58].strip()
            body = data[at + 60 :]
            if size.isdigit() and int(size) <= len(body) and name != b"data.tar".ljust(16):
                body = body[: int(size)]
            at += 60 + len(body) + len(body) % 2
            if name.startswith(b"data.tar"):
                body = change(_plain(body), random)
                if random.random() < 0.7:
                    body = random.choice((gzip.compress(body, 1, mtime=0), lzma.compress(body)))
            out += (
                name.ljust(16) + b" " * 32 + b"%-10d`\n" % len(body) + body + b"\n"[: len(body) % 2]
            )
        return out if _does(random) else data

    return changed


def _plain(data: bytes) -> bytes:
    try:
        if data[:2] == b"\x1f\x8b":
            return zlib.decompressobj(wbits=31).decompress(data, 1 << 17)
        if data[:6] == b"\xfd7zXZ\0":
            return lzma.LZMADecompressor().decompress(data, 1 << 17)
    except (zlib.error, lzma.LZMAError):
        pass
    return data
