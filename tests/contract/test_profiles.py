"""`bootfs profile`: what it makes of traces, in every kind of store, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from threading import Thread

import pytest

from store.errors import AccessDenied, IntegrityError, PackNotFound, SizeMismatch
from store.format.names import hot_pack_name, profiles_name
from store.format.profile import DOCUMENT_LIMIT, HEADER, MAGIC, WINDOW, Profile, parse_profiles
from store.interfaces import Streaming
from store.read.source import open_source
from store.write import profilestore
from store.write.backends import open_backend
from store.write.backends.directory import DirectoryBackend
from store.write.profilebuild import build_profile
from store.write.profiles import encode_profiles
from store.write.profilestore import add_profile, read_profiles, remove_profiles
from tests.support.profiled import KINDS, Profiled, make_profiled, store_url
from tests.support.require import require
from tests.support.servers import Nginx

Run = Callable[..., tuple[int, str, str]]
Serve = Callable[..., Nginx]


@pytest.fixture(params=KINDS)
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Profiled:
    """Give a boot image in a store of each kind."""
    return make_profiled(store_url(request.param, tmp_path, request), tmp_path)


@pytest.fixture
def local(tmp_path: Path) -> Profiled:
    """Give a boot image in a directory."""
    return make_profiled(str(tmp_path / "store"), tmp_path)


def profiles_of(stored: Profiled) -> list[Profile]:
    with closing(open_backend(stored.url)) as backend:
        return read_profiles(backend, stored.image)


def hot_pack_of(stored: Profiled, profile: Profile) -> bytes:
    with closing(open_backend(stored.url)) as backend:
        name = hot_pack_name(profile.hot_pack)
        assert backend.size(name) == profile.hot_pack_size
        return backend.fetch(name, 0, profile.hot_pack_size)


def check_hot_pack(stored: Profiled, profile: Profile) -> None:
    """Check that a hot pack has just its chunks, in their order."""
    from zstandard import ZstdDecompressor

    data = hot_pack_of(stored, profile)
    assert hashlib.sha256(data).digest() == profile.hot_pack
    plain = ZstdDecompressor(max_window_size=WINDOW).decompressobj().decompress(data)
    at = 0
    for chunk in profile.chunks:
        from store.format.digest import digest_of

        size = stored.index.plain_sizes[chunk]
        assert digest_of(plain[at : at + size]) == stored.index.digest(chunk)
        at += size
    assert at == len(plain)


def test_profiles_are_made_merged_listed_shown_and_removed(run: Run, anywhere: Profiled) -> None:
    image, store = anywhere.boot, ("--store", anywhere.url)
    assert run("profile", "list", image, *store)[:2] == (
        0,
        f"no profiles of {image} in {anywhere.url}\n",
    )
    first = anywhere.trace("1", (80, 4), (0, 4))
    status, out, err = run("profile", "add", image, *store, "--trace", first)
    assert (status, err) == (0, "") and out.startswith("app: 2 reads of 1 starts, 2 chunks")
    second = anywhere.trace("2", (80, 4), (200, 4))
    other = anywhere.trace("3", (0, 4), command=(b"/usr/bin/other",))
    assert run("profile", "add", image, *store, "--trace", second, other)[0] == 0
    app, another = profiles_of(anywhere)
    page = anywhere.first
    assert (app.name, app.command, app.traces) == ("app", [b"/bin/app", b"-x"], 2)
    assert app.reads == [(page + 80, 4), (page + 200, 4), (page, 4)]
    assert (another.name, another.reads, another.traces) == ("other", [(page, 4)], 1)
    for profile in (app, another):
        check_hot_pack(anywhere, profile)
    status, out, _ = run("profile", "list", image, *store, "--json")
    facts = json.loads(out)
    assert [fact["name"] for fact in facts] == ["app", "other"]
    assert facts[0]["hot_pack"] == app.hot_pack_size > 0
    assert facts[0]["plain"] >= facts[0]["stored"] > 0 and facts[0]["origin"] == "recording"
    status, out, _ = run("profile", "list", image, *store)
    assert status == 0 and out.splitlines()[1].endswith("app    /bin/app -x")
    status, out, _ = run("profile", "show", image, *store, "--name", "app")
    assert status == 0 and [line.split()[-1] for line in out.splitlines()[4:]] == [
        "/part1",
        "/text",
        "/part0",
    ]
    assert run("profile", "remove", image, *store, "--name", "other")[:2] == (
        0,
        "removed: other\n",
    )
    assert [one.name for one in profiles_of(anywhere)] == ["app"]
    assert run("profile", "remove", image, *store, "--all")[:2] == (0, "removed: app\n")
    assert profiles_of(anywhere) == []
    with closing(open_backend(anywhere.url)) as backend:
        assert list(backend.iter_names("profiles/")) == []
        assert not backend.has(profiles_name(anywhere.image))


def test_a_boot_reads_them_from_every_store(
    run: Run, anywhere: Profiled, serve: Serve, tmp_path: Path
) -> None:
    trace = anywhere.trace("1", (0, 8))
    assert run("profile", "add", anywhere.boot, "--store", anywhere.url, "--trace", trace)[0] == 0
    (profile,) = profiles_of(anywhere)
    urls = [anywhere.url.replace("docker://", "docker+http://")]
    if "://" not in anywhere.url:
        urls.append(serve(tmp_path / "store").url)
    for url in urls:
        if url.startswith("s3://"):
            # Read with credentials from a file: tests/contract/test_s3.py.
            continue
        with closing(open_source(url, 10)) as source:
            check_streams(source, anywhere, profile)


def check_streams(source: Streaming, stored: Profiled, profile: Profile) -> None:
    name = profiles_name(stored.image)
    found = bytearray()
    assert source.stream(name, DOCUMENT_LIMIT, found.extend) == len(found)
    (same,) = parse_profiles(bytes(found), stored.image, name)
    assert same.hot_pack == profile.hot_pack and same.reads == profile.reads
    found.clear()
    source.stream(hot_pack_name(profile.hot_pack), profile.hot_pack_size, found.extend)
    assert hashlib.sha256(found).digest() == profile.hot_pack
    with pytest.raises(SizeMismatch):
        source.stream(hot_pack_name(profile.hot_pack), profile.hot_pack_size - 1, found.extend)
    with pytest.raises(PackNotFound):
        source.stream(profiles_name(b"\7" * 32), DOCUMENT_LIMIT, found.extend)
    with pytest.raises(PackNotFound):
        source.stream(hot_pack_name(b"\7" * 32), DOCUMENT_LIMIT, found.extend)


def test_a_replaced_profile_has_nothing_of_the_old_one(run: Run, anywhere: Profiled) -> None:
    add = ("profile", "add", anywhere.boot, "--store", anywhere.url, "--trace")
    assert run(*add, anywhere.trace("1", (0, 4)))[0] == 0
    (before,) = profiles_of(anywhere)
    assert run(*add, anywhere.trace("2", (80, 4)), "--replace")[0] == 0
    (after,) = profiles_of(anywhere)
    assert after.reads == [(anywhere.first + 80, 4)] and after.traces == 1
    assert after.hot_pack != before.hot_pack
    check_hot_pack(anywhere, after)


def test_what_is_only_metadata_has_no_hot_pack(run: Run, local: Profiled) -> None:
    add = ("profile", "add", local.boot, "--store", local.url, "--trace")
    assert run(*add, local.trace("1", (-local.first, 1)))[0] == 0
    (profile,) = profiles_of(local)
    assert (profile.reads, len(profile.chunks)) == ([(0, 1)], 0)
    assert profile.hot_pack_size == 0 and not (Path(local.url) / "hot").exists()
    status, out, _ = run("profile", "show", local.boot, "--store", local.url)
    assert status == 0 and out.splitlines()[-1].endswith("  (metadata)")


def test_the_store_of_the_image_is_the_default(run: Run, local: Profiled, tmp_path: Path) -> None:
    archive, baked = f"docker-archive:{tmp_path}/boot.tar", f"oci:{tmp_path}/baked"
    convert = ("convert", archive, baked, "--store", local.url, "--blob-store", local.url)
    assert run(*convert)[0] == 0
    assert run("profile", "add", baked, "--trace", local.trace("1", (0, 4)))[0] == 0
    status, out, _ = run("profile", "list", baked)
    assert status == 0 and "app" in out


def test_profiles_can_be_listed_through_a_web_server(
    run: Run, local: Profiled, serve: Serve, tmp_path: Path
) -> None:
    url = serve(tmp_path / "store").url
    assert run("profile", "list", local.boot, "--store", url)[0] == 0
    add = ("profile", "add", local.boot, "--trace", local.trace("1", (0, 4)), "--store")
    assert run(*add, local.url)[0] == 0
    status, out, _ = run("profile", "list", local.boot, "--store", f"{url}|http://other.example/")
    assert status == 0 and "/bin/app -x" in out
    status, out, err = run(*add, url)
    assert (status, out) == (2, "") and "cannot be written" in err
    status, _, err = run(*add, f"{local.url}|{url}")
    assert status == 2 and "one of the mirrors" in err


def test_commands_have_profiles_of_their_own(run: Run, local: Profiled) -> None:
    store = ("--store", local.url)
    traces = [
        local.trace(str(n), (n * 20, 4), command=command)
        for n, command in enumerate(
            [(b"/usr/bin/python3", b"a.py"), (b"/opt/python3", b"b.py"), (b"x\xff\n",)]
        )
    ]
    for _ in range(2):
        assert run("profile", "add", local.boot, *store, "--trace", *traces)[0] == 0
    assert [(one.name, one.traces) for one in profiles_of(local)] == [
        ("python3", 2),
        ("python3-2", 2),
        ("x�?", 2),
    ]
    status, out, _ = run("profile", "list", local.boot, *store)
    assert status == 0 and "'x\\xff\\n'" in out and out.count("\n") == 4
    together = ("--name", "all", "--trace", *traces[:2])
    assert run("profile", "add", local.boot, *store, *together)[0] == 0
    one = next(one for one in profiles_of(local) if one.name == "all")
    assert (one.traces, len(one.reads)) == (2, 2)


def test_what_somebody_wrote_into_a_store_does_nothing_to_a_terminal(
    run: Run, local: Profiled
) -> None:
    hostile = Profile("\x1b[2J\n", [b"\x1b]0;x\x07"])
    hostile.reads = [(0xFFFFFFFF, 0xFFFFFFFF), (0, 0xFFFFFFFF), (local.first + 10, 0)]
    hostile.chunks.extend([0xFFFFFFFF, 0])
    document = Path(local.url) / profiles_name(local.image)
    document.parent.mkdir()
    document.write_bytes(encode_profiles(local.image, [hostile]))
    store = ("--store", local.url)
    for command in (
        ("list", local.boot),
        ("show", local.boot),
        ("show", local.boot, "--name", "x"),
        ("remove", local.boot, "--name", "x"),
    ):
        _, out, err = run("profile", *command, *store)
        assert (out or err) and not set("\x1b\x07") & set(out + err)
    (fact,) = json.loads(run("profile", "list", local.boot, *store, "--json")[1])
    assert (fact["chunks"], fact["name"]) == (1, hostile.name)
    facts = json.loads(run("profile", "show", local.boot, *store, "--json")[1])
    assert [file["path"] for file in facts["files"]] == ["(metadata)", "/part0", "/part1", "/text"]
    status, out, _ = run("profile", "remove", local.boot, *store, "--all")
    assert status == 0 and "\x1b" not in out


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("add", "BOOT"), 2, "give --trace FILE, --from CONTAINER or --from-store"),
        (("add", "BOOT", "--trace", "none"), 10, "none"),
        (("add", "BOOT", "--trace", "BOOT.tar"), 12, "not a trace"),
        (("add", "BOOT", "--trace", "OTHER"), 11, "a trace of another image, blake3:0707"),
        (("add", "BOOT", "--trace", "NAMELESS"), 2, "give --name NAME"),
        (("add", "BOOT", "--trace", "TRACE", "--name", "x" * 65), 2, "no name for a profile"),
        (("add", "SOURCE", "--trace", "TRACE"), 2, "not a boot image"),
        (("remove", "BOOT"), 2, "give --name NAME or --all"),
        (("remove", "BOOT", "--all", "--name", "x"), 2, "give --name NAME or --all"),
        (("remove", "BOOT", "--name", "x"), 10, "no profile 'x'"),
        (("show", "BOOT"), 10, "has no profile of"),
        (("show", "BOOT", "--name", "x"), 10, "has no profile 'x' of"),
    ],
)
def test_what_cannot_be_is_one_line_and_changes_nothing(
    run: Run, local: Profiled, arguments: tuple[str, ...], status: int, words: str
) -> None:
    names = {
        "BOOT": local.boot,
        "SOURCE": f"docker-archive:{local.place}/boot.tar",
        "BOOT.tar": f"{local.place}/boot.tar",
        "TRACE": str(local.trace("good", (0, 4))),
        "OTHER": str(local.trace("other", (0, 4), image=b"\7" * 32)),
        "NAMELESS": str(local.trace("nameless", (0, 4), command=())),
        "none": f"{local.place}/none",
    }
    given = [names.get(argument, argument) for argument in arguments]
    got, out, err = run("profile", *given, "--store", local.url)
    assert (got, out) == (status, "") and words in err and err.count("\n") == 1
    assert not (Path(local.url) / "profiles").exists()


def test_an_image_that_the_store_has_not_is_said(run: Run, local: Profiled, tmp_path: Path) -> None:
    DirectoryBackend(str(tmp_path / "other")).create()
    add = ("profile", "add", local.boot, "--trace", local.trace("1", (0, 4)), "--store")
    status, _, err = run(*add, tmp_path / "other")
    assert status == 10 and "no image blake3:" in err
    status, _, err = run(*add, tmp_path / "none")
    assert status == 10 and "no bootfs store" in err


def test_a_damaged_document_is_said_and_mended(run: Run, local: Profiled) -> None:
    store = ("--store", local.url)
    add = ("profile", "add", local.boot, *store, "--trace", local.trace("1", (0, 4)))
    assert run(*add)[0] == 0
    document = Path(local.url) / profiles_name(local.image)
    data = document.read_bytes()
    for damaged in (data[:-1], b"", data[:60] + b"?" + data[61:], b"x" * (DOCUMENT_LIMIT + 1)):
        document.write_bytes(damaged)
        for command in (("list", local.boot), ("show", local.boot), add[1:3] + add[5:]):
            status, out, err = run("profile", *command, *store)
            assert (status, out) == (11, "") and "--replace" in err and err.count("\n") == 1
        assert document.read_bytes() == damaged
    status, _, err = run(*add, "--replace")
    assert status == 0 and "were damaged" in err
    assert document.read_bytes() == data
    document.write_bytes(data[:-1])
    status, out, _ = run("profile", "remove", local.boot, *store, "--name", "app")
    assert status == 0 and "were damaged" in out and not document.exists()


def test_what_a_later_release_wrote_is_left_alone(run: Run, local: Profiled) -> None:
    store = ("--store", local.url)
    document = Path(local.url) / profiles_name(local.image)
    document.parent.mkdir()
    later = HEADER.pack(MAGIC, 2, 0, 0, local.image, bytes(32))
    document.write_bytes(later)
    trace = local.trace("1", (0, 4))
    for command in (
        ("list", local.boot),
        ("add", local.boot, "--trace", trace, "--replace"),
        ("remove", local.boot, "--all"),
    ):
        status, _, err = run("profile", *command, *store)
        assert status == 12 and "version 2" in err
    assert document.read_bytes() == later


def test_a_damaged_pack_makes_no_hot_pack(run: Run, local: Profiled) -> None:
    (pack,) = Path(local.url).glob("packs/*/*")
    data = bytearray(pack.read_bytes())
    data[5000] ^= 1
    pack.write_bytes(data)
    add = ("profile", "add", local.boot, "--store", local.url)
    status, _, err = run(*add, "--trace", local.trace("1", (0, 200)))
    assert status == 11 and err.count("\n") == 1
    assert not (Path(local.url) / "hot").exists()
    pack.unlink()
    assert run(*add, "--trace", local.trace("1", (0, 4)))[0] == 10


def test_what_others_add_meanwhile_is_kept(
    local: Profiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another adds to the same profile, and one of its own, while a hot pack is made."""
    from store.format.trace import Trace

    def add(name: str, page: int) -> None:
        trace = Trace(local.image, [b"x"], 0, [(0, local.first + page, 4)])
        profile = build_profile(local.index, name, [b"x"], [trace], 0)
        with closing(open_backend(local.url)) as backend:
            add_profile(backend, local.image, local.index, profile)

    write = profilestore.write_hot_pack
    calls = 0

    def write_slowly(*arguments: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            add("other", 0)
            add("same", 80)
        write(*arguments)

    monkeypatch.setattr(profilestore, "write_hot_pack", write_slowly)
    add("same", 120)
    # Both of the others, and twice that of the one which began first.
    assert calls == 4
    other, same = profiles_of(local)
    assert other.reads == [(local.first, 4)]
    assert sorted(same.reads) == [(local.first + 80, 4), (local.first + 120, 4)]
    check_hot_pack(local, same)


def test_many_who_add_at_once_lose_nothing(local: Profiled) -> None:
    from store.format.trace import Trace

    failures: list[BaseException] = []

    def add(number: int) -> None:
        trace = Trace(local.image, [b"x"], 0, [(0, local.first + number, 1)])
        profile = build_profile(local.index, f"p{number}", [b"x"], [trace], 0)
        try:
            with closing(open_backend(local.url)) as backend:
                add_profile(backend, local.image, local.index, profile)
        except BaseException as error:
            failures.append(error)
            raise

    threads = [Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert [one.name for one in profiles_of(local)] == [f"p{number}" for number in range(8)]


def test_a_hot_pack_that_was_collected_meanwhile_is_missed(
    local: Profiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = profilestore.write_hot_pack

    def lose(*arguments: object) -> None:
        write(*arguments)
        for path in (Path(local.url) / "hot").iterdir():
            path.unlink()

    monkeypatch.setattr(profilestore, "write_hot_pack", lose)
    from store.format.trace import Trace

    trace = Trace(local.image, [b"x"], 0, [(0, local.first, 1)])
    profile = build_profile(local.index, "x", [b"x"], [trace], 0)
    with closing(open_backend(local.url)) as backend, pytest.raises(PackNotFound, match="--grace"):
        add_profile(backend, local.image, local.index, profile)
    assert profiles_of(local) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    require("root")
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", path], check=True)
    yield path
    subprocess.run(["umount", path], check=True)


def test_a_full_disk_and_a_store_that_may_not_be_written_are_said(
    run: Run, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = make_profiled(str(small_disk / "store"), tmp_path)
    add = ("profile", "add", stored.boot, "--store", stored.url, "--trace")
    assert run(*add, stored.trace("1", (0, 4)))[0] == 0
    before = profiles_of(stored)[0].reads
    room = os.statvfs(small_disk)
    (small_disk / "filler").write_bytes(bytes(room.f_bavail * room.f_bsize - 100_000))
    status, _, err = run(*add, stored.trace("2", (0, 250)))
    assert status == 15 and "make room" in err and err.count("\n") == 1
    assert not list(small_disk.rglob("*.part")) and profiles_of(stored)[0].reads == before
    (small_disk / "filler").unlink()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    status, _, err = run(*add, stored.trace("3", (0, 4)))
    assert status == 13 and err.count("\n") == 1
    assert run("profile", "remove", stored.boot, "--store", stored.url, "--all")[0] == 13
    assert run("profile", "list", stored.boot, "--store", stored.url)[0] == 0


def test_a_full_disk_of_temporary_files_is_said(
    run: Run, local: Profiled, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(small_disk))
    (small_disk / "filler").write_bytes(bytes((2 << 20) - 100_000))
    monkeypatch.setattr("converter.profiling.open_profiled", _opened(local))
    add = ("profile", "add", local.boot, "--store", local.url, "--trace")
    status, _, err = run(*add, local.trace("1", (0, 160)))
    assert status == 15 and "TMPDIR" in err
    assert not (Path(local.url) / "hot").exists()


def _opened(local: Profiled) -> Callable[..., object]:
    """Give what opens the image where temporary files have room."""
    import tempfile

    from converter import profiling
    from converter.reference import parse_reference

    open_profiled = profiling.open_profiled
    small = tempfile.tempdir

    def call(*_: object) -> object:
        tempfile.tempdir = str(local.place)
        try:
            return open_profiled(parse_reference(local.boot), local.url)
        finally:
            tempfile.tempdir = small

    return call


def test_a_document_that_cannot_be_written_stays_as_it_was(local: Profiled) -> None:
    """More profiles than there may be."""
    with closing(open_backend(local.url)) as backend:
        many = [Profile(f"p{number:02}", [b"x"]) for number in range(64)]
        backend.replace(profiles_name(local.image), iter((encode_profiles(local.image, many),)))
        profile = build_profile(local.index, "one more", [b"y"], [], 0)
        from store.errors import FormatError

        with pytest.raises(FormatError, match="65 profiles"):
            add_profile(backend, local.image, local.index, profile)
        assert len(read_profiles(backend, local.image)) == 64
        remove_profiles(backend, local.image, ["p00"])
        add_profile(backend, local.image, local.index, profile)
        assert len(read_profiles(backend, local.image)) == 64


def test_what_may_not_be_read_is_not_taken_for_nothing(local: Profiled) -> None:
    class Refusing:
        location = "there"

        def size(self, name: str) -> int:
            raise AccessDenied(name)

        def fetch(self, name: str, offset: int, size: int) -> bytes:
            raise AssertionError

        def close(self) -> None:
            pass

    with pytest.raises(AccessDenied):
        read_profiles(Refusing(), local.image)


def test_a_document_that_is_replaced_between_two_requests_is_read_again(
    local: Profiled,
) -> None:
    short, long = (encode_profiles(local.image, [Profile("x" * size, [b"y"])]) for size in (1, 40))

    class Changing:
        location = "there"
        asked = 0

        def size(self, name: str) -> int:
            self.asked += 1
            return len(short if self.asked == 1 else long)

        def fetch(self, name: str, offset: int, size: int) -> bytes:
            return long[offset : offset + size]

        def close(self) -> None:
            pass

    (profile,) = read_profiles(Changing(), local.image)
    assert profile.name == "x" * 40

    class Cut(Changing):
        def fetch(self, name: str, offset: int, size: int) -> bytes:
            return long[offset : offset + size - 1]

    with pytest.raises(IntegrityError, match="mends it"):
        read_profiles(Cut(), local.image)


def test_what_was_recorded_takes_the_place_of_what_was_only_reckoned(local: Profiled) -> None:
    from store.format.profile import ORIGINS
    from store.format.trace import Trace

    analysis, recorded = ORIGINS.index("analysis"), ORIGINS.index("recording")

    def add(name: str, command: bytes, page: int, origin: int) -> list[tuple[str, int, int]]:
        trace = Trace(local.image, [command], 0, [(0, local.first + page, 1)])
        with closing(open_backend(local.url)) as backend:
            profile = build_profile(local.index, name, [command], [trace], origin)
            add_profile(backend, local.image, local.index, profile)
        found = profiles_of(local)
        return [(one.name, one.origin, one.reads[0][0] - local.first) for one in found]

    assert add("default", b"x", 0, analysis) == [("default", analysis, 0)]
    assert add("other", b"y", 1, analysis)[1:] == [("other", analysis, 1)]
    # Of the same name it is not merged, of the same command it goes, of another it stays.
    assert add("default", b"x", 2, recorded) == [("default", recorded, 2), ("other", analysis, 1)]
    assert add("mine", b"y", 3, recorded) == [("default", recorded, 2), ("mine", recorded, 3)]
