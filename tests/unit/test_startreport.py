"""Which files came and who read them; the page about it: whole, without network, text escaped."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from random import Random
from time import monotonic
from typing import TYPE_CHECKING

import pytest

from converter.bootview import BootView, read_boot_image
from converter.cli import main
from converter.contents import HeldFile, read_files
from converter.firstuse import read_fetched
from converter.htmltable import Span, iter_table
from converter.images.transports import open_image
from converter.reference import parse_reference
from converter.spool import Spool
from converter.startreport import iter_page
from converter.statusfile import Read, Request, StatusFile, parse_status
from converter.statustext import first_reader
from converter.waterfall import QUIET_S, start_of
from tests.support.layers import directory, docker_archive, file, tar_of
from tests.support.statuses import encoded, seen
from tests.unit.test_htmlreport import Page

if TYPE_CHECKING:
    from collections.abc import Callable

    from store.read.counts import Counts

RANDOM = Random(7)
EVIL = "<script>alert('x')</script>&\"'"
EVIL_NAME = EVIL.replace("/", "|")
LAYER = tar_of(
    directory("big/"),
    file("big/one", RANDOM.randbytes(900_000)),
    file("big/two", RANDOM.randbytes(500_000)),
    directory("small/"),
    file("small/a", RANDOM.randbytes(5_000)),
    file("small/b", RANDOM.randbytes(5_000)),
    file(f"small/{EVIL_NAME}", RANDOM.randbytes(5_000)),
    file("empty", b""),
)


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> BootView:
    """Give a boot image."""
    place = tmp_path_factory.mktemp("image")
    (place / "s.tar").write_bytes(docker_archive(LAYER))
    arguments = [f"docker-archive:{place}/s.tar", f"oci:{place}/boot", "--store", f"{place}/store"]
    assert main(["convert", *arguments]) == 0
    with Spool() as spool:
        return read_boot_image(open_image(parse_reference(f"oci:{place}/boot"), spool), spool)


@pytest.fixture(scope="module")
def held(view: BootView) -> dict[bytes, HeldFile]:
    """Give its files by path."""
    return {file.path: file for file in read_files(view)}


def fetch(counts: Counts, view: BootView, file: HeldFile, is_failed: bool = False) -> None:
    """Count a request for each chunk of a file."""
    index = view.index
    for place, chunk in enumerate(index.place_chunks):
        if index.starts[place] < file.start + file.plain and index.starts[place + 1] > file.start:
            where = (index.packs[chunk], index.offsets[chunk], index.stored_sizes[chunk])
            counts.add_request(*where, 1, monotonic(), is_failed)


def read(counts: Counts, view: BootView, file: HeldFile, *, at: int = 0, **said: object) -> None:
    """Count a read of a file's first page, or of that at ``at``."""
    place = view.index.data_start + file.start + at
    asked = (place, 4096, said.get("process", 8), said.get("name", b""))
    if said.get("waits", True):
        counts.note_wait(monotonic() - 0.01, asked)
    else:
        counts.note_at_hand(asked)


def status_of(act: Callable[[Counts], None]) -> StatusFile:
    return parse_status(encoded(act))


def test_files_that_came_are_those_whose_chunks_did(
    view: BootView, held: dict[bytes, HeldFile]
) -> None:
    def act(counts: Counts) -> None:
        fetch(counts, view, held[b"/big/one"])
        fetch(counts, view, held[b"/big/two"], is_failed=True)

    (came,) = read_fetched(view, status_of(act))
    assert (came.path, came.first, came.reads) == (b"/big/one", None, 0)
    # With what fills its last block up.
    assert came.fetched == -(-900_000 // 4096) * 4096


def test_small_files_come_with_their_neighbours(
    view: BootView, held: dict[bytes, HeldFile]
) -> None:
    def act(counts: Counts) -> None:
        fetch(counts, view, held[b"/small/a"])
        read(counts, view, held[b"/small/b"], process=9, name=b"cat")

    first, *others = read_fetched(view, status_of(act))
    assert (first.path, first_reader(first)) == (b"/small/b", "cat (9)")
    assert {file.path for file in others} >= {b"/small/a"}
    assert all(file.first is None for file in others)


def test_a_part_of_a_request_is_none_of_a_chunk(
    view: BootView, held: dict[bytes, HeldFile]
) -> None:
    index = view.index

    def act(counts: Counts) -> None:
        counts.add_request(index.packs[0], index.offsets[0], index.stored_sizes[0] - 1, 1, 0.0)
        counts.add_request(99, 0, 1 << 30, 1, 0.0)

    assert read_fetched(view, status_of(act)) == []


def test_who_was_first_is_named_and_who_waited_counted(
    view: BootView, held: dict[bytes, HeldFile]
) -> None:
    def act(counts: Counts) -> None:
        for name in (b"/big/one", b"/big/two"):
            fetch(counts, view, held[name])
        read(counts, view, held[b"/big/two"], process=7, name=b"python3")
        read(counts, view, held[b"/big/one"], process=7, waits=False)
        read(counts, view, held[b"/big/two"], at=8192, process=9, name=b"sh")
        # Of the bootstrap: no file's.
        counts.note_wait(monotonic(), (0, 4096, 5, b"init"))
        # Behind the image's end.
        counts.note_wait(monotonic(), (1 << 43, 4096, 5, b"init"))

    two, one = read_fetched(view, status_of(act))
    assert [(file.path, file.reads) for file in (two, one)] == [(b"/big/two", 2), (b"/big/one", 1)]
    assert (first_reader(two), first_reader(one)) == ("python3 (7)", "python3 (7)")
    assert 0.02 <= two.waited_s < 1
    assert one.waited_s == 0


def test_what_the_kernel_may_have_read_ahead_is_marked(
    view: BootView, held: dict[bytes, HeldFile]
) -> None:
    one, two = held[b"/big/one"], held[b"/big/two"]
    size = -(-one.plain // 4096) * 4096
    assert two.start == one.start + size

    def act(counts: Counts) -> None:
        for one_file in (one, two):
            fetch(counts, view, one_file)
        read(counts, view, one, at=size - 4096, name=b"cat")
        read(counts, view, two, waits=False)

    first, second = read_fetched(view, status_of(act))
    assert (first_reader(first), first_reader(second)) == ("cat (8)", "cat (8) ?")


def at(begun_s: float) -> Request:
    return Request(begun_s, 0.5, 0, 0, 1, 1, has_failed=False)


def test_a_start_is_over_when_nothing_happens_any_more() -> None:
    requests = [at(0.1), at(1.0), at(1.5 + QUIET_S), at(12.0 + QUIET_S)]
    status = replace(status_of(lambda _: None), requests=requests)
    assert start_of(status) == (2.0 + QUIET_S, requests[:3], [])


def page_of(view: BootView, data: bytes) -> str:
    return "\n".join(iter_page(seen(data, image=EVIL), read_fetched(view, parse_status(data))))


def test_the_page_is_whole_and_of_its_own(view: BootView, held: dict[bytes, HeldFile]) -> None:
    evil = held[f"/small/{EVIL_NAME}".encode()]

    def act(counts: Counts) -> None:
        fetch(counts, view, evil)
        fetch(counts, view, held[b"/big/two"], is_failed=True)
        read(counts, view, evil, name=b"</title><b\x1b>")

    text = page_of(view, encoded(act))
    page = Page(text)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "img", "iframe", "object", "use", "image"}
    assert not re.search(r"https?://|url\(|@import|src=|href=", text)
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert "\x1b" not in text
    for words in (
        "Start of web",
        EVIL,
        EVIL_NAME,
        r"</title><b\x1b> (8)",
        ", failed",
        "1 files used",
    ):
        assert words in page.text, words
    assert {a.get("class") for tag, a in page.tags if tag == "rect"} == {
        "request", "failed", "wait", "use"
    }  # fmt: skip


def test_a_start_in_which_nothing_happened_has_a_page(view: BootView) -> None:
    page = Page(page_of(view, encoded()))
    assert "Nothing was asked of the store." in page.text
    assert "No file that came over the network was read." in page.text


def test_times_that_cannot_be_stay_on_the_page(view: BootView) -> None:
    one = seen(encoded())
    far = 2.0**62 / 1e9
    status = replace(
        one.status,
        requests=[replace(at(when), took_s=far) for when in (-far, 0.0, far)],
        reads=[Read(when, far, True, 1 << 40, 1, 1, b"x") for when in (-far, 0.0, far)],
        steps={"begun": 0.0, "served": -far, "handed": 0.1, "ended": far},
    )
    page = Page("\n".join(iter_page(replace(one, status=status), [])))
    bars = [attributes for tag, attributes in page.tags if tag == "rect"]
    assert len(bars) >= 4
    for bar in bars:
        assert 0 <= float(bar["x"] or -1) <= 1000
        assert 0 < float(bar["width"] or -1) <= 1000


@pytest.mark.parametrize(
    ("span", "style"),
    [
        (Span(1, 2, 4), "left:25.00%;width:50.00%"),
        (Span(-5, 2, 4), "left:0.00%;width:50.00%"),
        (Span(9, 2, 4), "left:100.00%;width:0.00%"),
        (Span(3, 9, 4), "left:75.00%;width:25.00%"),
        (Span(0, 0, 0), "left:0.00%;width:0.00%"),
    ],
)
def test_a_span_stays_on_its_axis(span: Span, style: str) -> None:
    assert ("i", {"style": style}) in Page("".join(iter_table("t", ("a", "b"), [("x", span)]))).tags


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["status", "--all", "web"],
        ["status", "--files", "--follow", "web"],
        ["status", "--metrics", "f.prom", "--json", "web"],
        ["status", "--metrics", "f.prom", "--files", "--all"],
    ],
)
def test_what_goes_not_together_is_said(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("bootfs: status: ")


def test_a_page_that_cannot_be_written_is_refused_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "no-such-container", "-o", str(tmp_path)]) == 2
    assert main(["report", "no-such-container", "-o", str(tmp_path / "no" / "page.html")]) == 10
    assert "-o " in capsys.readouterr().err
