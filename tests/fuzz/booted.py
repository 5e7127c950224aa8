"""Targets: what a boot reads of servers, of the kernel, of the engine and of earlier starts."""

from __future__ import annotations

import _socket
import json
import os
import re
import shutil
import struct
import tempfile
from functools import cache
from pathlib import Path
from random import Random

import boot.lease.journal as journal_module
from boot import fuse
from boot.config import MODES, Settings, workload_environment
from boot.environment import parse_environment
from boot.fuse import OneFile
from boot.lease.journal import Journal
from boot.mounts import Mount, parse_mounts
from boot.replay import GAP, Replay
from converter.asking import Seen
from converter.containers import Container
from converter.prometheus import iter_metrics
from converter.statusfile import parse_status, shown_name
from converter.statustext import as_facts, iter_lines, one_line
from converter.tree import Content
from converter.waterfall import iter_waterfall
from store.errors import (
    AccessDenied,
    BootError,
    BootfsError,
    FormatError,
    RemoteProtocolError,
    UsageError,
)
from store.format import status
from store.format.bootconfig import BootConfig
from store.format.chunkindex import BLOCK, HOLE
from store.format.distribution import (
    encode_get,
    parse_challenges,
    parse_repository_url,
    token_place,
)
from store.format.http1 import (
    Endpoint,
    check_content_range,
    check_plain_body,
    encode_request,
    object_size,
    parse_head,
    parse_url,
    resolve_redirect,
)
from store.format.names import CACHE_LAYOUT
from store.read import connection
from store.read.cache import Cache
from store.read.dockerconfig import parse_credentials
from store.read.image import ImageReader
from store.read.order import LIMIT as ORDER_LIMIT
from store.read.order import Pages, StartOrder
from store.read.places import DIGEST, ENTRY, IMAGE, _bucket
from store.read.registryauth import parse_token
from store.read.remote import HttpSource
from tests.fuzz.dressing import split_parts
from tests.fuzz.registry import target
from tests.support.stores import NAME, StoredImage
from tests.support.trees import make_directory, make_file

_HTTP_WORDS = (
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 206 Partial Content\r\n", b"HTTP/1.1 302 Found\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 416 \r\n", b"HTTP/1.1 429 \r\n", b"\r\n\r\n",
    b"Content-Length: 4\r\n", b"Content-Range: bytes 0-3/4\r\n", b"Location: /x\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Content-Encoding: gzip\r\n", b"Connection: close\r\n",
    b"Retry-After: 9\r\n", b"Location: http://[::1]:80/a\r\n", b"Location: https://b\r\n",
    b"Location: //c/d\r\n", b"Location: ../e?f\r\n", b"\r\n", b"\x00", b"\xff", b"9" * 25, b"\xb2",
)  # fmt: skip


@target("http-head", words=_HTTP_WORDS, longest=1024)
def check_http_head(data: bytes) -> bool:
    """The first two lines are a store's URL and a redirection, the rest is a head."""
    first, _, rest = data.partition(b"\n")
    second, _, head_bytes = rest.partition(b"\n")
    endpoint = _check_url(first.decode("latin-1"))
    if endpoint is not None:
        _check_redirect(endpoint, second.decode("latin-1"))
    try:
        head = parse_head(head_bytes)
    except RemoteProtocolError:
        return False
    assert 0 <= head.status <= 999
    for name in head.fields:
        assert name == name.lower() == name.strip()
        assert name
    size = object_size(head)
    assert size is None or 0 <= size < 10**19
    try:
        length = head.content_length
        assert length is None or 0 <= length < 10**19
        check_plain_body(head)
        check_content_range(head, 0, 4)
        assert length == 4
    except RemoteProtocolError:
        pass
    return True


@target(
    "registry-challenge",
    words=(
        b"Bearer ", b"Basic ", b'realm="', b'service="', b'scope="', b'",', b'"', b"\\", b"=",
        b"http://", b"https://", b"//", b"/token?a=b", b"\r\n", b"docker://", b"docker+http://",
    ),
    longest=1024,
)  # fmt: skip
def check_registry_challenge(data: bytes) -> bool:
    """The first line is a store's URL, the rest what its registry asks for."""
    first, _, rest = data.partition(b"\n")
    try:
        endpoint, repository = parse_repository_url(first.decode("latin-1"))
    except UsageError:
        return False
    _check_lines(
        encode_get(endpoint, (f"/v2/{repository}/blobs/x", ""), "Bearer x", "bytes=0-1"), 6
    )
    try:
        challenges = parse_challenges(rest.decode("latin-1"))
    except RemoteProtocolError:
        return False
    for challenge in challenges:
        assert challenge.scheme == challenge.scheme.lower()
        try:
            target, server = token_place(endpoint, repository, challenge)
        except RemoteProtocolError:
            continue
        assert server.scheme == "https" or endpoint.scheme == "http"
        _check_lines(encode_get(server, (target, ""), "Basic x"), 5)
    return True


def _check_lines(request: bytes, count: int) -> None:
    """Assert that it is one request, of its own lines alone."""
    lines = request.split(b"\r\n")
    assert lines[-2:] == [b"", b""]
    assert len(lines) == count + 2
    assert lines[0].count(b" ") == 2
    assert b"\n" not in b"".join(lines)


@target(
    "registry-credentials",
    words=(
        b'"auths"', b'"auth"', b'"username"', b'"password"', b'"registrytoken"', b'"host:5000"',
        b'"identitytoken"', b'"https://host:5000/v1/"', b'"token"', b'"access_token"', b"{}", b"[]",
        b"null", b"1", b"\\r\\n", b"\\u00fc", b"[" * 300,
    ),
)  # fmt: skip
def check_registry_credentials(data: bytes) -> bool:
    """Both a file of credentials and a token server's answer."""
    accepted = False
    try:
        found = parse_credentials("/auth/config.json", data, "host:5000", "some/where")
        for text in (found.basic, found.bearer):
            assert all(" " <= c <= "~" for c in text)
        assert found.path == "/auth/config.json"
        accepted = True
    except AccessDenied as error:
        assert str(error).startswith("/auth/config.json: ")
        assert len(str(error)) < 120
    try:
        token = parse_token(data, "server")
        assert token
        assert all("!" <= c <= "~" for c in token)
        accepted = True
    except RemoteProtocolError as error:
        assert str(error) == "server: the answer holds no token"
    return accepted


def _check_url(url: str) -> Endpoint | None:
    try:
        endpoint = parse_url(url)
    except UsageError:
        return None
    again = parse_url(str(endpoint))
    for name in Endpoint.__slots__:
        assert getattr(again, name) == getattr(endpoint, name), name
    assert 0 < endpoint.port < 65536
    _check_request(endpoint, endpoint.path + "/name")
    return endpoint


def _check_redirect(endpoint: Endpoint, location: str) -> None:
    try:
        target, found = resolve_redirect(endpoint, "/a/b?c", location)
    except RemoteProtocolError:
        return
    assert endpoint.scheme == "http" or found.scheme == "https"
    _check_request(found, target)


def _check_request(endpoint: Endpoint, target: str) -> None:
    """Assert that a server cannot mistake what is asked: no line is another's doing."""
    lines = encode_request(endpoint, target, 5, 7).split(b"\r\n")
    assert len(lines) == 7
    assert lines[0] == b"GET " + target.encode() + b" HTTP/1.1"
    assert len(lines[0].split(b" ")) == 3
    assert target.startswith("/")
    assert lines[1] == b"Host: " + endpoint.authority.encode()
    assert b" " not in lines[1][6:]
    assert lines[2] == b"Range: bytes=5-11"
    assert lines[-2:] == [b"", b""]


@target("http-exchange", words=_HTTP_WORDS, longest=1024, steps=100_000)
def check_http_exchange(data: bytes) -> bool:
    """Fetch four bytes from a server that answers each connection with a part of the input."""
    answers = [_Server(answer) for answer in data.split(b"\n%%\n")[:8]]
    left = iter(answers)

    def connect(endpoint: Endpoint, *_: object) -> _Server:
        server = next(left, _Server(b""))
        server.is_open = True
        return server

    genuine = connection.connect
    connection.connect = connect
    source = HttpSource("http://store/base", 1.0)
    try:
        found = source.fetch_once("name", 3, 4, None, 10.0, 10.0)
        assert len(found) == 4
        assert found in data
        return True
    except BootfsError:
        return False
    finally:
        connection.connect = genuine
        source.close()
        for server in answers:
            _check_asked(server)


class _Server:
    """A connection to a server that says the same whatever it is asked, in pieces of some size."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._piece = len(answer) % 50 + 1
        self.asked = b""
        self.is_open = False

    def settimeout(self, seconds: float | None, /) -> None:
        assert seconds is not None
        assert seconds > 0

    def sendall(self, data: bytes, /) -> None:
        self.asked += data

    def recv_into(self, buffer: memoryview, /) -> int:
        piece = self._answer[: min(self._piece, len(buffer))]
        buffer[: len(piece)] = piece
        self._answer = self._answer[len(piece) :]
        return len(piece)

    def close(self) -> None:
        self.is_open = False


def _check_asked(server: _Server) -> None:
    assert not server.is_open
    if server.asked:
        message, end, rest = server.asked.partition(b"\r\n\r\n")
        lines = message.split(b"\r\n")
        assert end
        assert not rest
        assert len(lines) == 5
        assert lines[0].startswith(b"GET /")
        assert lines[2] == b"Range: bytes=3-6"


_MOUNT_FIELDS = 5
_ESCAPED = (b"\\", b" ", b"\t", b"\n")


def _mangled(text: bytes) -> bytes:
    """Return a string as the kernel writes it into mountinfo (fs/proc_namespace.c, mangle)."""
    for byte in _ESCAPED:
        text = text.replace(byte, b"\\%03o" % byte[0])
    return text


@target("mountinfo", words=(b"\r", b"\x0b", b"\x85", b"\x1c", b" - ", b"\\040", b"#"), longest=600)
def check_mountinfo(data: bytes) -> bool:
    """The kernel's lines, with names in them that are the user's: any bytes but zero."""
    names = [part.replace(b"\0", b"") for part in data.split(b"\n\n")][:20]
    lines = []
    wanted = []
    for at in range(0, len(names) - _MOUNT_FIELDS + 1, _MOUNT_FIELDS):
        root, place, kind, source, option = names[at : at + _MOUNT_FIELDS]
        root, place = b"/" + root, b"/" + place
        tags = b"shared:1 master:2 " if len(place) % 2 else b""
        lines.append(
            b"%d %d 0:%d %s %s ro,nosuid %s- %s %s rw,opt=%s\n" % (
                at, at + 1, at, _mangled(root), _mangled(place), tags, _mangled(kind),
                _mangled(source), _mangled(option),
            )
        )  # fmt: skip
        wanted.append((at, at + 1, root, place))
    mounts = parse_mounts(b"".join(lines))
    assert all(isinstance(mount, Mount) for mount in mounts)
    assert [(m.number, m.parent, m.root, m.target) for m in mounts] == wanted
    assert all(mount.flags == 3 for mount in mounts)
    return bool(wanted)


_ENVIRONMENT_WORDS = (
    b"BOOTFS_MODE=", b"BLOB_STORE=", b"BOOTFS_READ_LIMIT=", b"BOOTFS_GATES=", b"BOOTFS_KEEP_CAPS=",
    b"BOOTFS_ENTRYPOINT=", b"erofs", b"lease", b"nan", b"inf", b"1e3", b"-0", b"SYS_ADMIN", b"\0",
    b"\xc2OOTFS_MODE=", b"=", b"\xbd", b"1_0",
)  # fmt: skip


@target("environment", words=_ENVIRONMENT_WORDS, longest=600)
def check_environment(data: bytes) -> bool:
    variables = parse_environment(data)
    assert all(name and b"\0" not in name + value for name, value in variables.items())
    assert all(b"=" not in name[1:] for name in variables)
    kept = workload_environment(variables)
    assert not any(name.startswith(b"BOOTFS_") or name == b"BLOB_STORE" for name in kept)
    config = BootConfig(b"r", b"s", bytes(32), [b"/entry"], b"", [])
    try:
        settings = Settings(config, variables)
    except BootError as error:
        assert "\n" not in str(error) or b"\n" in data
        return False
    assert settings.mode in MODES
    assert 0 < settings.read_limit_s < 86400
    assert 0 < settings.fill_limit_s < 86400
    assert settings.blob_store
    return True


def _request(kind: int, part: bytes) -> bytes:
    """Return a request as the kernel makes it: a whole header, and a body of any bytes."""
    opcode, node, unique, *_ = struct.unpack("<BBH", part[:4].ljust(4, b"\0"))
    body = part[4:]
    return fuse.IN_HEADER.pack(
        fuse.IN_HEADER.size + len(body), opcode, unique + kind, node, 0, 0, 0, 0, 0
    ) + body  # fmt: skip


_UNANSWERED = (fuse.FORGET, fuse.BATCH_FORGET, fuse.INTERRUPT)
_FILE_SIZE = 3 * BLOCK + 7


@target("fuse-requests", longest=400)
def check_fuse_requests(data: bytes) -> bool:
    """Answer requests on a socket in the place of /dev/fuse: one answer each, as it must be."""
    ours, kernel = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    kernel.setblocking(False)
    said: list[str] = []

    def read(offset: int, size: int) -> list[bytes | memoryview]:
        # As `ImageReader` does: fewer where the file ends, an error, or what nobody foresaw.
        if offset == BLOCK:
            raise FormatError("chunk", 0, "is damaged")
        if offset == 2 * BLOCK:
            raise ValueError("not foreseen")
        end = min(offset + size, _FILE_SIZE)
        return [bytes(1)] * min(max(end - offset, 0), 2000)

    file = OneFile(ours.fileno(), b"image.erofs", _FILE_SIZE, read, said.append)
    whole = True
    try:
        for number, part in enumerate(split_parts(data)):
            request = _request(number, part)
            file._answer(request)
            whole &= _check_answer(request, kernel)
    finally:
        ours.close()
        kernel.close()
    return whole


def _check_answer(request: bytes, kernel: _socket.socket) -> bool:
    _, opcode, unique, node, *_ = fuse.IN_HEADER.unpack_from(request)
    try:
        answer = kernel.recv(1 << 21)
    except BlockingIOError:
        assert opcode in _UNANSWERED
        return True
    assert opcode not in _UNANSWERED
    try:
        kernel.recv(1)
        raise AssertionError("a second answer")
    except BlockingIOError:
        pass
    length, error, answered = fuse.OUT_HEADER.unpack_from(answer)
    body = answer[fuse.OUT_HEADER.size :]
    assert length == len(answer)
    assert answered == unique
    assert -1000 < error <= 0
    if error:
        assert not body
        return False
    if opcode == fuse.READ:
        _, _offset, size, *_ = fuse.READ_IN.unpack_from(request, fuse.IN_HEADER.size)
        assert len(body) <= size
    elif opcode == fuse.LOOKUP:
        assert node == fuse.ROOT
        assert len(body) == fuse.ENTRY_OUT.size + fuse.ATTR.size
    elif opcode == fuse.INIT:
        assert len(body) == fuse.INIT_OUT.size
    return True


@cache
def _directory() -> Path:
    # Kept as long as the process runs; a cache holds what makes it go away.
    holder = _holder()
    return Path(holder.name)


@cache
def _holder() -> tempfile.TemporaryDirectory[str]:
    memory = "/dev/shm"
    return tempfile.TemporaryDirectory(
        prefix="bootfs-fuzz-", dir=memory if os.path.isdir(memory) else None
    )


@target("journal", longest=600)
def check_journal(data: bytes) -> bool:
    """Go on with a journal of any bytes: the container's root can be written by the workload."""
    path = _directory() / "journal"
    path.write_bytes(data)
    genuine = journal_module.PATH
    journal_module.PATH = str(path)
    index = b"i" * 32
    rows = 4
    try:
        journal = Journal(index, "container", rows)
    except BootError as error:
        assert "remove the container" in str(error)
        return False
    finally:
        journal_module.PATH = genuine
    assert len(path.read_bytes()) == journal_module.HEADER.size + rows * journal_module.ROW.size
    if not journal.is_built:
        # Cut off before its workload ran, or none: begun anew.
        assert journal.is_own
        assert all(journal.row(row) == (0, 0) for row in range(rows))
    for row in (-1, rows, 1 << 40):
        try:
            journal.row(row)
            raise AssertionError("a row that is none")
        except FormatError:
            pass
    journal.set_inode(2, 77)
    journal.set_filled(2, 99)
    journal.set_built()
    assert journal.row(2) == (77, 99)
    return journal.is_built


def _dress_status(data: bytes, random: Random) -> bytes:
    """Say as many requests and reads as there is room for."""
    head = status.HEADER.size + status.COUNTS.size
    if len(data) < head:
        return data
    room = len(data) - head
    requests = random.randrange(room // status.REQUEST.size + 1)
    reads = (room - requests * status.REQUEST.size) // status.READ.size
    dressed = bytearray(data[: head + requests * status.REQUEST.size + reads * status.READ.size])
    for name, count in (("listed_requests", requests), ("listed_reads", reads)):
        status.NUMBER.pack_into(dressed, status.HEADER.size + status.number_at(name), count)
    return bytes(dressed)


@target("status-file", dress=_dress_status, longest=2000, steps=100_000)
def check_status_file(data: bytes) -> bool:
    """Read what a container says of itself, and show it: a workload may have written it."""
    try:
        said = parse_status(data)
    except FormatError:
        return False
    container = Container("i" * 64, "name", "image", "id", said.chunk_index, True, 0.0, frozenset())
    seen = Seen(container, said, is_fresh=True, cached=None)
    text = [*iter_lines(seen), one_line(seen), *(shown_name(read.name) for read in said.reads)]
    assert all(line.isprintable() for line in text)
    json.dumps(as_facts(seen), allow_nan=False)
    assert all(line.isprintable() for line in iter_metrics([seen]))
    for number in re.findall(r' (?:x|y|width|height)="([^"]*)"', "".join(iter_waterfall(said, []))):
        assert 0 <= float(number) <= 10_000
    return True


@cache
def _image() -> StoredImage:
    """Return an image with a hole, and chunks of several sizes."""
    holey = make_file(b"x" * 3 * BLOCK)
    holey.content = Content(30 * BLOCK, holey.content.segments)
    tree = make_directory(
        a=make_file(b"a" * 9 * BLOCK), b=holey, c=make_file(Random(1).randbytes(200_000))
    )
    return StoredImage(tree, _directory() / "s")


@cache
def _reader() -> ImageReader:
    """Return that image, of which every chunk is in the cache."""
    image = _image()
    cached = image.open_cache(_directory() / "full")
    for chunk, plain in _chunks().items():
        cached.write(chunk, plain)
    return image.open_reader(cache=cached)


@cache
def _chunks() -> dict[int, bytes]:
    index = _image().index
    whole = _image().whole()[index.data_start :]
    return {
        chunk: whole[index.starts[place] : index.starts[place + 1]]
        for place, chunk in enumerate(index.place_chunks)
        if chunk != HOLE
    }


LIMIT = 1 << 20
"""Of the cache: less than an image of 256 KiB and another's data may take."""
_CACHE_FILES = ("present", "used", "sizes", "data")


@target("cache", longest=4096, memory=24 << 20, steps=100_000)
def check_cache(data: bytes) -> bool:
    """Use a cache in which others wrote what they liked: nothing of it ends or holds up a reader.

    Accepted is what leads to a chunk in another image's data.
    """
    image = _image()
    top = _directory() / "cache"
    root = top / CACHE_LAYOUT
    shutil.rmtree(top, ignore_errors=True)
    own, other = root / NAME, root / ("ab" * 32)
    parts = [*split_parts(data), b"", b"", b"", b"", b""]
    if parts[3].startswith(b"="):
        # The right bytes, but for the first ones.
        genuine = b"".join(_chunks()[chunk] for chunk in range(image.index.chunk_count))
        parts[3] = parts[3][1:] + genuine[len(parts[3]) - 1 :]
    for place in (own, other):
        place.mkdir(parents=True)
        for name, content in zip(_CACHE_FILES, parts, strict=False):
            (place / name).write_bytes(content)
    with (root / "places").open("wb") as table:
        for chunk in range(image.index.chunk_count):
            entry = parts[4][chunk * ENTRY : (chunk + 1) * ENTRY].ljust(ENTRY, b"\0")
            digest = image.index.digest(chunk)
            if entry[0] % 2:
                entry = digest[4 : 4 + DIGEST] + bytes.fromhex("ab" * IMAGE) + entry[-6:]
            table.seek(_bucket(digest))
            table.write(entry)
    said: list[str] = []
    sizes = image.index.plain_sizes
    cached = Cache(str(top), NAME, sizes, said.append, limit=LIMIT if len(data) % 2 else 0, owner=1)
    try:
        shared = [chunk for chunk in range(len(sizes)) if _check_chunk(cached, chunk)]
        assert not said
    finally:
        cached.close()
    return bool(shared)


def _check_chunk(cached: Cache, chunk: int) -> bool:
    """Look for a chunk as a reader does; return whether another image's data hold it."""
    index = _image().index
    size, digest = index.plain_sizes[chunk], index.digest(chunk)
    found = cached.read(chunk)
    assert found is None or len(found) == size
    if found is not None and bytes(found) != _chunks()[chunk]:
        cached.forget(chunk)
        assert not cached.has(chunk)
        assert cached.read(chunk) is None
    elsewhere = cached.places.find(digest, size)
    assert elsewhere in (None, _chunks()[chunk])
    if cached.claims.take(digest):
        assert cached.claims.is_free(digest)
        cached.claims.renew(digest)
        cached.claims.release(digest)
    if cached.write(chunk, _chunks()[chunk]):
        cached.places.add(digest, cached.offset(chunk))
        found = cached.read(chunk)
        # Without a map of its chunks, another's segment may be this one's too.
        assert found is None or bytes(found) == _chunks()[chunk]
    return elsewhere == _chunks()[chunk]


@target("start-order", longest=600, memory=24 << 20)
def check_start_order(data: bytes) -> bool:
    """Read, replay and add to a list that any container of the cache may have written."""
    path = _directory() / "reads"
    path.write_bytes(data)
    reader = _reader()
    size = reader.size
    order = StartOrder(str(_directory()), size)
    try:
        reads = list(order.reads)
        assert len(reads) <= min(len(data) // 8, ORDER_LIMIT)
        for offset, length in reads:
            assert 0 <= offset <= offset + length < size + BLOCK
            assert offset % BLOCK == length % BLOCK == 0
        _check_replay(reader, order)
        order.add((BLOCK, BLOCK), (size - BLOCK, BLOCK))
    finally:
        os.close(order._fd)
    added = path.read_bytes()
    assert added.startswith(data)
    assert len(added) <= len(data) + 16
    again = StartOrder(str(_directory()), size)
    os.close(again._fd)
    assert len(again.reads) >= len(reads) or len(data) % 8
    return bool(reads)


def _check_replay(reader: ImageReader, order: StartOrder) -> None:
    step = 4 * BLOCK
    asked = []

    def advise(offset: int, size: int) -> int:
        assert 0 <= offset < offset + size < reader.size + BLOCK
        assert size <= step
        asked.append(size)
        return 0

    replay = Replay(reader, order, advise, step, Pages(reader.size))
    assert not replay.advise_next(is_idle=True)
    assert sum(asked) <= sum(size for _, size in order.reads) + GAP * len(order.reads)
