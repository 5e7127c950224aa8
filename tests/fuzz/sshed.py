"""Targets: what a store over SSH is made of."""

from __future__ import annotations

from store.errors import RemoteProtocolError, UsageError
from store.format import sftp
from store.format.sftpanswer import (
    Answer,
    parse_answer,
    parse_attributes,
    parse_data,
    parse_handle,
    parse_length,
    parse_names,
    parse_room,
    parse_status,
    parse_version,
)
from store.format.sshurl import parse_ssh_url
from tests.fuzz.registry import target

_MOST = 1000
"""Bytes that were asked for."""


@target("sftp-answers", words=(b"\0\0\0\5", b"\xff\xff\xff\xff", b"\0\0\0\1", b"\x65\0\0\0\1"))
def check_sftp_answers(data: bytes) -> bool:
    """Take apart messages, one after the other, as whoever waits for each of them does."""
    at = 0
    while at < len(data):
        if len(data) - at < 4:
            return False  # the connection ends
        try:
            size = parse_length(data[at : at + 4])
            at += 4
            if len(data) - at < size:
                return False
            answer = parse_answer(memoryview(data)[at : at + size])
            _check_answer(answer, size)
        except RemoteProtocolError:
            return False
        at += size
    return True


def _check_answer(answer: Answer, size: int) -> None:
    assert len(answer.body) == size - 5
    assert 0 <= answer.number < 1 << 32
    if answer.kind == sftp.ANSWER_VERSION:
        for name, text in parse_version(answer).items():
            assert len(name) + len(text) <= size
    elif answer.kind == sftp.ANSWER_STATUS:
        code, said = parse_status(answer)
        assert 0 <= code < 1 << 32
        assert said.isprintable()
    elif answer.kind == sftp.ANSWER_HANDLE:
        handle = parse_handle(answer)
        assert 0 < len(handle) <= 256
        assert bytes(answer.body) == sftp.string(handle)
    elif answer.kind == sftp.ANSWER_DATA:
        found = bytes(parse_data(answer, _MOST))
        assert 0 < len(found) <= _MOST
        assert bytes(answer.body) == sftp.string(found)
    elif answer.kind == sftp.ANSWER_NAMES:
        for name, about in parse_names(answer):
            assert name
            assert not {0, ord("/")} & set(name)
            assert not (about.is_directory and about.is_regular)
    elif answer.kind == sftp.ANSWER_ATTRIBUTES:
        about = parse_attributes(answer)
        assert -1 <= about.size < 1 << 64
        assert -1 <= about.mtime_s < 1 << 32
    elif answer.kind == sftp.ANSWER_EXTENDED:
        room = parse_room(answer)
        assert room.size >= 0
        assert room.files >= 0


@target("ssh-url", words=(b"ssh://", b"sftp://", b"@", b":", b"[", b"]", b"%20", b"-o", b"/"))
def check_ssh_url(data: bytes) -> bool:
    """Parse a URL; nothing of it may become an option or another command of ssh."""
    try:
        place = parse_ssh_url(data.decode("latin-1"))
    except UsageError:
        return False
    assert place.host
    for word in (place.host, place.user):
        assert not word.startswith("-")
        assert not set(word) & set(" \t\r\n\0;&|`$'\"\\(){}<>")
    assert 0 <= place.port < 65536
    assert place.path == b"" or place.path.startswith(b"/")
    assert not place.path.endswith(b"/")
    assert b"\0" not in place.path
    return True
