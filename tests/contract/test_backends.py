"""What every backend promises beyond a source, asked of every backend there is."""

import os
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from store.errors import AccessDenied, PackNotFound, StorageFull, UsageError
from store.format.names import STORE_MARK
from store.interfaces import Backend
from store.write.backends import open_backend
from store.write.backends.s3uploads import PART
from tests.support.registries import REPOSITORY
from tests.support.require import require
from tests.support.s3server import S3Server
from tests.support.servers import Registry
from tests.support.sshd import Sshd

UrlOf = Callable[[Path], str]
OpenAt = Callable[[Path], Backend]


def url_maker(kind: str, request: pytest.FixtureRequest) -> UrlOf:
    """Give what makes a store's URL of a directory of this machine."""
    if kind == "directory":
        return str
    if kind == "s3":
        s3: S3Server = request.getfixturevalue("s3_server")
        return lambda path: s3.store_url(str(path.relative_to(s3.bucket)))
    sshd: Sshd = request.getfixturevalue("sshd")
    monkeypatch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    monkeypatch.setenv("PATH", f"{sshd.path}:{os.environ['PATH']}")
    return sshd.url_of


@contextmanager
def opening(kind: str, request: pytest.FixtureRequest) -> Iterator[OpenAt]:
    """Give what opens a store at a directory; all are closed again."""
    url_of = url_maker(kind, request)
    opened: list[Backend] = []

    def open_at(path: Path) -> Backend:
        opened.append(open_backend(url_of(path)))
        return opened[-1]

    yield open_at
    for backend in opened:
        backend.close()


@pytest.fixture(params=["directory", "ssh", "s3"])
def open_at(request: pytest.FixtureRequest) -> Iterator[OpenAt]:
    """Give what opens a store at `place`."""
    with opening(request.param, request) as open_at:
        yield open_at


@pytest.fixture(params=["directory", "ssh"])
def open_files(request: pytest.FixtureRequest) -> Iterator[OpenAt]:
    """Give what opens a store at any directory, whose objects are its files."""
    with opening(request.param, request) as open_at:
        yield open_at


def has_locks(backend: Backend) -> bool:
    """Whether a kind of store can be held alone, as docs/stores says of each."""
    return not backend.location.startswith("ssh://")


@pytest.fixture
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Give the directory in which all bytes of the store are, of whichever kind it is."""
    is_s3 = "s3" in request.node.callspec.params.values()
    top = request.getfixturevalue("s3_server").bucket if is_s3 else tmp_path
    return Path(top) / "new" / "store"


@pytest.fixture
def directory(place: Path, open_at: OpenAt) -> Backend:
    """Give a store whose objects are files below `place`, here or at a server."""
    backend = open_at(place)
    backend.create()
    yield backend
    backend.close()


@pytest.fixture(params=["directory", "ssh", "s3", "registry"])
def backend(request: pytest.FixtureRequest, place: Path) -> Iterator[Backend]:
    if request.param != "registry":
        with closing(open_backend(url_maker(request.param, request)(place))) as backend:
            backend.create()
            yield backend
        return
    require("registry")
    with Registry(place) as registry:
        backend = open_backend(f"docker://{registry.host_port}/{REPOSITORY}")
        backend.create()
        yield backend
        backend.close()


def files_below(path: Path) -> set[str]:
    return {str(p.relative_to(path)) for p in path.rglob("*") if p.is_file()}


@pytest.mark.parametrize("what", ["file", "other directory", "other version"])
def test_a_check_refuses_what_create_refuses(tmp_path: Path, what: str, open_files: OpenAt) -> None:
    place = tmp_path / "there"
    if what == "file":
        place.touch()
    else:
        place.mkdir()
        (place / (STORE_MARK if what == "other version" else "thesis")).write_text("x")
    for call in (open_files(place).check, open_files(place).create):
        with pytest.raises(UsageError, match="another"):
            call()


@pytest.mark.parametrize("name", ["thesis", STORE_MARK])
def test_a_place_with_something_else_is_refused(place: Path, open_at: OpenAt, name: str) -> None:
    place.mkdir(parents=True)
    (place / name).write_text("x")
    backend = open_at(place)
    for call in (backend.check, backend.create):
        with pytest.raises(UsageError, match="another"):
            call()
    assert files_below(place) == {name}


def test_a_check_makes_nothing_and_takes_what_create_takes(place: Path, open_at: OpenAt) -> None:
    backend = open_at(place)
    backend.check()
    assert not place.parent.exists()
    backend.create()
    backend.check()
    backend.write("packs/ab/x", iter((b"x",)))
    backend.check()


def test_an_object_comes_back(backend: Backend) -> None:
    assert not backend.has("packs/ab/x")
    backend.write("packs/ab/x", iter((b"some ", b"", b"bytes")))
    assert backend.has("packs/ab/x")
    assert backend.size("packs/ab/x") == 10
    assert backend.fetch("packs/ab/x", 0, 10) == b"some bytes"


def test_what_exists_is_not_written_again(backend: Backend) -> None:
    backend.write("packs/ab/x", iter((b"first",)))

    def pieces() -> Iterator[bytes]:
        raise AssertionError("a piece was used")
        yield b""

    backend.write("packs/ab/x", pieces())
    assert backend.fetch("packs/ab/x", 0, 5) == b"first"


def test_a_replacement_takes_the_place_of_what_was_there(backend: Backend) -> None:
    backend.write("packs/ab/x", iter((b"damaged",)))
    backend.replace("packs/ab/x", iter((b"who", b"le")))
    backend.replace("packs/ab/y", iter((b"new",)))
    assert backend.fetch("packs/ab/x", 0, 5) == b"whole" and backend.size("packs/ab/x") == 5
    assert backend.fetch("packs/ab/y", 0, 3) == b"new"


def test_a_replacement_that_fails_leaves_what_was_there(backend: Backend, place: Path) -> None:
    backend.write("packs/ab/x", iter((b"damaged",)))
    before = files_below(place)

    def pieces() -> Iterator[bytes]:
        yield b"begun"
        assert backend.fetch("packs/ab/x", 0, 7) == b"damaged"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backend.replace("packs/ab/x", pieces())
    assert backend.fetch("packs/ab/x", 0, 7) == b"damaged" and files_below(place) == before


def test_objects_grow_old_and_are_made_young(directory: Backend, place: Path) -> None:
    directory.write("packs/ab/x", iter((b"x",)))
    os.utime(place / "packs/ab/x", (1000, 1000))
    assert directory.age_s("packs/ab/x", 5000.5) == 4000.5
    assert directory.refresh("packs/ab/x")
    assert directory.age_s("packs/ab/x", 5000.5) < 0
    os.utime(place / "packs/ab/x", (1000, 1000))
    directory.write("packs/ab/x", iter((b"y",)))
    assert directory.age_s("packs/ab/x", 5000.5) < 0 and directory.fetch("packs/ab/x", 0, 1) == b"x"
    assert not directory.refresh("packs/ab/none")
    with pytest.raises(PackNotFound):
        directory.age_s("packs/ab/none", 0)


def test_what_is_removed_is_gone_and_may_be_removed_again(backend: Backend) -> None:
    for name in ("packs/aa/1", "packs/aa/2", "indexes/3"):
        backend.write(name, iter((b"x",)))
    backend.remove(["packs/aa/1", "indexes/3"])
    backend.remove(["packs/aa/1"])
    assert list(backend.iter_names("packs/")) == ["packs/aa/2"]
    backend.write("packs/aa/1", iter((b"new",)))
    assert backend.fetch("packs/aa/1", 0, 3) == b"new"


def test_what_is_being_written_is_listed_as_such_and_can_be_removed(directory: Backend) -> None:
    directory.write("packs/aa/1", iter((b"x",)))
    assert list(directory.iter_unfinished()) == []

    # An object of S3 that goes in one request is nowhere before it is whole.
    begun = PART if directory.location.startswith("s3://") else 0

    def pieces() -> Iterator[bytes]:
        yield bytes(begun)
        (name,) = directory.iter_unfinished()
        assert directory.size(name) == begun and directory.age_s(name, 0) < 0
        directory.remove([name])
        yield b"lost"

    with pytest.raises(PackNotFound, match="longer --grace"):
        directory.write("packs/ab/2", pieces())
    assert list(directory.iter_names("packs/")) == ["packs/aa/1"]
    assert list(directory.iter_unfinished()) == []


def test_who_removes_holds_the_store_alone(
    directory: Backend, place: Path, open_at: OpenAt
) -> None:
    """The others are seen to wait by what happens, not by when."""
    if not has_locks(directory):
        with pytest.raises(UsageError, match="at the server"), directory.hold(alone=True):
            pass
        with directory.hold(alone=False):
            return
    order: list[str] = []
    begun = threading.Event()

    def remove() -> None:
        begun.set()
        with open_at(place).hold(alone=True):
            order.append("alone")

    with directory.hold(alone=False), open_at(place).hold(alone=False):
        thread = threading.Thread(target=remove)
        thread.start()
        begun.wait()
        order += ["both"] * (not order)
    thread.join()
    assert order == ["both", "alone"]

    def commit() -> None:
        with open_at(place).hold(alone=False):
            order.append("committed")

    with directory.hold(alone=True):
        thread = threading.Thread(target=commit)
        thread.start()
        order.append("removed")
    thread.join()
    assert order == ["both", "alone", "removed", "committed"]


def test_nothing_that_is_not_there_can_be_held(place: Path, open_files: OpenAt) -> None:
    with pytest.raises(PackNotFound), open_files(place).hold(alone=False):
        pass


def test_names_are_listed_sorted_and_by_prefix(backend: Backend) -> None:
    assert list(backend.iter_names("packs/")) == []
    names = ["packs/aa/2", "packs/aa/1", "packs/ab/0", "indexes/9"]
    for name in names:
        backend.write(name, iter((b"x",)))
    assert list(backend.iter_names("packs/")) == ["packs/aa/1", "packs/aa/2", "packs/ab/0"]
    assert list(backend.iter_names("indexes/")) == ["indexes/9"]


def test_a_size_of_nothing_is_not_found(backend: Backend) -> None:
    with pytest.raises(PackNotFound, match="packs/ab/none"):
        backend.size("packs/ab/none")


def test_an_object_that_fails_on_the_way_is_not_there(backend: Backend, place: Path) -> None:
    before = files_below(place)

    def pieces() -> Iterator[bytes]:
        yield b"begun"
        assert not backend.has("packs/ab/x")
        assert list(backend.iter_names("packs/")) == []
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backend.write("packs/ab/x", pieces())
    assert not backend.has("packs/ab/x")
    assert files_below(place) == before


def test_many_writers_of_one_name_leave_one_whole_object(backend: Backend) -> None:
    barrier = threading.Barrier(16)

    def write(_: int) -> None:
        barrier.wait()
        backend.write("packs/ab/x", iter([b"same"] * 100))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(write, range(16)))
    assert backend.fetch("packs/ab/x", 0, 400) == b"same" * 100
    assert list(backend.iter_names("packs/")) == ["packs/ab/x"]


def test_creating_twice_is_creating_once(backend: Backend) -> None:
    backend.write("packs/ab/x", iter((b"kept",)))
    backend.create()
    assert backend.fetch("packs/ab/x", 0, 4) == b"kept"


def test_a_directory_with_something_else_in_it_is_refused(
    tmp_path: Path, open_files: OpenAt
) -> None:
    (tmp_path / "thesis.doc").touch()
    with pytest.raises(UsageError, match="not empty"):
        open_files(tmp_path).create()
    assert files_below(tmp_path) == {"thesis.doc"}


def test_a_creation_that_was_killed_is_completed(tmp_path: Path, open_files: OpenAt) -> None:
    (tmp_path / "tmpabc.part").touch()
    open_files(tmp_path).create()
    assert (tmp_path / STORE_MARK).exists()


def test_a_file_in_its_place_is_refused(tmp_path: Path, open_files: OpenAt) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError):
            open_files(path).create()


def test_a_store_of_another_version_is_refused(directory: Backend, place: Path) -> None:
    (place / STORE_MARK).write_text("bootfs store 2\n")
    with pytest.raises(UsageError, match="another version"):
        directory.create()


def test_a_web_server_can_read_what_is_written(place: Path, open_files: OpenAt) -> None:
    backend = open_files(place)
    backend.create()
    backend.write("packs/ab/x", iter((b"x",)))
    assert (place / "packs/ab/x").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    "url", ["", "http://host", "https://host", "ftp://host", "s3://", "S3://b"]
)
def test_stores_that_cannot_be_written_are_refused(url: str) -> None:
    with pytest.raises(UsageError):
        open_backend(url)


def test_file_urls_are_directories(tmp_path: Path) -> None:
    assert open_backend(f"file://{tmp_path}").location == str(tmp_path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    require("root")
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", path], check=True)
    yield path
    subprocess.run(["umount", path], check=True)


def test_a_full_disk_is_said_and_nothing_of_the_object_remains(
    small_disk: Path, open_files: OpenAt
) -> None:
    backend = open_files(small_disk)
    backend.create()
    backend.write("packs/aa/1", iter((bytes(100_000),)))
    before = files_below(small_disk)
    with pytest.raises(StorageFull, match="make room"):
        backend.write("packs/bb/2", iter([bytes(65_536)] * 8))
    assert files_below(small_disk) == before
    backend.write("packs/cc/3", iter((bytes(50_000),)))


def test_a_store_that_may_not_be_written_is_said(small_disk: Path, open_files: OpenAt) -> None:
    backend = open_files(small_disk)
    backend.create()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(AccessDenied, match="writable"):
        backend.write("packs/aa/1", iter((b"x",)))
    with pytest.raises(AccessDenied):
        open_files(small_disk / "new").create()
    with pytest.raises(AccessDenied):
        backend.remove(["bootfs-store"])
    with (
        pytest.raises(AccessDenied if has_locks(backend) else UsageError),
        backend.hold(alone=True),
    ):
        pass
    # Nobody can collect there either.
    assert backend.refresh("bootfs-store") and not backend.refresh("packs/aa/1")


def test_another_user_s_object_is_there_even_where_it_cannot_be_made_young() -> None:
    require("root")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as path:
        Path(path).chmod(0o755)
        backend = open_backend(path)
        backend.create()
        backend.write("packs/ab/x", iter((b"x",)))
        os.seteuid(12345)
        try:
            assert backend.refresh("packs/ab/x") and not backend.refresh("packs/ab/none")
            with pytest.raises(AccessDenied):
                backend.remove(["packs/ab/x"])
        finally:
            os.seteuid(0)
