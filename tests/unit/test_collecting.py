"""Collections: what they take and leave, and every order in which one can meet a conversion."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from random import Random

import pytest

from converter.cli import main
from converter.convert import convert
from converter.keeping import parse_duration
from converter.progress import Silent
from converter.reference import parse_reference
from store.errors import BootfsError, IntegrityError, NotFound, PackNotFound, UsageError
from store.format.names import STORE_MARK
from store.write.backends.directory import DirectoryBackend
from store.write.collecting import GRACE_S, collect, forget
from tests.support.layers import docker_archive, file, tar_of
from tests.support.wholestores import (
    LONG_AGO,
    files_of,
    make_old,
    make_orphans,
    needed_files,
    problems_of,
)

SHARED = file("shared", Random(1).randbytes(150_000))
IMAGES = {
    name: docker_archive(tar_of(file("own", Random(n).randbytes(150_000)), SHARED))
    for n, name in enumerate("ab", 2)
}
NOW_S = LONG_AGO + 10 * GRACE_S
"""Files that were made old are older than the grace period; new ones are from the future."""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def convert_image(tmp_path: Path) -> Callable[..., bytes]:
    """Give a function that converts an image and returns the digest of its chunk index."""
    for name, data in IMAGES.items():
        (tmp_path / f"{name}.tar").write_bytes(data)

    def call(name: str, backend: DirectoryBackend | None = None) -> bytes:
        backend = backend or DirectoryBackend(str(tmp_path / "store"))
        before = set((tmp_path / "store").glob("manifests/*"))
        with closing(backend):
            convert(
                parse_reference(f"docker-archive:{tmp_path}/{name}.tar"),
                parse_reference(f"oci:{tmp_path}/boot-{name}"),
                backend,
                1,
                "",
                Silent(),
            )
        made = set((tmp_path / "store").glob("manifests/*")) - before
        return bytes.fromhex(made.pop().name) if made else b""

    return call


def collected(store: Path, grace_s: float = GRACE_S, *, delete: bool = True) -> set[str]:
    """Collect, and return the names of what was old enough."""
    with closing(DirectoryBackend(str(store))) as backend:
        return {garbage.name for garbage in collect(backend, grace_s, NOW_S, delete=delete).old}


def test_nothing_that_an_image_needs_is_taken(
    store: Path, convert_image: Callable[..., bytes]
) -> None:
    convert_image("a")
    convert_image("b")
    make_old(store)
    before = files_of(store)
    assert collected(store, 0) == set()
    assert files_of(store) == before == needed_files(store)


def test_a_dry_run_says_what_a_real_one_removes(
    store: Path, convert_image: Callable[..., bytes]
) -> None:
    convert_image("a")
    make_orphans(store)
    (store / "packs" / "tmp1.part").touch()
    (store / "tmp2.part").touch()
    (store / "README").write_text("not ours")
    make_old(store)
    before = files_of(store)
    found = collected(store, delete=False)
    assert files_of(store) == before
    assert found == before - {STORE_MARK, "README"} and {"packs/tmp1.part", "tmp2.part"} < found
    assert collected(store) == found
    assert files_of(store) == {STORE_MARK, "README"}
    assert collected(store) == set()


def test_what_is_younger_than_the_grace_period_is_left_and_counted(
    store: Path, convert_image: Callable[..., bytes]
) -> None:
    convert_image("a")
    make_orphans(store)
    with closing(DirectoryBackend(str(store))) as backend:
        for age_s, old in ((GRACE_S, 3), (GRACE_S - 1, 0)):
            found = collect(backend, GRACE_S, LONG_AGO + age_s, delete=False)
            assert (len(found.old), len(found.young)) == (old, 3 - old)
            assert all(garbage.age_s == age_s for garbage in (*found.old, *found.young))


def test_what_a_forgotten_image_shares_stays_and_the_rest_goes_after_the_grace_period(
    store: Path, convert_image: Callable[..., bytes]
) -> None:
    image = convert_image("a")
    kept = convert_image("b")
    make_old(store)
    with closing(DirectoryBackend(str(store))) as backend:
        forget(backend, image)
        with pytest.raises(NotFound, match=image.hex()):
            forget(backend, image)
    assert [path.name for path in store.glob("manifests/*")] == [kept.hex()]
    assert collected(store) == set()
    # The pack of "shared" is needed still; those of b were not made young.
    assert all(path.stat().st_mtime == LONG_AGO for path in store.glob("*/*/*"))
    make_old(store)
    names = {f"indexes/{image.hex()}", f"bootstraps/{image.hex()}"}
    assert collected(store) == names
    assert problems_of(store) == []


@pytest.mark.parametrize("kind", ["manifests", "indexes"])
@pytest.mark.parametrize("damage", ["cut", "another's", "missing"])
def test_nothing_is_taken_where_nobody_can_say_what_an_image_needs(
    store: Path, convert_image: Callable[..., bytes], kind: str, damage: str
) -> None:
    image = convert_image("a")
    convert_image("b")
    path = store / kind / image.hex()
    other = next(p for p in (store / kind).iterdir() if p != path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-50])
    elif damage == "another's":
        path.write_bytes(other.read_bytes())
    elif kind == "indexes":
        path.unlink()
    else:
        (store / "manifests" / "note").touch()
    make_old(store)
    before = files_of(store)
    with pytest.raises(BootfsError) as raised:
        collected(store)
    assert isinstance(raised.value, IntegrityError) or "remove the file" in str(raised.value)
    assert files_of(store) == before
    if "note" not in str(raised.value):
        assert f"bootfs forget {store} blake3:{image.hex()}" in str(raised.value)
        with closing(DirectoryBackend(str(store))) as backend:
            forget(backend, image)
        make_old(store)
        collected(store)
        assert problems_of(store) == [] and files_of(store) == needed_files(store)


class Stepping(DirectoryBackend):
    """A store that calls ``before`` with the number of each call to it, from 1, and its name."""

    def __init__(self, store: Path, before: Callable[[int, str], None]) -> None:
        super().__init__(str(store))
        self._before = before
        self._stepping = threading.Lock()
        self.steps: list[str] = []
        self.held = 0
        """How often it is held, or may be at any moment."""

    def _step(self, what: str, held: int = 0) -> None:
        with self._stepping:
            self.steps.append(what)
            self._before(len(self.steps), what)
            self.held += held

    def has(self, name: str) -> bool:
        self._step("has")
        return super().has(name)

    def size(self, name: str) -> int:
        self._step("size")
        return super().size(name)

    def age_s(self, name: str, now_s: float) -> float:
        self._step("age")
        return super().age_s(name, now_s)

    def fetch(
        self, name: str, offset: int, size: int, arrived: Callable[[memoryview], None] | None = None
    ) -> bytes:
        self._step("fetch")
        return super().fetch(name, offset, size, arrived)

    def iter_names(self, prefix: str) -> Iterator[str]:
        self._step("list")
        yield from super().iter_names(prefix)

    def refresh(self, name: str) -> bool:
        self._step("refresh")
        return super().refresh(name)

    def replace(self, name: str, pieces: Iterator[bytes]) -> None:
        self._step("write")
        super().replace(name, pieces)

    def remove(self, names: Iterable[str]) -> None:
        for name in list(names):
            self._step("remove")
            super().remove([name])

    @contextmanager
    def hold(self, *, alone: bool) -> Iterator[None]:
        self._step("hold", 1)
        try:
            with super().hold(alone=alone):
                self._step("held")
                yield
        finally:
            self.held -= 1
        self._step("released")


class Meeting:
    """A store in which an image left long ago what another needs a part of, again and again."""

    def __init__(self, store: Path, convert_image: Callable[..., bytes], grace_s: float) -> None:
        self.store = store
        self._convert = convert_image
        self.grace_s = grace_s
        # Without a grace period everything is old, whenever it was written.
        self.now_s = NOW_S if grace_s else 1e12
        convert_image("b")
        make_orphans(store)
        self._begin = store.with_name("begin")
        shutil.move(store, self._begin)

    def begin(self) -> None:
        shutil.rmtree(self.store, ignore_errors=True)
        shutil.rmtree(self.store.with_name("boot-a"), ignore_errors=True)
        # With the times of the files.
        shutil.copytree(self._begin, self.store)

    def convert(self, backend: DirectoryBackend) -> BootfsError | None:
        try:
            self._convert("a", backend)
        except BootfsError as error:
            return error
        return None

    def collect(self, backend: DirectoryBackend | None = None) -> None:
        with closing(backend or DirectoryBackend(str(self.store))) as opened:
            collect(opened, self.grace_s, self.now_s, delete=True)

    def check(self, failure: BootfsError | None) -> None:
        """Check what must hold, whatever a conversion and a collection did to one another."""
        assert problems_of(self.store) == []
        manifests = list(self.store.glob("manifests/*"))
        if failure is None:
            assert len(manifests) == 1
        else:
            # Only without a grace period, and it says what to do.
            assert self.grace_s == 0 and isinstance(failure, PackNotFound), failure
            assert "convert again" in str(failure) and manifests == []


def collect_at(meeting: Meeting, number: int) -> tuple[BootfsError | None, list[str]]:
    """Convert, with a collection at step ``number``; return why it failed, and the steps."""
    collection = threading.Thread(target=meeting.collect)

    def before(step: int, _: str) -> None:
        if step == number:
            collection.start()
        # While a conversion holds the store, a collection waits.
        if step >= number and not backend.held:
            collection.join()

    backend = Stepping(meeting.store, before)
    failure = meeting.convert(backend)
    if len(backend.steps) >= number:
        collection.join()
    return failure, backend.steps


@pytest.mark.parametrize("grace_s", [GRACE_S, 0])
def test_a_collection_at_any_step_of_a_conversion(
    store: Path, convert_image: Callable[..., bytes], grace_s: float
) -> None:
    meeting = Meeting(store, convert_image, grace_s)
    kinds: set[str] = set()
    failures = 0
    for number in count(1):
        meeting.begin()
        failure, steps = collect_at(meeting, number)
        meeting.check(failure)
        if len(steps) < number and failure is None:
            break
        failures += failure is not None
        kinds.update(steps)
    assert kinds == {"list", "fetch", "size", "refresh", "write", "hold", "held", "has", "released"}
    assert bool(failures) == (grace_s == 0)


def convert_at(meeting: Meeting, number: int) -> tuple[BootfsError | None, list[str]]:
    """Collect, with a conversion at step ``number``; return why that failed, and the steps."""
    waits = threading.Event()
    failures: list[BootfsError | None] = []

    def run() -> None:
        converting = Stepping(
            meeting.store, lambda _, what: waits.set() if what == "hold" else None
        )
        failures.append(meeting.convert(converting))
        waits.set()

    conversion = threading.Thread(target=run)

    def before(step: int, _: str) -> None:
        if step == number:
            conversion.start()
            if not backend.held:
                conversion.join()
            # While a collection holds the store, a conversion goes on until it must hold it too.
            waits.wait()

    backend = Stepping(meeting.store, before)
    meeting.collect(backend)
    if len(backend.steps) < number:
        return meeting.convert(DirectoryBackend(str(meeting.store))), backend.steps
    conversion.join()
    return failures[0], backend.steps


@pytest.mark.parametrize("grace_s", [GRACE_S, 0])
def test_a_conversion_at_any_step_of_a_collection(
    store: Path, convert_image: Callable[..., bytes], grace_s: float
) -> None:
    meeting = Meeting(store, convert_image, grace_s)
    kinds: set[str] = set()
    for number in count(1):
        meeting.begin()
        failure, steps = convert_at(meeting, number)
        meeting.check(failure)
        kinds.update(steps)
        if len(steps) < number:
            break
    assert {"list", "size", "age", "held", "remove", "released"} <= kinds


def test_the_command_says_what_it_would_do_and_does_it(
    store: Path, convert_image: Callable[..., bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    convert_image("a")
    make_orphans(store)
    assert main(["collect", str(store)]) == 0
    out = capsys.readouterr().out
    assert out.count("packs/") == 1 and "3 objects, 0." in out and "--delete" in out
    assert main(["collect", str(store), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["deleted"] is False and shown["young"] == [] and len(shown["old"]) == 3
    assert shown["images"] == []
    assert main(["collect", str(store), "--delete"]) == 0
    assert "removed" in capsys.readouterr().out
    assert files_of(store) == {STORE_MARK}


def test_an_image_is_forgotten_by_its_boot_image_or_its_digest(
    store: Path, convert_image: Callable[..., bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    image = f"blake3:{convert_image('a').hex()}"
    boot = f"oci:{store.with_name('boot-a')}"
    assert main(["collect", str(store), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == [image]
    assert main(["forget", str(store), boot]) == 0
    said = capsys.readouterr().out
    assert f"{image} forgotten, for every boot image that has it, with other settings too" in said
    assert f"bootfs collect {store} --delete" in said
    for again in (boot, image):
        assert main(["forget", str(store), again]) == 10
        assert image in capsys.readouterr().err
    convert_again = ["convert", f"docker-archive:{store.with_name('a.tar')}"]
    shutil.rmtree(store.with_name("boot-a"))
    assert main([*convert_again, boot, "--store", str(store)]) == 0
    assert main(["forget", str(store), image]) == 0
    assert not list(store.glob("manifests/*"))


def test_boot_images_with_other_settings_are_forgotten_too(
    store: Path, convert_image: Callable[..., bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    image = convert_image("a")
    other = f"oci:{store.with_name('other')}"
    command = ["convert", f"docker-archive:{store.with_name('a.tar')}", other]
    assert main([*command, "--store", str(store), "--blob-store", "/elsewhere"]) == 0
    assert [path.name for path in store.glob("manifests/*")] == [image.hex()]
    capsys.readouterr()
    assert main(["forget", str(store), other]) == 0
    assert "with other settings too" in capsys.readouterr().out
    assert main(["forget", str(store), f"oci:{store.with_name('boot-a')}"]) == 10


@pytest.mark.parametrize("command", [("collect",), ("collect", "--delete"), ("forget", "a")])
def test_without_a_store_nothing_is_made(
    tmp_path: Path, command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    name, *rest = command
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis").touch()
    rest = [f"blake3:{bytes(32).hex()}" if word == "a" else word for word in rest]
    for place, status in (("none", 10), ("other", 2)):
        assert main([name, str(tmp_path / place), *rest]) == status
        assert capsys.readouterr().err.startswith("bootfs: ")
    assert main([name, "http://host/store", *rest]) == 2
    assert "web server" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["other", "thesis"]


def test_a_file_system_without_locks_can_be_written_and_not_collected(
    store: Path, convert_image: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr("fcntl.flock", refuse)
    convert_image("a")
    assert problems_of(store) == []
    make_orphans(store)
    before = files_of(store)
    with pytest.raises(UsageError, match="without locks"):
        collected(store)
    assert files_of(store) == before


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0), ("90", 90), ("90s", 90), ("30m", 1800), ("7d", 604800)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "-1h", "1.5h", "1 h", "1w", "٣h"])
def test_what_is_no_duration_is_usage(text: str) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["collect", "store", f"--grace={text}"])
    assert raised.value.code == 2
