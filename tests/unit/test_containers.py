"""What is taken out of containers: their own file, so much of it and no more, or an error."""

from __future__ import annotations

import io
import tarfile
import time
from typing import TYPE_CHECKING

import pytest
from docker.errors import NotFound as EngineNotFound

from converter import asking
from converter.asking import ask
from converter.containers import DIRECTORY_LIMIT, ENTRY_LIMIT, Container, Containers
from store.errors import BootfsError, FormatError, NotFound, UsageError
from tests.support.statuses import CHUNK_INDEX, encoded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from converter.images.view import JsonObject
    from store.read.counts import Counts

NAME = "e" * 64
STATUS = asking.DIRECTORY


def described(**changes: object) -> JsonObject:
    return {
        "Id": "c" * 64,
        "Name": "/web",
        "Image": "sha256:" + "d" * 64,
        "Config": {
            "Image": "example/app:1",
            "Labels": {"io.bootfs.chunk-index": f"blake3:{CHUNK_INDEX.hex()}"},
        },
        "State": {"Running": True, "StartedAt": "2026-01-02T03:04:05.123456789Z"},
        "GraphDriver": {"Data": {"UpperDir": f"/var/lib/docker/overlay2/{NAME}/diff"}},
        **changes,
    }


class Engine:
    """What an engine says of one container, and the files in it; those may change with time."""

    def __init__(self, found: JsonObject | None = None) -> None:
        self.found = described() if found is None else found
        self.files: dict[str, dict[str, bytes]] = {}
        self.reads = 0
        self.changes: dict[int, dict[str, bytes]] = {}
        """Files of the status directory from the so-many-th read of it on."""

    def inspect_container(self, container: str) -> JsonObject:
        if container not in ("web", "c" * 64):
            raise EngineNotFound("no such container")
        return self.found

    def containers(self, *, all: bool, filters: dict[str, str]) -> list[JsonObject]:  # noqa: A002  # docker-py's
        assert (all, filters) == (False, {"label": "io.bootfs.chunk-index"})
        return [self.found]

    def get_archive(self, container: str, path: str) -> tuple[Iterator[bytes], JsonObject]:
        directory, _, name = path.rpartition("/")
        if STATUS in (path, directory):
            now = self.changes.get(self.reads + 1, self.files.get(STATUS, {}))
            if path == STATUS or name in now:
                self.reads += 1
                self.files[STATUS] = now
        if path in self.files:
            return iter([tar(name, self.files[path])]), {}
        if name in self.files.get(directory, {}):
            return iter([tar("", {name: self.files[directory][name]})]), {}
        raise EngineNotFound("no such path")


def tar(directory: str, files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as out:
        if directory:
            entry = tarfile.TarInfo(directory)
            entry.type = tarfile.DIRTYPE
            out.addfile(entry)
        for name, data in files.items():
            entry = tarfile.TarInfo(f"{directory}/{name}" if directory else name)
            entry.size = len(data)
            out.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def found(engine: Engine) -> tuple[Containers, Container]:
    containers = Containers(engine)
    return containers, containers.find("web")


def test_a_container_is_described() -> None:
    _, container = found(Engine())
    assert (container.name, container.image, container.is_running) == ("web", "example/app:1", True)
    assert container.chunk_index == CHUNK_INDEX
    assert container.started_s == pytest.approx(1767323045.123456789)
    assert NAME in container.layers
    never = found(Engine(described(State={"Running": False, "StartedAt": "0001-01-01T00:00:00Z"})))
    assert never[1].started_s == 0.0


def test_what_is_none_is_said() -> None:
    containers = Containers(Engine())
    with pytest.raises(NotFound, match="no such container"):
        containers.find("other")
    for labels in (None, {}, {"io.bootfs.chunk-index": "blake3:12"}):
        engine = Engine(described(Config={"Image": "debian", "Labels": labels}))
        with pytest.raises(UsageError, match="boot image"):
            Containers(engine).find("web")


def test_it_is_asked_until_it_has_answered() -> None:
    engine = Engine()
    engine.files[STATUS] = {NAME: encoded()}
    # The file that was there may be of an earlier start.
    later = encoded(lambda counts: counts.add_request(0, 0, 7, 1, 0.0))
    engine.changes = {4: {NAME: later}}
    seen = ask(*found(engine))
    assert (engine.reads, seen.is_fresh) == (4, True)
    assert seen.status.numbers["fetched_bytes"] == 7


def test_the_first_question_of_all_is_answered() -> None:
    engine = Engine()
    engine.files[STATUS] = {}
    engine.changes = {3: {NAME: encoded()}}
    assert ask(*found(engine)).is_fresh


def test_what_somebody_else_put_there_is_waited_over(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine()
    engine.files[STATUS] = {NAME: b"garbage"}
    engine.changes = {2: {NAME: b"more of it"}, 3: {NAME: encoded()}}
    assert ask(*found(engine)).is_fresh
    monkeypatch.setattr(asking, "ANSWER_S", 0.1)
    engine.files[STATUS] = {NAME: b"garbage"}
    with pytest.raises(FormatError):
        ask(*found(engine))


def test_who_does_not_answer_is_shown_as_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "ANSWER_S", 0.1)
    engine = Engine()
    engine.files[STATUS] = {NAME: encoded()}
    assert not ask(*found(engine)).is_fresh


def test_what_an_earlier_start_said_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "ANSWER_S", 0.1)
    later = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + 3600))
    for running in (True, False):
        engine = Engine(described(State={"Running": running, "StartedAt": f"{later}.5Z"}))
        engine.files[STATUS] = {NAME: encoded(has_ended=True)}
        with pytest.raises(NotFound, match="no status of this start"):
            ask(*found(engine))


def test_who_has_ended_is_asked_once() -> None:
    engine = Engine(described(State={"Running": False, "StartedAt": "2026-01-02T03:04:05Z"}))
    engine.files[STATUS] = {NAME: encoded(has_ended=True), f"{NAME}.new": b"cut off"}
    seen = ask(*found(engine))
    assert (engine.reads, seen.is_fresh, seen.status.has_ended) == (1, True, True)


@pytest.mark.parametrize(
    ("names", "layers", "is_there"),
    [
        ([NAME, "f" * 64], True, True),
        (["f" * 64], True, False),
        (["f" * 64, "c" * 64 + ".12"], True, True),
        (["f" * 64], False, True),
        (["f" * 64, "a" * 64], False, False),
        ([f"{NAME}.new"], True, False),
    ],
)
def test_of_a_volume_that_containers_share_it_is_the_own_file(
    names: list[str], layers: bool, is_there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "ANSWER_S", 0.1)
    engine = Engine(described() if layers else described(GraphDriver={"Data": None}))
    engine.files[STATUS] = dict.fromkeys(names, encoded())
    if is_there:
        ask(*found(engine))
    else:
        with pytest.raises(NotFound):
            ask(*found(engine))


def test_any_number_of_others_may_have_left_a_file_there() -> None:
    engine = Engine(described(State={"Running": False, "StartedAt": ""}))
    engine.files[STATUS] = {f"{n:064x}": b"" for n in range(2 * ENTRY_LIMIT)} | {NAME: encoded()}
    assert ask(*found(engine)).status.mode == "erofs"


def test_another_image_s_status_is_refused() -> None:
    engine = Engine(described(State={"Running": False, "StartedAt": ""}))
    engine.files[STATUS] = {NAME: encoded(chunk_index=bytes(32))}
    with pytest.raises(FormatError, match="another image"):
        ask(*found(engine))


def test_what_is_cached_is_counted() -> None:
    def four(counts: Counts) -> None:
        counts.counters.chunks = 4

    engine = Engine(described(State={"Running": False, "StartedAt": ""}))
    engine.files[STATUS] = {NAME: encoded(four)}
    place = f"{asking.CACHE}/{CHUNK_INDEX.hex()}"
    sizes = b"".join(size.to_bytes(4, "little") for size in (10, 200, 3000, 40000))
    engine.files[place] = {"present": b"\1\0\1", "sizes": sizes}
    cached = ask(*found(engine)).cached
    assert cached is not None
    assert (cached.chunks, cached.plain, cached.whole) == (2, 3010, 43210)
    for damage in ({"present": b"\1"}, {"present": b"\1", "sizes": sizes[:-1]}, {}):
        engine.files[place] = damage
        assert ask(*found(engine)).cached is None
    for damage in (
        {"present": bytes(5), "sizes": sizes},
        {"present": b"\1", "sizes": b"\xff" * 16},
        {"present": b"\1", "sizes": sizes + b"more"},
    ):
        engine.files[place] = damage
        with pytest.raises(FormatError):
            ask(*found(engine))


def test_no_more_is_taken_than_can_be_there() -> None:
    taken = 0

    class Endless(Engine):
        def get_archive(self, container: str, path: str) -> tuple[Iterator[bytes], JsonObject]:
            def pieces() -> Iterator[bytes]:
                nonlocal taken
                while True:
                    taken += 1 << 20
                    yield bytes(1 << 20)

            return pieces(), {}

    containers, container = found(Endless())
    with pytest.raises(FormatError, match="more than can be there"):
        ask(containers, container)
    assert taken <= DIRECTORY_LIMIT + (2 << 20)


@pytest.mark.parametrize("damage", ["garbage", "cut", "many", "link"])
def test_a_tar_that_is_none_is_an_error(damage: str) -> None:
    whole = tar("status", {NAME: encoded()})
    many = tar("status", {f"{number}": b"" for number in range(ENTRY_LIMIT + 1)})
    linked = io.BytesIO()
    with tarfile.open(fileobj=linked, mode="w") as out:
        entry = tarfile.TarInfo(f"status/{NAME}")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        out.addfile(entry)
    data = {"garbage": b"x" * 1024, "cut": whole[:700], "many": many, "link": linked.getvalue()}

    class Damaged(Engine):
        def get_archive(self, container: str, path: str) -> tuple[Iterator[bytes], JsonObject]:
            return iter([data[damage]]), {}

    with pytest.raises(BootfsError):
        ask(*found(Damaged(described(State={"Running": False, "StartedAt": ""}))))
