import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converter.runtime import contents
from converter.runtime.lock import Input, Lock, encode_lock, parse_lock, read_lock_text
from store.errors import FormatError

NAMES = st.from_regex(r"[a-z][a-z0-9.+-]{0,20}", fullmatch=True)
INPUTS = st.builds(
    Input,
    kind=st.sampled_from(["deb", "wheel"]),
    name=NAMES,
    version=st.from_regex(r"[0-9][0-9a-z.+~:-]{0,12}", fullmatch=True),
    file=st.from_regex(r"([a-z]{1,5}/){0,4}[a-z0-9_.+~-]{1,20}\.(deb|whl)", fullmatch=True),
    size=st.integers(0, 10**12 - 1),
    sha256=st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
)


@settings(max_examples=30)
@given(st.lists(INPUTS, max_size=3, unique=True))
def test_what_is_encoded_is_parsed_again(inputs: list[Input]) -> None:
    lock = Lock(tuple(inputs), "20260131T000000Z")
    parsed = parse_lock(encode_lock(lock))
    assert set(parsed.inputs) == set(inputs)
    assert parsed.snapshot == lock.snapshot
    assert encode_lock(parsed) == encode_lock(lock)


@given(st.text(alphabet="deb whl0az/._\n", max_size=200))
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        parse_lock(text)


def test_the_released_lock_is_in_its_own_format() -> None:
    text = read_lock_text()
    assert encode_lock(parse_lock(text)) == text


def test_the_released_lock_names_what_the_tables_name() -> None:
    inputs = parse_lock(read_lock_text()).inputs
    debs = {entry.name for entry in inputs if entry.kind == "deb"}
    wheels = {entry.name: entry.version for entry in inputs if entry.kind == "wheel"}
    assert debs == set(contents.DEBIAN_PACKAGES)
    assert wheels == contents.WHEELS


def test_what_decides_bytes_has_one_version_in_converter_and_container() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    pinned = dict(line.split("==") for line in project["dependencies"] if "==" in line)
    for name in ("blake3", "zstandard"):
        assert contents.WHEELS[name] == pinned[name]


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: lines[::-1],
        lambda lines: lines + lines[-1:],
        lambda lines: [line for line in lines if not line.startswith("snapshot")],
        lambda lines: [*lines, "zebra"],
        lambda lines: [lines[0].replace(" ", "  ", 1), *lines[1:]],
        lambda lines: [lines[0][:-1], *lines[1:]],
    ],
    ids=["unsorted", "doubled", "no snapshot", "unknown line", "two spaces", "short digest"],
)
def test_a_damaged_lock_is_refused(damage) -> None:
    lines = read_lock_text().splitlines()
    with pytest.raises(FormatError, match=r"^runtime\.lock: at byte"):
        parse_lock("\n".join(damage(lines)) + "\n")
