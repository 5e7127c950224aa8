"""The page about a conversion: whole, valid, without network, and nothing in it but text."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from random import Random

import pytest

from converter.cli import main
from converter.htmltable import Bytes, Code, Share, iter_table, percent, shown_size
from tests.support.layers import config_of, docker_archive, file, tar_of

VOID = {"meta", "br"}
DATA = Random(1).randbytes(400_000)
EVIL = "<script>alert('x')</script>&\"'"
LAYERS = [
    tar_of(file("usr/lib/a", DATA), file(f"usr/{EVIL.replace('/', '|')}", b"x" * 9_000)),
    tar_of(file("opt/b", Random(2).randbytes(200_000)), file("etc/\udcff", b"odd")),
]
HISTORY = [{"created_by": f"RUN {EVIL}", "created": "2026-01-01T00:00:00Z"}, {"comment": "two"}]


class Page(HTMLParser):
    """A strict reader: every tag closed in its order, every attribute quoted once."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs)
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """Give the report of an image that shares its first layer with another."""
    page = tmp_path / "report.html"
    for name, layers in (("a", LAYERS[:1]), ("b", LAYERS)):
        config = config_of(layers, history=HISTORY[: len(layers)])
        (tmp_path / f"{name}.tar").write_bytes(docker_archive(*layers, config=config))
        arguments = [f"docker-archive:{tmp_path}/{name}.tar", f"oci:{tmp_path}/{name}"]
        options = ["--store", f"{tmp_path}/store", "--report", str(page)]
        assert main(["convert", *arguments, *options]) == 0
    return page


def test_it_is_a_whole_page_of_its_own(report: Path) -> None:
    text = report.read_text()
    page = Page(text)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "img", "iframe", "object"}
    assert not re.search(r"https?://|url\(|@import|src=|href=", text)
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert ("html", {"lang": "en"}) in page.tags
    assert "prefers-color-scheme: dark" in text and "width=device-width" in text


def test_it_says_what_became_of_the_image(report: Path) -> None:
    text = Page(report.read_text()).text.replace("\N{NO-BREAK SPACE}", " ")
    for words in (
        "Conversion of docker-archive:b.tar",
        "In the store",
        f"1. RUN {EVIL}",
        "2. two",
        "/usr/lib",
        "/opt/b",
        "2026-01-01",
        "Other images of the store that share the most with it",
    ):
        assert words in text, words


def test_what_an_image_is_named_is_text_and_no_markup(report: Path) -> None:
    page = Page(report.read_text())
    assert EVIL.replace("/", "|") in page.text
    assert r"\xff" in page.text


def test_tables_can_be_heard_and_scrolled(report: Path) -> None:
    page = Page(report.read_text())
    regions = [a for tag, a in page.tags if tag == "div" and a.get("class") == "scroll"]
    assert len(regions) == sum(tag == "table" for tag, _ in page.tags) > 3
    assert all(a["tabindex"] == "0" and a["role"] == "region" for a in regions)
    assert len(regions) == sum(tag == "caption" for tag, _ in page.tags)
    assert all(a["scope"] in ("col", "row") for tag, a in page.tags if tag == "th")
    # Bars are for eyes alone, and say nothing that is not there as text.
    assert all(a.get("aria-hidden") == "true" for tag, a in page.tags if tag == "b")
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and set(levels[1:]) == {2}


def test_a_conversion_that_did_nothing_has_a_report_too(report: Path, tmp_path: Path) -> None:
    arguments = [f"docker-archive:{tmp_path}/b.tar", f"oci:{tmp_path}/b"]
    options = ["--store", f"{tmp_path}/store", "--report", str(report)]
    assert main(["convert", *arguments, *options]) == 0
    assert "was there already" in Page(report.read_text()).text


def test_the_page_is_the_same_for_the_same(report: Path, tmp_path: Path) -> None:
    pages = []
    for _ in range(2):
        arguments = [f"docker-archive:{tmp_path}/b.tar", f"oci:{tmp_path}/b", "--force"]
        options = ["--store", f"{tmp_path}/store", "--report", str(report)]
        assert main(["convert", *arguments, *options]) == 0
        pages.append(report.read_text())
    assert pages[0] == pages[1]


def test_an_image_without_files_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "e.tar").write_bytes(docker_archive(tar_of(file("empty"))))
    arguments = [f"docker-archive:{tmp_path}/e.tar", f"oci:{tmp_path}/e"]
    options = ["--store", f"{tmp_path}/store", "--report", f"{tmp_path}/e.html"]
    assert main(["convert", *arguments, *options]) == 0
    assert "holds no other image" in Page((tmp_path / "e.html").read_text()).text


def test_a_report_that_cannot_be_written_is_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "e.tar").write_bytes(docker_archive(tar_of(file("empty"))))
    arguments = [f"docker-archive:{tmp_path}/e.tar", f"oci:{tmp_path}/e"]
    for place, code in (("no/e.html", 10), ("", 2)):
        options = ["--store", f"{tmp_path}/store", "--report", f"{tmp_path}/{place}"]
        assert main(["convert", *arguments, *options]) == code
        said = capsys.readouterr()
        assert said.err.count("\n") == 1 and f"--report {tmp_path}" in said.err
    # It is refused before the work.
    assert not (tmp_path / "e").exists()


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.00 kB"),
        (12_345, "12.3 kB"),
        (9_990_000, "9.99 MB"),
        (123_456_789, "123.5 MB"),
        (7_000_000_000, "7.00 GB"),
    ],
)
def test_sizes_have_the_unit_that_suits_them(size: int, shown: str) -> None:
    assert shown_size(size).replace("\N{NO-BREAK SPACE}", " ") == shown


def test_cells_are_escaped_and_numbers_exact() -> None:
    rows = [(Code("<a&b>"), Bytes(1_234_567), Share(1, 3), 4_321, "<i>")]
    out = "".join(iter_table("<caption>", ("<h>", "b", "c", "d", "e"), rows))
    page = Page(out)
    assert {tag for tag, _ in page.tags} <= {
        "div", "table", "caption", "thead", "tbody", "tr", "th", "td", "code", "b", "i", "span"
    }  # fmt: skip
    for words in ("<a&b>", "<caption>", "<h>", "<i>", "4,321"):
        assert words in page.text
    assert ("td", {"class": "n", "title": "1,234,567 bytes"}) in page.tags
    assert ("i", {"style": "width:33.3%"}) in page.tags
    assert percent(0, 0) == percent(0, 0) and "33.3" in json.dumps(percent(1, 3))
