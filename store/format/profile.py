"""Profiles: what starts of an image read, in order, and the hot packs that hold it.

Implements docs/format.md, "Profiles, version 1" and "Hot pack, version 1".  All profiles
of an image are one small document under one name.  Nothing in it is trusted: it decides
when something is fetched and read, never what.  Nothing here does I/O.
"""

from __future__ import annotations

from array import array
from struct import Struct

from store.errors import FormatError, IntegrityError, UnsupportedVersion
from store.format.digest import DIGEST_SIZE, digest_of
from store.format.trace import COMMAND_LIMIT, parse_command
from store.format.zstdframe import decompress

MAGIC = b"bootfsPF"
VERSION = 1
PROFILE_LIMIT = 64
"""Profiles of one image."""
READ_LIMIT = 1 << 16
"""Reads of one profile; starts make some thousands."""
CHUNK_LIMIT = 1 << 16
"""Chunks of one hot pack: 4 GB of data at the average size."""
NAME_LIMIT = 64
HOT_PACK_LIMIT = 1 << 32
BODY_LIMIT = 4 << 20
"""Parsed, a body takes up to 15 times as much memory, and a few bytes may say they are so many."""
DOCUMENT_LIMIT = 4 << 20
"""No document is larger; who fetches one stops there."""
WINDOW = 8 << 20
"""No hot pack's frame needs more memory than this to be decompressed."""

# ------  ----  ------------------------------------------------
# offset  size  header field (little-endian)
# ------  ----  ------------------------------------------------
#      0     8  magic "bootfsPF"
#      8     2  version, 1
#     10     2  number of profiles
#     12     4  plain size of the body
#     16    32  BLAKE3 digest of the chunk index of the image
#     48    32  BLAKE3 digest of the stored body
# ------  ----  ------------------------------------------------
HEADER = Struct("<8sHHI32s32s")
# ------  ----  ------------------------------------------------
# offset  size  profile field
# ------  ----  ------------------------------------------------
#      0     1  size of the name
#      1     1  origin, see `ORIGINS`
#      2     2  size of the command
#      4     4  number of traces merged
#      8     4  number of reads
#     12     4  number of chunks
#     16     8  size of the hot pack; 0: none
#     24    32  SHA-256 digest of the hot pack
# ------  ----  ------------------------------------------------
PROFILE = Struct("<BBHIIIQ32s")
ORIGINS = ("trace", "recording", "analysis")
"""Where a profile is from: `bootfs trace`, a container in production, the image itself."""


class Profile:
    """What starts by one command read; sizes are bytes."""

    __slots__ = (
        *("chunks", "command", "hot_pack", "hot_pack_size", "name", "origin", "reads"),
        "traces",
    )

    def __init__(self, name: str, command: list[bytes]) -> None:
        self.name = name
        self.command = command
        """Entrypoint and arguments."""
        self.origin = 0
        """Number in `ORIGINS`."""
        self.traces = 1
        self.reads: list[tuple[int, int]] = []
        """First page and number of pages of each read of ``image.erofs``, in order."""
        self.chunks: array[int] = array("I")
        """Numbers of the chunks in the hot pack, in its order."""
        self.hot_pack = bytes(DIGEST_SIZE)
        """Raw SHA-256 digest of the hot pack."""
        self.hot_pack_size = 0
        """Size of the hot pack; 0 where there is none."""


def parse_profiles(data: bytes, image: bytes, where: str) -> list[Profile]:
    """Return the profiles of the image ``image``; ``where`` names the document in messages.

    Chunk and page numbers are not checked: only who has the chunk index can.

    Raises:
        UnsupportedVersion: a version this release does not read.
        IntegrityError: it is damaged, or of another image.
        FormatError: it is no such document.

    """
    if len(data) < HEADER.size or len(data) > DOCUMENT_LIMIT or data[:8] != MAGIC:
        raise FormatError(where, 0, "not a document of profiles")
    _, version, count, plain_size, of, digest = HEADER.unpack_from(data)
    if version != VERSION:
        raise UnsupportedVersion(where, 8, f"version {version}")
    if count > PROFILE_LIMIT or plain_size > BODY_LIMIT:
        raise FormatError(where, 10, f"{count} profiles of {plain_size} bytes")
    if of != image:
        raise IntegrityError(f"{where}: these are the profiles of another image, blake3:{of.hex()}")
    stored = data[HEADER.size :]
    if digest_of(stored) != digest:
        raise IntegrityError(f"{where}: damaged: its digest is another")
    body = decompress(stored, plain_size, where) if plain_size else b""
    at = 0
    profiles: list[Profile] = []
    for _ in range(count):
        at = _parse_profile(body, at, where, profiles)
    if at != len(body):
        raise FormatError(where, at, "bytes after the last profile")
    return profiles


def _parse_profile(body: bytes, at: int, where: str, profiles: list[Profile]) -> int:
    """Add the profile at ``at`` to ``profiles``; return where it ends."""
    if at + PROFILE.size > len(body):
        raise FormatError(where, at, "ends within a profile")
    fields: tuple[int, int, int, int, int, int, int, bytes] = PROFILE.unpack_from(body, at)
    name_size, origin, command_size, traces, reads, chunks, size, digest = fields
    start = at + PROFILE.size
    end = start + name_size + command_size + 8 * reads + 4 * chunks
    if (
        not 0 < name_size <= NAME_LIMIT
        or command_size > COMMAND_LIMIT
        or reads > READ_LIMIT
        or chunks > CHUNK_LIMIT
        or size > HOT_PACK_LIMIT
        or origin >= len(ORIGINS)
        or end > len(body)
    ):
        raise FormatError(where, at, "a number of a profile is out of bounds")
    try:
        name = body[start : start + name_size].decode()
    except UnicodeDecodeError:
        raise FormatError(where, start, "a profile's name is not UTF-8") from None
    start += name_size
    command = body[start : start + command_size]
    start += command_size
    one = Profile(name, parse_command(command))
    one.origin, one.traces, one.hot_pack, one.hot_pack_size = origin, traces, digest, size
    firsts: array[int] = array("I", body[start : start + 4 * reads])
    start += 4 * reads
    pages: array[int] = array("I", body[start : start + 4 * reads])
    one.reads = list(zip(firsts, pages, strict=True))
    one.chunks = array("I", body[end - 4 * chunks : end])
    profiles.append(one)
    return end


def choose_profile(profiles: list[Profile], name: str, command: list[bytes]) -> Profile | None:
    """Return the profile called ``name``, or where that is empty the one for ``command``.

    That is one of just this command, else the one that has most of its first words, one at
    least; None where there is none.
    """
    if name:
        return next((one for one in profiles if one.name == name), None)
    best, most = None, 0
    for one in profiles:
        if one.command == command:
            return one
        same = 0
        for ours, theirs in zip(one.command, command, strict=False):
            if ours != theirs:
                break
            same += 1
        if same > most:
            best, most = one, same
    return best
