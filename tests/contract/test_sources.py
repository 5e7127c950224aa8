"""What every source promises, asked of every source there is."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from random import Random

import pytest

from store.errors import PackNotFound, SizeMismatch, UsageError
from store.format.names import pack_name
from store.interfaces import Source
from store.read.local import DirectorySource
from store.read.registry import RegistrySource
from store.read.remote import HttpSource
from store.read.source import open_source
from store.read.ssh import SshSource
from store.write.backends import open_backend
from store.write.backends.directory import DirectoryBackend
from store.write.backends.s3 import S3Backend
from tests.support.registries import REPOSITORY, push_blob
from tests.support.s3server import S3Server, write_credentials
from tests.support.servers import Nginx, Registry
from tests.support.sshd import Sshd
from tests.support.stores import WatchedSource

DATA = Random(1).randbytes(3 << 20)
NAME = pack_name(sha256(DATA).digest())
EMPTY = pack_name(sha256(b"").digest())
"""Names that they have in a registry too, where the digest is the name."""


KINDS = ("directory", "http", "http below a path", "backend", "watched", "mirrors", "ssh")
IN_S3 = ("s3", "s3 below a prefix", "s3 backend")
REGISTRIES = ("registry", "registry backend")


@pytest.fixture(params=[*KINDS, *IN_S3, *REGISTRIES])
def source(
    request: pytest.FixtureRequest, tmp_path: Path, serve: Callable[..., Nginx]
) -> Iterator[Source]:
    top = tmp_path
    if request.param in IN_S3:
        s3: S3Server = request.getfixturevalue("s3_server")
        top = s3.bucket
    root = top / "some" / "where" if "below" in request.param else top
    for name, data in ((NAME, DATA), (EMPTY, b"")):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_bytes(data)
    if request.param == "directory":
        source: Source = DirectorySource(str(root))
    elif request.param == "backend":
        source = DirectoryBackend(str(root))
    elif request.param == "watched":
        source = WatchedSource(DirectorySource(str(root)))
    elif request.param == "s3 backend":
        source = S3Backend(s3.store_url())
    elif request.param.startswith("s3"):
        url = s3.store_url("some/where" if "below" in request.param else "")
        source = open_source(url, 5, auth=str(write_credentials(tmp_path / "auth")))
    elif request.param == "mirrors":
        source = open_source(f"{root}|{serve(root).url}", 5)
    elif request.param == "ssh":
        sshd: Sshd = request.getfixturevalue("sshd")
        source = open_source(sshd.url_of(root), 5, auth=str(sshd.auth))
    elif request.param in REGISTRIES:
        registry: Registry = request.getfixturevalue("registry")
        for data in (DATA, b""):
            push_blob(registry, data)
        url = f"docker://{registry.host_port}/{REPOSITORY}"
        source = open_source(url, 5) if request.param == "registry" else open_backend(url)
    else:
        url = serve(tmp_path).url + str(root.relative_to(tmp_path)).removeprefix(".")
        source = HttpSource(url, 5)
    yield source
    source.close()


@pytest.mark.parametrize(
    ("offset", "size"),
    [(0, 1), (0, len(DATA)), (len(DATA) - 1, 1), (1, 4096), (123_457, 1_000_000)],
)
def test_a_range_is_exactly_its_bytes(source: Source, offset: int, size: int) -> None:
    assert source.fetch(NAME, offset, size) == DATA[offset : offset + size]


def test_random_ranges_are_exactly_their_bytes(source: Source) -> None:
    random = Random(2)
    for _ in range(100):
        offset = random.randrange(len(DATA))
        size = random.randrange(1, min(200_000, len(DATA) - offset) + 1)
        assert source.fetch(NAME, offset, size) == DATA[offset : offset + size]


@pytest.mark.parametrize("offset", [0, 1, len(DATA) - 1, len(DATA), len(DATA) + 1, 1 << 40])
def test_a_range_past_the_end_is_a_size_mismatch(source: Source, offset: int) -> None:
    with pytest.raises(SizeMismatch):
        source.fetch(NAME, offset, len(DATA) - min(offset, len(DATA)) + 1)


def test_a_range_of_an_empty_object_is_a_size_mismatch(source: Source) -> None:
    with pytest.raises(SizeMismatch):
        source.fetch(EMPTY, 0, 1)


@pytest.mark.parametrize("name", ["packs/ab/none", "packs/xx/none", "none", NAME + "/below"])
def test_an_object_that_is_not_there_is_not_found(source: Source, name: str) -> None:
    with pytest.raises(PackNotFound, match=name):
        source.fetch(name, 0, 1)


def test_bytes_are_shown_as_they_arrive(source: Source) -> None:
    shown: list[bytes] = []
    source.fetch(NAME, 1000, 2 << 20, lambda body: shown.append(bytes(body)))
    expected = DATA[1000 : 1000 + (2 << 20)]
    assert shown[-1] == expected
    assert all(expected.startswith(body) for body in shown)


def test_what_the_receiver_raises_comes_out_and_the_source_goes_on(source: Source) -> None:
    def refuse(_: memoryview) -> None:
        raise SizeMismatch("chunk", 1, 2)

    for _ in range(3):
        with pytest.raises(SizeMismatch, match="chunk"):
            source.fetch(NAME, 0, 1 << 20, refuse)
    assert source.fetch(NAME, 5, 5) == DATA[5:10]


def test_many_threads_at_once_each_get_theirs(source: Source) -> None:
    barrier = threading.Barrier(32)

    def fetch(number: int) -> None:
        random = Random(number)
        barrier.wait()
        for _ in range(10):
            offset = random.randrange(len(DATA) - 100_000)
            assert source.fetch(NAME, offset, 100_000) == DATA[offset : offset + 100_000]

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(fetch, range(32)))


def test_nothing_is_left_open(source: Source) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: source.fetch(NAME, 0, 10), range(50)))
    source.close()
    assert len(set(os.listdir("/proc/self/fd")) - before) == 0


def test_dialling_never_raises_and_changes_nothing(source: Source) -> None:
    source.dial()
    assert source.fetch(NAME, 0, 10) == DATA[:10]


def test_it_says_where_it_is_and_how_far_to_guess(source: Source) -> None:
    assert source.location
    assert 0 <= source.read_ahead <= 1 << 20


def test_urls_name_their_source(tmp_path: Path) -> None:
    assert isinstance(open_source("HTTP://host/path", 1), HttpSource)
    for url in ("docker://host/path", "DOCKER+HTTP://host:5000/path"):
        assert isinstance(open_source(url, 1), RegistrySource)
    for url in (str(tmp_path), f"file://{tmp_path}", f"FILE://{tmp_path}"):
        source = open_source(url, 1)
        assert isinstance(source, DirectorySource)
        source.close()
    for url in ("ssh://host/path", "SFTP://user@[::1]:23/path"):
        source = open_source(url, 1)
        assert isinstance(source, SshSource)
        source.close()


@pytest.mark.parametrize("urls", ["/a|", "|/a", "/a||/b", "|", "http://host/|ftp://host/"])
def test_mirrors_are_stores_each(urls: str) -> None:
    with pytest.raises(UsageError):
        open_source(urls, 1)


def test_keep_alive_is_used(tmp_path: Path, serve: Callable[..., Nginx]) -> None:
    """nginx's connection number is the same for all requests of one thread."""
    (tmp_path / "object").write_bytes(DATA)
    server = serve(tmp_path, extra="location = /c { return 200 $connection; }")
    source = HttpSource(server.url, 5)
    size = len(source.fetch("c", 0, 1))
    numbers = {source.fetch("c", 0, size) for _ in range(5)}
    source.close()
    assert len(numbers) == 1
