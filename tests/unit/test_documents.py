"""The documents against the repository: links that lead somewhere, names that exist."""

from __future__ import annotations

import argparse
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from converter.cli import build_parser
from converter.convert import DEFAULT_LEVEL

TOP = Path(__file__).parents[2]
DOCUMENTS = [*TOP.glob("*.md"), *TOP.glob("docs/**/*.md")]
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
VARIABLE = re.compile(r'b"((?:BOOTFS|BLOB)_\w+)"')
MODULE = re.compile(r"`((?:boot|converter|store|tests|bench|docs|sample|scripts)/[\w./-]*[\w-])`")


def anchors(document: Path) -> set[str]:
    """The anchors that a forge makes of the headings."""
    titles = (title.replace("`", "").lower() for title in HEADING.findall(document.read_text()))
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(TOP)))
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    dead = []
    for link in LINK.findall(CODE.sub("", document.read_text())):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name) if name else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert not dead


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(TOP)))
def test_every_file_that_is_named_exists(document: Path) -> None:
    made = ("bench/results",)
    named = MODULE.findall(document.read_text())
    missing = [n for n in named if not (TOP / n).exists() and not n.startswith(made)]
    assert not missing


def test_every_variable_of_the_boot_is_in_the_readme() -> None:
    variables = set(VARIABLE.findall((TOP / "boot/config.py").read_text()))
    readme = (TOP / "README.md").read_text()
    assert {"BLOB_STORE", "BOOTFS_MODE"} <= variables
    assert [v for v in sorted(variables) if f"`{v}`" not in readme] == []


def _commands() -> dict[str, argparse.ArgumentParser]:
    """Return the parsers of all subcommands, and of their own, by their words."""
    found = dict(_below(build_parser()))
    assert found, "the command line has no subcommands"
    return found


def _below(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, choice in action.choices.items():
                yield name, choice
                yield from ((f"{name} {words}", below) for words, below in _below(choice))


def test_every_subcommand_and_its_options_are_in_the_readme() -> None:
    readme = (TOP / "README.md").read_text()
    for name, parser in _commands().items():
        *_, last = name.split()
        assert f"bootfs {name} " in readme or (" " in name and f"`{last}`" in readme)
        options = {o for a in parser._actions for o in a.option_strings if o.startswith("--")}
        assert [o for o in sorted(options - {"--help"}) if o not in readme] == []


def test_the_default_level_is_the_code_s() -> None:
    assert f"1 to 22; default {DEFAULT_LEVEL}" in (TOP / "README.md").read_text()
    levels = (TOP / "docs/decisions/0007-zstd-levels.md").read_text()
    assert f"Level {DEFAULT_LEVEL} by default" in levels


def test_code_cites_decisions_that_exist() -> None:
    cited = set()
    for package in ("boot", "converter", "store"):
        for path in (TOP / package).rglob("*.py"):
            cited |= set(re.findall(r"docs/[\w/-]+\.md", path.read_text()))
    missing = [name for name in sorted(cited) if not (TOP / name).exists()]
    assert missing == []


def test_the_picture_is_well_formed() -> None:
    assert ET.parse(TOP / "docs/data-path.svg").getroot().tag.endswith("svg")
