"""SFTP, version 3: numbers, and the requests of a client; answers are in sftpanswer.py.

Layout: draft-ietf-secsh-filexfer-02; the extensions are in OpenSSH's PROTOCOL, section 4.
Paths are bytes, as servers have them.
"""

from __future__ import annotations

from struct import Struct

VERSION = 3
MESSAGE_LIMIT = 256 << 10
"""The longest message, in bytes, its length not counted; OpenSSH's limit too."""
READ_SIZE = 32 << 10
"""Bytes of one read or write: as many as every server must take."""

INIT, OPEN, CLOSE, READ, WRITE = 1, 3, 4, 5, 6
SETSTAT, OPENDIR, READDIR, REMOVE, MKDIR, STAT, RENAME = 9, 11, 12, 13, 14, 17, 18
EXTENDED = 200
ANSWER_VERSION, ANSWER_STATUS, ANSWER_HANDLE, ANSWER_DATA = 2, 101, 102, 103
ANSWER_NAMES, ANSWER_ATTRIBUTES, ANSWER_EXTENDED = 104, 105, 201

OK, EOF, NO_SUCH_FILE, PERMISSION_DENIED, FAILURE, BAD_MESSAGE = range(6)
OP_UNSUPPORTED = 8

OPEN_READ, OPEN_WRITE, OPEN_CREATE, OPEN_EXCLUSIVE = 0x01, 0x02, 0x08, 0x20

POSIX_RENAME = b"posix-rename@openssh.com"
HARD_LINK = b"hardlink@openssh.com"
FSYNC = b"fsync@openssh.com"
STATVFS = b"statvfs@openssh.com"

# ------  ----  ------------------------------------------
# offset  size  message
# ------  ----  ------------------------------------------
#      0     4  bytes that follow
#      4     1  type
#      5     4  number of the request; of INIT and VERSION the version
#      9     …  fields; a string is its length (4 bytes) and its bytes
# ------  ----  ------------------------------------------
HEAD = Struct(">IBI")
LENGTH = Struct(">I")
_U64 = Struct(">Q")
_OFFSET_SIZE = Struct(">QI")
_HAS_MODE, _HAS_TIMES = 4, 8


def encode_init() -> bytes:
    """Return the first message of a client."""
    return HEAD.pack(5, INIT, VERSION)


def encode_request(kind: int, number: int, *fields: bytes) -> bytes:
    """Return a request whose fields, after its ``number``, are ``fields`` as they stand."""
    return HEAD.pack(5 + sum(map(len, fields)), kind, number) + b"".join(fields)


def string(value: bytes) -> bytes:
    """Return a field that is a string: a path or a handle, say."""
    return LENGTH.pack(len(value)) + value


def encode_path_request(kind: int, number: int, path: bytes) -> bytes:
    """Return a request that has one string alone: OPENDIR, READDIR, REMOVE, STAT, CLOSE."""
    return encode_request(kind, number, string(path))


def encode_open(number: int, path: bytes, flags: int, mode: int = -1) -> bytes:
    """Return a request to open a file; ``mode`` is that of a file that is made, -1 for any."""
    attributes = _mode_field(mode)
    return encode_request(OPEN, number, string(path), LENGTH.pack(flags), attributes)


def encode_mkdir(number: int, path: bytes, mode: int) -> bytes:
    """Return a request to make a directory."""
    return encode_request(MKDIR, number, string(path), _mode_field(mode))


def encode_set_mode(number: int, path: bytes, mode: int) -> bytes:
    """Return a request to give a file this mode."""
    return encode_request(SETSTAT, number, string(path), _mode_field(mode))


def encode_set_times(number: int, path: bytes, time_s: int) -> bytes:
    """Return a request to give a file this time of access and change, in seconds since 1970."""
    time = LENGTH.pack(time_s)
    return encode_request(SETSTAT, number, string(path), LENGTH.pack(_HAS_TIMES), time, time)


def encode_read(number: int, handle: bytes, offset: int, size: int) -> bytes:
    """Return a request for ``size`` bytes of an open file; a server may give fewer."""
    return encode_request(READ, number, string(handle), _OFFSET_SIZE.pack(offset, size))


def encode_write(number: int, handle: bytes, offset: int, data: bytes) -> bytes:
    """Return a request to write into an open file."""
    return encode_request(WRITE, number, string(handle), _U64.pack(offset), string(data))


def encode_rename(number: int, path: bytes, target: bytes) -> bytes:
    """Return a request to rename a file; it fails where ``target`` exists."""
    return encode_request(RENAME, number, string(path), string(target))


def encode_extended(number: int, name: bytes, *strings: bytes) -> bytes:
    """Return a request of the extension ``name``."""
    return encode_request(EXTENDED, number, string(name), *map(string, strings))


def _mode_field(mode: int) -> bytes:
    return LENGTH.pack(0) if mode == -1 else LENGTH.pack(_HAS_MODE) + LENGTH.pack(mode)
