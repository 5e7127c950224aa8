"""What the analysis finds of programs and libraries, on trees of a few files."""

import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.analysis import files as bounds
from converter.analysis.elf import parse_elf
from converter.analysis.ldcache import parse_ld_cache
from tests.support.analysed import Analysed, make_tree
from tests.support.elves import AARCH64, make_elf, make_ld_cache

LOADER = "/lib64/ld-linux-x86-64.so.2"
LIBC = {LOADER: make_elf(), "/lib/x86_64-linux-gnu/libc.so.6": make_elf()}


def program(*needed: bytes, **more: bytes) -> bytes:
    return make_elf(
        interpreter=LOADER.encode(), needed=needed,
        rpath=more.get("rpath", b""), runpath=more.get("runpath", b""),
    )  # fmt: skip


def test_a_program_its_loader_and_what_it_needs_are_read_in_their_order() -> None:
    tree = make_tree(
        {
            **LIBC,
            "/usr/bin/tool": program(b"libone.so", b"libc.so.6"),
            "/usr/lib/libone.so": make_elf(needed=[b"libtwo.so"]),
            "/usr/lib/libtwo.so": make_elf(needed=[b"libc.so.6"]),
            "/usr/lib/libother.so": make_elf(),
        }
    )
    assert Analysed(tree, ["tool", "--help"]).files == [
        "/usr/bin/tool",
        LOADER,
        "/usr/lib/libone.so",
        "/lib/x86_64-linux-gnu/libc.so.6",
        "/usr/lib/libtwo.so",
    ]


@pytest.mark.parametrize(
    ("path", "found"),
    [("/opt/bin:/usr/bin", "/opt/bin/tool"), ("/usr/bin:/opt/bin", "/usr/bin/tool")],
)
def test_the_first_directory_of_the_path_counts(path: str, found: str) -> None:
    tree = make_tree({"/opt/bin/tool": make_elf(), "/usr/bin/tool": make_elf()})
    assert Analysed(tree, ["tool"], {"PATH": path}).files == [found]


def test_a_file_that_nobody_may_execute_is_no_program_of_the_path() -> None:
    tree = make_tree({"/a/tool": make_elf(), "/b/tool": make_elf()})
    tree.children[b"a"].children[b"tool"].mode &= ~0o111
    assert Analysed(tree, ["tool"], {"PATH": "/a:/b"}).files == ["/b/tool"]


def test_a_relative_program_is_one_of_the_working_directory() -> None:
    tree = make_tree({"/srv/app/run": make_elf()})
    assert Analysed(tree, ["./run"], cwd="/srv/app").files == ["/srv/app/run"]
    assert Analysed(tree, ["./run"], cwd="/srv").files == []


def test_links_are_followed_in_the_root_of_the_image() -> None:
    tree = make_tree(
        {
            "/usr/bin/tool": "/etc/alternatives/tool",
            "/etc/alternatives/tool": "../../../../../usr/bin/tool-2",
            "/usr/bin/tool-2": make_elf(),
            "/bin": "usr/bin",
        }
    )
    found = Analysed(tree, ["/bin/tool"])
    assert found.files == ["/usr/bin/tool-2"]
    assert found.metadata


def test_links_that_never_end_lead_nowhere() -> None:
    tree = make_tree({"/bin/a": "b", "/bin/b": "a"})
    assert Analysed(tree, ["a"]).files == []


@pytest.mark.parametrize(
    ("needed", "environment", "found"),
    [
        (program(b"lib.so"), {}, "/cached/lib.so"),
        (program(b"lib.so", rpath=b"$ORIGIN/../own"), {}, "/usr/own/lib.so"),
        (program(b"lib.so", runpath=b"/run:/own"), {}, "/run/lib.so"),
        (program(b"lib.so", rpath=b"/gone", runpath=b"${ORIGIN}"), {}, "/usr/bin/lib.so"),
        (program(b"lib.so", rpath=b"/run"), {"LD_LIBRARY_PATH": "/given"}, "/run/lib.so"),
        (program(b"lib.so", runpath=b"/run"), {"LD_LIBRARY_PATH": "/given"}, "/given/lib.so"),
        (program(b"/run/lib.so"), {}, "/run/lib.so"),
    ],
)
def test_a_library_is_where_the_loader_looks_first(
    needed: bytes, environment: dict[str, str], found: str
) -> None:
    places = ("/cached", "/usr/own", "/run", "/given", "/usr/bin", "/usr/lib")
    tree = make_tree(
        {
            LOADER: make_elf(),
            "/usr/bin/tool": needed,
            "/etc/ld.so.cache": make_ld_cache({b"lib.so": b"/cached/lib.so"}),
            **{f"{place}/lib.so": make_elf() for place in places},
        }
    )
    read = Analysed(tree, ["tool"], environment).files
    assert [path for path in read if path.endswith("lib.so")] == [found]


def test_a_library_for_another_machine_is_passed_over() -> None:
    tree = make_tree(
        {
            LOADER: make_elf(),
            "/usr/bin/tool": program(b"lib.so"),
            "/usr/lib/x86_64-linux-gnu/lib.so": make_elf(machine=AARCH64),
            "/usr/lib/lib.so": make_elf(),
        }
    )
    assert Analysed(tree, ["tool"]).files[-1] == "/usr/lib/lib.so"


def test_libraries_of_musl_are_found_without_a_cache() -> None:
    tree = make_tree(
        {
            "/lib/ld-musl-x86_64.so.1": make_elf(),
            "/usr/bin/tool": make_elf(
                interpreter=b"/lib/ld-musl-x86_64.so.1", needed=[b"libz.so.1"]
            ),
            "/etc/ld.so.cache": make_ld_cache({b"libz.so.1": b"/wrong/libz.so.1"}),
            "/wrong/libz.so.1": make_elf(),
            "/usr/lib/libz.so.1": make_elf(),
        }
    )
    assert Analysed(tree, ["tool"]).files[-1] == "/usr/lib/libz.so.1"


def test_libraries_that_need_one_another_are_read_once() -> None:
    tree = make_tree(
        {
            LOADER: make_elf(),
            "/usr/bin/tool": program(b"a.so"),
            "/usr/lib/a.so": make_elf(needed=[b"b.so"]),
            "/usr/lib/b.so": make_elf(needed=[b"a.so"]),
        }
    )
    read = Analysed(tree, ["tool"]).reads
    pages = [page for first, count in read for page in range(first, first + count)]
    assert len(pages) == len(set(pages))


def test_of_a_large_library_the_tables_and_the_data_are_read_and_little_of_the_code() -> None:
    large = make_elf(text=8 << 20, constants=4 << 20, data=1 << 20)
    tool = make_elf(interpreter=LOADER.encode(), needed=[b"l.so"], text=1 << 20)
    tree = make_tree({LOADER: make_elf(), "/bin/tool": tool, "/lib/l.so": large})
    pages = Analysed(tree, ["tool"]).pages["/lib/l.so"]
    code = [page for page in pages if 1 <= page < 1 + 2048]
    constants = [page for page in pages if 2049 <= page < 2049 + 1024]
    data = [page for page in pages if page >= 2049 + 1024]
    assert (pages[0], len(constants), len(data)) == (0, 0, 256)
    assert len(code) <= 16


def test_all_of_a_program_is_read_or_of_the_library_that_it_only_calls() -> None:
    size = 8 << 20
    own = make_tree(
        {LOADER: make_elf(), "/bin/tool": make_elf(interpreter=LOADER.encode(), text=size)}
    )
    stub = make_tree(
        {LOADER: make_elf(), "/bin/tool": program(b"l.so"), "/lib/l.so": make_elf(text=size)}
    )
    stubs = Analysed(stub, ["tool"]).pages["/lib/l.so"]
    assert len(Analysed(own, ["tool"]).pages["/bin/tool"]) == 1 + 2048
    assert len(stubs) == 1 + 2048


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (b"#!/bin/sh\n", ["/app", "/bin/sh"]),
        (b"#!/usr/bin/env tool\n", ["/app", "/usr/bin/env", "/usr/bin/tool"]),
        (b"#! /usr/bin/env -S tool -x\n", ["/app", "/usr/bin/env", "/usr/bin/tool"]),
        (b"#!/app\n", ["/app"]),
        (b"#!\n", ["/app"]),
        (b"hello\n", []),
    ],
)
def test_a_script_starts_its_interpreter(line: bytes, found: list[str]) -> None:
    tree = make_tree(
        {
            "/app": line,
            "/bin/sh": make_elf(),
            "/usr/bin/env": make_elf(),
            "/usr/bin/tool": make_elf(),
        }
    )
    assert Analysed(tree, ["/app"]).files == found


SHELL = {"/bin/sh": make_elf(), "/usr/bin/first": make_elf(), "/usr/bin/second": make_elf()}


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("first; second", ["first", "second"]),
        ("set -e\nfirst --to second\n", ["first"]),
        ("if first; then second; fi", ["first", "second"]),
        ("A=1 B=2 first | second", ["first", "second"]),
        ("# first\necho second\n", []),
        ("exec second", ["second"]),
        ('$tool first\n"$bin"/second', []),
        ("version=$(first -v)\n", ["first"]),
        ("run() { second; }\n", ["second"]),
        ("echo ${first} ${second:-x}\n", []),
        ("sh -c 'first' && second", ["first", "second"]),
    ],
)
def test_what_a_shell_script_names_as_commands_is_started(script: str, found: list[str]) -> None:
    read = Analysed(make_tree(SHELL), ["sh", "-c", script]).files
    assert read == ["/bin/sh", *(f"/usr/bin/{name}" for name in found)]


def test_an_entrypoint_that_runs_its_arguments_starts_them() -> None:
    tree = make_tree(
        {**SHELL, "/entry.sh": b'#!/bin/sh\nfirst\nexec "$@"\n', "/quiet.sh": b"#!/bin/sh\ntrue\n"}
    )
    with_arguments = Analysed(tree, ["/entry.sh", "second", "-D"]).files
    assert with_arguments == ["/entry.sh", "/bin/sh", "/usr/bin/first", "/usr/bin/second"]
    assert Analysed(tree, ["/quiet.sh", "second"]).files == ["/quiet.sh", "/bin/sh"]


@pytest.mark.parametrize(
    "words", [["tini", "--", "first"], ["gosu", "user", "first"], ["env", "-i", "A=b", "first"]]
)
def test_a_program_that_becomes_another_starts_it(words: list[str]) -> None:
    tree = make_tree({f"/bin/{words[0]}": make_elf(), **SHELL})
    assert Analysed(tree, words).files == [f"/bin/{words[0]}", "/usr/bin/first"]


def test_java_loads_its_machine_and_the_head_of_its_modules() -> None:
    home = "/usr/lib/jvm/java-17"
    tree = make_tree(
        {
            "/usr/bin/java": home + "/bin/java",
            home + "/bin/java": make_elf(),
            home + "/lib/server/libjvm.so": make_elf(),
            home + "/lib/modules": bytes(3 << 20),
        }
    )
    found = Analysed(tree, ["java", "-version"])
    assert found.files == [home + part for part in ("/bin/java", "/lib/server/libjvm.so",
                                                    "/lib/modules")]  # fmt: skip
    assert len(found.pages[home + "/lib/modules"]) == 256


def test_nothing_is_read_where_there_is_no_command_or_no_program() -> None:
    tree = make_tree({"/bin/tool": make_elf()})
    assert Analysed(tree, []).reads == []
    assert Analysed(tree, ["other"]).files == []


def test_the_end_of_a_bound_leaves_what_was_found(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = make_tree({LOADER: make_elf(), "/bin/tool": program(b"l.so"), "/lib/l.so": make_elf()})
    whole = Analysed(tree, ["tool"]).reads
    monkeypatch.setattr(bounds, "TOUCH_LIMIT", 4096)
    part = Analysed(tree, ["tool"]).reads
    assert part == whole[: len(part)]
    assert 0 < len(part) < len(whole)


def test_numbers_of_an_elf_file_that_lead_nowhere_are_refused_or_passed_over() -> None:
    whole = make_elf(interpreter=b"/ld", needed=[b"a", b"b"])
    assert parse_elf(_reader(whole)) is not None
    assert parse_elf(_reader(whole[:63])) is None
    for at, value in ((32, 1 << 63), (54, 55), (56, 0), (56, 65)):
        damaged = bytearray(whole)
        struct.pack_into("<Q" if value >> 16 else "<H", damaged, at, value)
        assert parse_elf(_reader(bytes(damaged))) is None


@given(at=st.integers(0, 400), junk=st.binary(min_size=1, max_size=16))
def test_a_damaged_program_is_analysed_without_an_error(at: int, junk: bytes) -> None:
    whole = bytearray(program(b"l.so", rpath=b"/own"))
    whole[at : at + len(junk)] = junk
    tree = make_tree({LOADER: bytes(whole), "/bin/tool": bytes(whole), "/lib/l.so": bytes(whole)})
    Analysed(tree, ["tool"])


@given(st.binary(max_size=400))
def test_any_cache_of_the_loader_is_read_or_passed_over(junk: bytes) -> None:
    valid = make_ld_cache({b"a": b"/a"})
    for data in (junk, valid + junk, valid[: len(junk)], valid[:60] + junk, junk + valid):
        for name, path in parse_ld_cache(data).items():
            assert name
            assert path.startswith(b"/")


def test_the_cache_of_the_loader_may_stand_behind_one_of_the_old_format() -> None:
    cache = make_ld_cache({b"a": b"/x/a", b"b": b"/y/b"})
    assert parse_ld_cache(cache) == {b"a": b"/x/a", b"b": b"/y/b"}
    assert parse_ld_cache(b"ld.so-1.7.0".ljust(64, b"\0") + cache) == {b"a": b"/x/a", b"b": b"/y/b"}


def _reader(data: bytes) -> Callable[[int, int], bytes]:
    return lambda at, size: data[at : at + size]
