"""Messages of SFTP against what the draft says, byte by byte, and round trips."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.errors import RemoteProtocolError
from store.format import sftp
from store.format.sftp import (
    ANSWER_ATTRIBUTES,
    ANSWER_DATA,
    ANSWER_EXTENDED,
    ANSWER_HANDLE,
    ANSWER_NAMES,
    ANSWER_STATUS,
    ANSWER_VERSION,
    MESSAGE_LIMIT,
)
from store.format.sftpanswer import (
    Answer,
    Attributes,
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
from tests.support.sftpwire import attributes, message, names, taken, text, u32, u64

U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
NAME = st.binary(min_size=1, max_size=40).filter(lambda n: b"/" not in n and b"\0" not in n)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (sftp.encode_init(), "00000005 01 00000003"),
        (sftp.encode_open(7, b"/a", 1), "00000013 03 00000007 00000002 2f61 00000001 00000000"),
        (
            sftp.encode_open(7, b"a", 0x2A, 0o644),
            "00000016 03 00000007 00000001 61 0000002a 00000004 000001a4",
        ),
        (
            sftp.encode_read(8, b"h", 1 << 32, 9),
            "00000016 05 00000008 00000001 68 0000000100000000 00000009",
        ),
        (
            sftp.encode_write(8, b"h", 2, b"xyz"),
            "00000019 06 00000008 00000001 68 0000000000000002 00000003 78797a",
        ),
        (sftp.encode_path_request(sftp.STAT, 1, b"/"), "0000000a 11 00000001 00000001 2f"),
        (sftp.encode_mkdir(1, b"d", 0o755), "00000012 0e 00000001 00000001 64 00000004 000001ed"),
        (
            sftp.encode_set_times(1, b"f", 5),
            "00000016 09 00000001 00000001 66 00000008 00000005 00000005",
        ),
        (
            sftp.encode_set_mode(1, b"f", 0o644),
            "00000012 09 00000001 00000001 66 00000004 000001a4",
        ),
        (sftp.encode_rename(1, b"a", b"b"), "0000000f 12 00000001 00000001 61 00000001 62"),
        (
            sftp.encode_extended(1, b"e@x", b"a", b"b"),
            "00000016 c8 00000001 00000003 654078 00000001 61 00000001 62",
        ),
    ],
)
def test_requests_are_the_bytes_of_the_draft(made: bytes, expected: str) -> None:
    assert made == bytes.fromhex(expected)


@given(st.integers(0, 255), U32, st.lists(st.binary(max_size=50), max_size=4))
def test_requests_come_apart_again(kind: int, number: int, fields: list[bytes]) -> None:
    found = taken(sftp.encode_request(kind, number, *fields))
    assert (found.kind, found.number, bytes(found.body)) == (kind, number, b"".join(fields))


@given(st.dictionaries(st.binary(max_size=20), st.binary(max_size=20)), st.integers(3, 9))
def test_extensions_come_with_the_version(pairs: dict[bytes, bytes], version: int) -> None:
    body = b"".join(text(name) + text(data) for name, data in pairs.items())
    assert parse_version(taken(message(ANSWER_VERSION, version, body))) == pairs


@given(st.binary(min_size=1, max_size=256))
def test_a_handle_comes_back(handle: bytes) -> None:
    assert parse_handle(taken(message(ANSWER_HANDLE, 1, text(handle)))) == handle


@given(st.binary(min_size=1, max_size=500), st.integers(0, 100))
def test_data_comes_back_and_is_never_more_than_was_asked_for(data: bytes, spare: int) -> None:
    answer = taken(message(ANSWER_DATA, 1, text(data)))
    assert bytes(parse_data(answer, len(data) + spare)) == data
    with pytest.raises(RemoteProtocolError):
        parse_data(answer, len(data) - 1)


PAIRS = st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=9)), max_size=3)


@given(
    st.none() | U64,
    st.none() | st.tuples(U32, U32),
    st.none() | U32,
    st.none() | st.tuples(U32, U32),
    st.none() | PAIRS,
    st.lists(NAME, max_size=5),
)
def test_attributes_come_back_alone_and_in_a_listing(
    size: int | None,
    owner: tuple[int, int] | None,
    mode: int | None,
    times: tuple[int, int] | None,
    extended: list[tuple[bytes, bytes]] | None,
    entries: list[bytes],
) -> None:
    about = attributes(size, owner, mode, times, extended)

    def check(found: Attributes) -> None:
        assert found.size == (-1 if size is None else size)
        assert found.mode == (-1 if mode is None else mode)
        assert found.mtime_s == (-1 if times is None else times[1])

    check(parse_attributes(taken(message(ANSWER_ATTRIBUTES, 1, about))))
    listed = parse_names(taken(message(ANSWER_NAMES, 1, names([(n, about) for n in entries]))))
    assert [name for name, _ in listed] == entries
    for _, found in listed:
        check(found)


def test_modes_say_what_a_file_is() -> None:
    assert Attributes(mode=0o040755).is_directory and not Attributes(mode=0o040755).is_regular
    assert Attributes(mode=0o100644).is_regular and not Attributes(mode=0o100644).is_directory
    assert not Attributes().is_regular and not Attributes().is_directory


@pytest.mark.parametrize(
    "body", [u32(3), u32(3) + text(b"no\nway\x1b"), u32(3) + text(b"x") + text(b"en")]
)
def test_a_status_may_have_words_and_a_language(body: bytes) -> None:
    code, said = parse_status(taken(message(ANSWER_STATUS, 1, body)))
    assert code == 3 and said in ("", "no?way?", "x")


def test_what_is_free_is_in_bytes() -> None:
    body = b"".join(map(u64, [4096, 512, 1000, 400, 300, 90, 80, 70, 1, 3, 255]))
    room = parse_room(taken(message(ANSWER_EXTENDED, 1, body)))
    assert (room.size, room.files, room.is_read_only) == (300 * 512, 70, True)
    with pytest.raises(RemoteProtocolError):
        parse_room(taken(message(ANSWER_EXTENDED, 1, body[:-1])))


@pytest.mark.parametrize("length", [0, 4, MESSAGE_LIMIT + 1, 2**32 - 1])
def test_a_length_that_is_none_is_refused(length: int) -> None:
    with pytest.raises(RemoteProtocolError, match="bytes"):
        parse_length(u32(length))


def test_the_text_of_a_shell_is_recognised() -> None:
    with pytest.raises(RemoteProtocolError, match="must print nothing"):
        parse_length(b"Welc")


@pytest.mark.parametrize("name", [b"", b"a/b", b"a\0b", b".."])
def test_names_are_of_one_directory(name: bytes) -> None:
    answer = taken(message(ANSWER_NAMES, 1, names([(name, attributes())])))
    if name == b"..":
        assert parse_names(answer)[0][0] == name
    else:
        with pytest.raises(RemoteProtocolError):
            parse_names(answer)


PARSERS: list[tuple[int, bytes, Callable[[Answer], object]]] = [
    (ANSWER_VERSION, text(b"name") + text(b"1"), parse_version),
    (ANSWER_STATUS, u32(4) + text(b"failed"), parse_status),
    (ANSWER_HANDLE, text(b"handle"), parse_handle),
    (ANSWER_DATA, text(b"data"), lambda answer: parse_data(answer, 100)),
    (ANSWER_ATTRIBUTES, attributes(1, (2, 3), 4, (5, 6), [(b"a", b"b")]), parse_attributes),
    (ANSWER_NAMES, names([(b"a", attributes(5)), (b"b", attributes())]), parse_names),
]


@pytest.mark.parametrize(("kind", "body", "parse"), PARSERS)
def test_an_answer_cut_short_or_of_another_kind_is_refused(
    kind: int, body: bytes, parse: Callable[[Answer], object]
) -> None:
    parse(taken(message(kind, 3, body)))
    allowed = {4} if kind == ANSWER_STATUS else {0} if kind == ANSWER_VERSION else set()
    for end in set(range(len(body))) - allowed:
        with pytest.raises(RemoteProtocolError):
            parse(taken(message(kind, 3, body[:end])))
    with pytest.raises(RemoteProtocolError):
        parse(taken(message(kind + 50, 3, body)))
    if kind not in (ANSWER_STATUS,):
        with pytest.raises(RemoteProtocolError):
            parse(taken(message(kind, 3, body + b"\0")))


def test_a_message_of_less_than_its_head_is_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        parse_answer(memoryview(b"abcd"))


@pytest.mark.parametrize("version", [0, 2])
def test_older_versions_are_refused(version: int) -> None:
    with pytest.raises(RemoteProtocolError, match="version 3"):
        parse_version(taken(message(ANSWER_VERSION, version)))
