"""Traces that profiles are made of, in files, directories, stores: which are taken, and why."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from store.format.tracenames import trace_file_name, trace_name
from store.write.backends import open_backend
from store.write.backends.directory import DirectoryBackend
from store.write.collecting import GRACE_S, TRACE_S, collect
from store.write.profilestore import read_profiles
from tests.support.profiled import KINDS, Profiled, make_profiled, store_url
from tests.support.wholestores import LONG_AGO, make_old

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def local(tmp_path: Path) -> Profiled:
    return make_profiled(str(tmp_path / "store"), tmp_path)


def begun(path: Path, begun_s: int) -> bytes:
    """Have a trace begun at a time; return its bytes."""
    data = bytearray(path.read_bytes())
    data[16:24] = begun_s.to_bytes(8, "little")
    path.write_bytes(data)
    return bytes(data)


def fill(stored: Profiled, directory: Path) -> list[str]:
    """Write five traces of two commands into a directory, and what is none of them; their names."""
    names = []
    for number in range(5):
        command = (b"/bin/other",) if number == 2 else (b"/bin/app", b"-x")
        path = stored.trace("new", (40 * number, 4), command=command)
        data = begun(path, 1_700_000_000 + number)
        names.append(trace_file_name(stored.image, 1_700_000_000 + number, bytes([number] * 8)))
        directory.mkdir(exist_ok=True)
        (directory / names[-1]).write_bytes(data)
    other = stored.trace("new", (0, 4), image=bytes(32))
    shutil.copy(other, directory / "trace-of-another")
    (directory / "trace-cut").write_bytes(b"bootfsTR")
    begun(stored.trace("trace-empty"), 1_900_000_000)
    (stored.place / "trace-empty").rename(directory / "trace-empty")
    (directory / "present").write_bytes(b"the cache's own")
    return names


def reads_of(stored: Profiled) -> dict[str, list[int]]:
    """Return the pages of each profile's reads, from the data region on."""
    with closing(open_backend(stored.url)) as backend:
        profiles = read_profiles(backend, stored.image)
    return {one.name: sorted(first - stored.first for first, _ in one.reads) for one in profiles}


@pytest.mark.parametrize("option", ["--from", "--trace"])
def test_of_a_directory_is_taken_what_is_of_the_image_and_each_is_named(
    run: Run, local: Profiled, option: str
) -> None:
    directory = local.place / "traces"
    names = fill(local, directory)
    add = ("profile", "add", local.boot, "--store", local.url, option, directory)
    status, out, err = run(*add, "--newest", "2", "--json")
    assert (status, [fact["traces"] for fact in json.loads(out)]) == (0, [1, 2])
    said = {line.split(": ")[1]: line for line in err.splitlines()}
    assert sorted(said) == ["left", "taken"]
    left = [line for line in err.splitlines() if ": left: " in line]
    taken = [line for line in err.splitlines() if ": taken: " in line]
    assert len(left) == 5 and len(taken) == 3
    reasons = "\n".join(left)
    assert f"{directory}/trace-of-another: a trace of another image, blake3:{'00' * 32}" in reasons
    assert f"{directory}/trace-cut" in reasons and "not a trace" in reasons
    assert f"{directory}/trace-empty: it has no read" in reasons
    for name in names[:2]:
        assert f"{directory}/{name}: older than the newest 2 of its command" in reasons
    assert taken[-1].endswith(f"{directory}/{names[4]}: begun 2023-11-14 22:13:24 UTC")
    assert reads_of(local) == {"app": [120, 160], "other": [80]}
    # All of them where nothing else is said.
    assert run("profile", "remove", local.boot, "--store", local.url, "--all")[0] == 0
    assert run(*add)[0] == 0
    assert reads_of(local) == {"app": [0, 40, 120, 160], "other": [80]}


def test_one_file_by_its_path_is_taken_without_a_word(run: Run, local: Profiled) -> None:
    names = fill(local, local.place / "traces")
    add = ("profile", "add", local.boot, "--store", local.url)
    status, _, err = run(*add, "--from", local.place / "traces" / names[2])
    assert (status, err) == (0, "")
    assert reads_of(local) == {"other": [80]}
    # What is named has to be one.
    assert run(*add, "--from", local.place / "traces/trace-cut")[0] == 12
    assert run(*add, "--from", local.place / "traces/trace-of-another")[0] == 11
    assert run(*add, "--from", "./none")[0] == 10
    for newest in ("0", "-1", "x"):
        with pytest.raises(SystemExit) as ended:
            run(*add, "--from", local.place / "traces", "--newest", newest)
        assert ended.value.code == 2
    status, _, err = run(*add)
    assert status == 2 and "--from-store" in err


def send(stored: Profiled, begun_s: int, page: int) -> str:
    """Put a trace into a store as a container would; return its name."""
    data = begun(stored.trace("sent", (page, 4)), begun_s)
    name = trace_name(stored.image, trace_file_name(stored.image, begun_s, bytes([page] * 8)))
    with closing(open_backend(stored.url)) as backend:
        backend.write(name, iter((data,)))
    return name


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "registry"])
def test_what_was_sent_to_a_store_is_taken_and_removed_there(
    run: Run, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    stored = make_profiled(store_url(kind, tmp_path, request), tmp_path)
    store = ("--store", stored.url)
    add = ("profile", "add", stored.boot, *store, "--from-store")
    status, _, err = run(*add)
    assert status == 10 and f"no trace of this image, blake3:{stored.image.hex()}" in err
    names = [send(stored, 1_700_000_000 + page, page) for page in (80, 0)]
    status, out, err = run("check", *store)
    assert (status, err) == (0, "") and " 0 problems" in out
    with closing(open_backend(stored.url)) as backend:
        wrong = trace_name(stored.image, f"trace-{'0' * 16}")
        backend.write(wrong, iter((stored.trace("x", (0, 1), image=bytes(32)).read_bytes(),)))
        status, _, err = run(*add, "--newest", "1")
        assert status == 0 and reads_of(stored) == {"app": [80]}
        assert f"taken: {stored.url}/{names[0]}: begun 2023-11-14" in err
        assert f"left: {stored.url}/{names[1]}: older than the newest 1" in err
        assert f"left: {stored.url}/{wrong}: a trace of another image" in err
        # What was left is there for the next time.
        assert set(backend.iter_names("traces/")) == {names[1], wrong}
        assert run(*add)[0] == 0 and reads_of(stored) == {"app": [0, 80]}
        assert list(backend.iter_names("traces/")) == [wrong]


def test_a_store_behind_a_web_server_and_one_in_a_registry_say_so(
    run: Run, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    stored = make_profiled(store_url("registry", tmp_path, request), tmp_path)
    add = ("profile", "add", stored.boot, "--from-store", "--store")
    assert run(*add, stored.url)[0] == 10
    status, _, err = run(*add, "http://127.0.0.1:1/")
    assert status == 2 and "give the store that it serves" in err
    status, _, err = run(*add, tmp_path / "none")
    assert status == 10 and "no bootfs store" in err


def test_traces_are_collected_when_they_are_old_and_with_their_image_sooner(
    run: Run, local: Profiled
) -> None:
    name = send(local, 1_700_000_000, 80)

    def collected(now_s: float) -> set[str]:
        with closing(DirectoryBackend(local.url)) as backend:
            return {one.name for one in collect(backend, GRACE_S, now_s, delete=False).old}

    make_old(Path(local.url))
    assert collected(LONG_AGO + TRACE_S - 1) == set()
    assert collected(LONG_AGO + TRACE_S) == {name}
    assert run("forget", local.url, local.boot)[0] == 0
    assert name in collected(LONG_AGO + GRACE_S)
    assert name not in collected(LONG_AGO + GRACE_S - 1)


@pytest.mark.parametrize("command", ["list", "show", "add", "remove"])
def test_a_store_that_is_not_there_is_not_found(run: Run, local: Profiled, command: str) -> None:
    more = {"add": ("--trace", local.trace("1", (0, 4))), "remove": ("--all",)}.get(command, ())
    status, _, err = run("profile", command, local.boot, "--store", "/nonexistent", *more)
    assert status == 10 and "/nonexistent" in err and err.count("\n") == 1
