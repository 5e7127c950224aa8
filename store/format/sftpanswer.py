"""SFTP, version 3: what a server answers, parsed whole or refused.

Layout: see store/format/sftp.py.
"""

from __future__ import annotations

from struct import Struct, error

from store.errors import RemoteProtocolError
from store.format.sftp import (
    ANSWER_ATTRIBUTES,
    ANSWER_DATA,
    ANSWER_EXTENDED,
    ANSWER_HANDLE,
    ANSWER_NAMES,
    ANSWER_STATUS,
    ANSWER_VERSION,
    LENGTH,
    MESSAGE_LIMIT,
    VERSION,
)

_U64 = Struct(">Q")
# block size, fragment size, blocks, free, free for us, inodes, free, free for us, id, flags, name
_STATVFS = Struct(">11Q")

_HAS_SIZE, _HAS_OWNER, _HAS_MODE, _HAS_TIMES, _HAS_EXTENDED = 1, 2, 4, 8, 1 << 31
_READ_ONLY = 1
_TYPE, _DIRECTORY, _REGULAR = 0o170000, 0o040000, 0o100000


class Attributes:
    """What a server says of a file; -1 for what it does not say."""

    __slots__ = ("mode", "mtime_s", "size")

    def __init__(self, size: int = -1, mode: int = -1, mtime_s: int = -1) -> None:
        self.size = size
        self.mode = mode
        self.mtime_s = mtime_s

    @property
    def is_directory(self) -> bool:
        """Whether it is known to be one."""
        return self.mode != -1 and self.mode & _TYPE == _DIRECTORY

    @property
    def is_regular(self) -> bool:
        """Whether it is known to be a regular file."""
        return self.mode != -1 and self.mode & _TYPE == _REGULAR


class Room:
    """What is free on the file system behind a path."""

    __slots__ = ("files", "is_read_only", "size")

    def __init__(self, size: int, files: int, is_read_only: bool) -> None:
        self.size = size
        """Bytes that may still be written."""
        self.files = files
        """Files that may still be made; also 0 where the file system does not count them."""
        self.is_read_only = is_read_only


class Answer:
    """A message of the server; ``body`` is what follows the number."""

    __slots__ = ("body", "kind", "number")

    def __init__(self, kind: int, number: int, body: memoryview) -> None:
        self.kind = kind
        self.number = number
        self.body = body


def parse_length(data: bytes | memoryview) -> int:
    """Return how many bytes of a message follow its first four.

    Raises:
        RemoteProtocolError: that is no length of a message.

    """
    (length,) = LENGTH.unpack(data)
    if 5 <= length <= MESSAGE_LIMIT:
        return int(length)
    if all(32 <= byte < 127 or byte in b"\t\r\n\x1b" for byte in data):
        raise RemoteProtocolError(
            f"the server begins with the text {bytes(data)!r}, which is not SFTP: "
            "the user's shell start files must print nothing"
        )
    raise RemoteProtocolError(f"SFTP: a message of {length} bytes; {MESSAGE_LIMIT} at most")


def parse_answer(message: memoryview) -> Answer:
    """Return type, number and the rest of a message, which begins after its length.

    Raises:
        RemoteProtocolError: it is too short.

    """
    if len(message) < 5:
        raise RemoteProtocolError(f"SFTP: a message of {len(message)} bytes, at least 5")
    return Answer(message[0], LENGTH.unpack(message[1:5])[0], message[5:])


def parse_version(answer: Answer) -> dict[bytes, bytes]:
    """Return the server's extensions, by name.

    Raises:
        RemoteProtocolError: it is not a server of version 3, or later with that too.

    """
    if answer.kind != ANSWER_VERSION or answer.number < VERSION:
        raise RemoteProtocolError(
            f"SFTP: answer {answer.kind} of version {answer.number}; a store needs version 3"
        )
    fields = _Fields(answer.body)
    found = {}
    while fields.has_more:
        name = bytes(fields.string())
        found[name] = bytes(fields.string())
    return found


def parse_status(answer: Answer) -> tuple[int, str]:
    """Return code and text of an answer that is a status.

    Raises:
        RemoteProtocolError: it is none, or damaged.

    """
    fields = _fields_of(answer, ANSWER_STATUS)
    code = fields.number()
    # Old servers send nothing more; a language may follow.
    text = bytes(fields.string()) if fields.has_more else b""
    return code, "".join(c if c.isprintable() else "?" for c in text.decode("utf-8", "replace"))


def parse_handle(answer: Answer) -> bytes:
    """Return the handle of what was opened.

    Raises:
        RemoteProtocolError: the answer has none.

    """
    fields = _fields_of(answer, ANSWER_HANDLE)
    handle = bytes(fields.string())
    fields.check_end()
    if not 0 < len(handle) <= 256:
        raise RemoteProtocolError(f"SFTP: a handle of {len(handle)} bytes")
    return handle


def parse_data(answer: Answer, most: int) -> memoryview:
    """Return the bytes that were read, at least one and at most ``most``.

    Raises:
        RemoteProtocolError: the answer has none, or more.

    """
    fields = _fields_of(answer, ANSWER_DATA)
    data = fields.string()
    fields.check_end()
    if not 0 < len(data) <= most:
        raise RemoteProtocolError(f"SFTP: {len(data)} bytes for a read of {most}")
    return data


def parse_attributes(answer: Answer) -> Attributes:
    """Return what an answer says of a file.

    Raises:
        RemoteProtocolError: it says nothing, or is damaged.

    """
    fields = _fields_of(answer, ANSWER_ATTRIBUTES)
    found = fields.attributes()
    fields.check_end()
    return found


def parse_names(answer: Answer) -> list[tuple[bytes, Attributes]]:
    """Return names of a directory, and what is said of each.

    Raises:
        RemoteProtocolError: the answer has none, or one that is no name of a file.

    """
    fields = _fields_of(answer, ANSWER_NAMES)
    found = []
    for _ in range(fields.number()):
        name = bytes(fields.string())
        fields.string()  # the line of `ls -l`, for people
        if not name or b"/" in name or b"\0" in name:
            raise RemoteProtocolError(f"SFTP: {name[:80]!r} for a file's name")
        found.append((name, fields.attributes()))
    fields.check_end()
    return found


def parse_room(answer: Answer) -> Room:
    """Return what the extension `STATVFS` answers.

    Raises:
        RemoteProtocolError: it is damaged.

    """
    body = _fields_of(answer, ANSWER_EXTENDED).rest()
    if len(body) != _STATVFS.size:
        raise RemoteProtocolError(f"SFTP: {len(body)} bytes about a file system")
    _, fragment, _, _, available, _, _, files, _, flags, _ = _STATVFS.unpack(body)
    return Room(fragment * available, files, bool(flags & _READ_ONLY))


def _fields_of(answer: Answer, kind: int) -> _Fields:
    if answer.kind != kind:
        raise RemoteProtocolError(f"SFTP: answer {answer.kind} where {kind} was due")
    return _Fields(answer.body)


class _Fields:
    """Fields of a message, one after the other; each raises where the message is too short."""

    __slots__ = ("_at", "_body")

    def __init__(self, body: memoryview) -> None:
        self._body = body
        self._at = 0

    @property
    def has_more(self) -> bool:
        return self._at < len(self._body)

    def number(self) -> int:
        return self._unpack(LENGTH)

    def long(self) -> int:
        return self._unpack(_U64)

    def string(self) -> memoryview:
        size = self.number()
        end = self._at + size
        if end > len(self._body):
            raise RemoteProtocolError(
                f"SFTP: a string of {size} bytes, {len(self._body) - self._at} are left"
            )
        found = self._body[self._at : end]
        self._at = end
        return found

    def attributes(self) -> Attributes:
        flags = self.number()
        found = Attributes()
        if flags & _HAS_SIZE:
            found.size = self.long()
        if flags & _HAS_OWNER:
            self.long()
        if flags & _HAS_MODE:
            found.mode = self.number()
        if flags & _HAS_TIMES:
            self.number()
            found.mtime_s = self.number()
        if flags & _HAS_EXTENDED:
            for _ in range(self.number()):
                self.string()
                self.string()
        return found

    def rest(self) -> memoryview:
        return self._body[self._at :]

    def check_end(self) -> None:
        if self.has_more:
            raise RemoteProtocolError(f"SFTP: {len(self._body) - self._at} bytes too many")

    def _unpack(self, form: Struct) -> int:
        try:
            (value,) = form.unpack_from(self._body, self._at)
        except error:
            raise RemoteProtocolError("SFTP: a message ends in a number") from None
        self._at += form.size
        return int(value)
