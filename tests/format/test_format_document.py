"""docs/format.md says what the code does: its tables, its example, its numbers."""

import json
import re
from itertools import pairwise
from pathlib import Path
from struct import Struct, calcsize

import pytest

from boot.lease import journal
from store.format import bootconfig, chunkindex, erofslayout, packfile, profile, status, trace
from store.format.distribution import PROFILES_TYPE, profiles_tag
from store.format.names import (
    STORE_MARK_TEXT,
    bootstrap_name,
    chunk_index_name,
    manifest_name,
)
from store.write.artifact import artifact_tag, boot_image_tag, encode_artifact, encode_document
from store.write.profileartifact import (
    DOCUMENT_TYPE,
    HOT_PACK_TYPE,
    encode_profile_artifact,
    parse_profile_artifact,
)
from store.write.profilebuild import PLAIN_LIMIT
from store.write.profiles import FLUSH
from store.write.registry.manifest import Descriptor
from tests.format.regenerate import read

TEXT = (Path(__file__).parents[2] / "docs" / "format.md").read_text()


def sections() -> dict[str, str]:
    """Return the text below each heading, up to the next."""
    parts = re.split(r"^#+ (.*)$", TEXT, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def layouts(section: str) -> list[list[tuple[int, int | None, str]]]:
    """Return the (offset, size, field) tables of a section."""
    tables = []
    for table in re.findall(r"^\| offset \| size \|.*\n(?:\|.*\n)+", sections()[section], re.M):
        rows = [[c.strip() for c in line.strip("|").split("|")] for line in table.splitlines()[2:]]
        tables.append([(int(r[0]), int(r[1]) if r[1] else None, r[2]) for r in rows])
    return tables


def fields_of(struct: Struct) -> list[tuple[int, int]]:
    """Return offset and size of every field of a structure, padding included."""
    found, at = [], 0
    for count, kind in re.findall(r"(\d*)([a-zA-Z])", struct.format):
        repeat = 1 if kind in "sx" else int(count or 1)
        for _ in range(repeat):
            size = calcsize("<" + (count + kind if kind in "sx" else kind))
            found.append((at, size))
            at += size
    assert at == struct.size
    return found


CASES = [
    ("Pack, versions 1 and 2", 0, packfile.HEADER),
    ("Pack, versions 1 and 2", 1, packfile.ENTRY),
    ("Pack, versions 1 and 2", 2, packfile.FOOTER),
    ("Chunk index, versions 1 and 2", 0, chunkindex.HEADER),
    ("Profiles, version 1", 0, profile.HEADER),
    ("Profiles, version 1", 1, profile.PROFILE),
    ("Trace, version 1", 0, trace.HEADER),
    ("Trace, version 1", 1, trace.ENTRY),
    ("Boot config, version 1", 0, bootconfig.HEADER),
    ("Boot config, version 1", 1, bootconfig.FIELD),
    ("Journal", 0, journal.HEADER),
    ("Journal", 1, journal.ROW),
    ("Status, version 1", 0, status.HEADER),
    ("Status, version 1", 1, status.COUNTS),
    ("Status, version 1", 2, status.REQUEST),
    ("Status, version 1", 3, status.READ),
    ("Superblock", 0, erofslayout.SUPERBLOCK),
    ("Inode", 0, erofslayout.INODE),
    ("Directory", 0, erofslayout.DIRENT),
    ("Extended attributes", 0, erofslayout.XATTR_HEADER),
    ("Extended attributes", 1, erofslayout.XATTR_ENTRY),
]


@pytest.mark.parametrize(("section", "number", "struct"), CASES, ids=str)
def test_a_table_has_the_fields_of_its_structure(section: str, number: int, struct: Struct) -> None:
    rows = [(offset, size) for offset, size, _ in layouts(section)[number] if size is not None]
    assert rows == fields_of(struct)


def test_every_layout_is_compared() -> None:
    with_tables = {name: len(layouts(name)) for name in sections() if layouts(name)}
    compared = dict.fromkeys(with_tables, 0)
    for section, _, _ in CASES:
        compared[section] += 1
    assert compared == with_tables


def test_the_columns_of_the_chunk_index_add_up_to_its_formula() -> None:
    text = sections()["Chunk index, versions 1 and 2"]
    rows = re.findall(r"^\| ([FPCRS]) \| (\d+) \|", text, re.M)
    widths: dict[str, int] = {}
    for count, size in rows:
        widths[count] = widths.get(count, 0) + int(size)
    formula = " + ".join(f"{size} {count}" for count, size in widths.items())
    assert f"plain size of the body: {formula}" in text


def test_the_example_is_the_golden_file() -> None:
    example = re.search(r"```hex\n(.*?)```", TEXT, re.DOTALL)
    assert example
    data = b""
    for line in example[1].splitlines():
        offset, shown = line[:4], line[6:53]
        assert int(offset, 16) == len(data)
        data += bytes.fromhex(shown)
    assert data == read("pack-1.hex")


@pytest.mark.parametrize(
    "said",
    [
        f"263,{chunkindex.FRAME_STORED_LIMIT - 263_000}",
        f"{chunkindex.FRAME:,}",
        f"{chunkindex.PLACE_LIMIT:,}",
        f"{chunkindex.HOLE:,}",
        f"`{STORE_MARK_TEXT.decode().strip()}` and a newline",
        "`0 < stored size <= plain size <= 1 MiB`",
    ],
)
def test_numbers_in_the_text_are_those_of_the_code(said: str) -> None:
    assert said in TEXT
    assert packfile.CHUNK_LIMIT == 1 << 20


def test_limits_of_profiles_are_those_of_the_code() -> None:
    text = sections()["Profiles, version 1"]
    assert f"number of profiles, at most {profile.PROFILE_LIMIT} |" in text
    assert f"reads, at most {profile.READ_LIMIT:,} |" in text
    assert f"chunks, at most {profile.CHUNK_LIMIT:,} |" in text
    assert f"size of the name, 1 to {profile.NAME_LIMIT} |" in text
    assert f"size of the command, at most {trace.COMMAND_LIMIT:,} |" in text
    assert f"hot pack, at most {profile.HOT_PACK_LIMIT >> 30} GiB;" in text
    assert f"body, at most {profile.BODY_LIMIT >> 20} MiB |" in text
    assert f"{profile.DOCUMENT_LIMIT >> 20} MiB at most; it is empty" in text
    hot = sections()["Hot pack, version 1"]
    assert f"window of {profile.WINDOW >> 20} MiB at most" in hot
    assert f"{FLUSH >> 10} KiB or more" in hot
    assert f"no more than {PLAIN_LIMIT >> 30} GiB" in hot
    assert f"at most {trace.ENTRY_LIMIT:,} entries" in sections()["Trace, version 1"]


def test_the_artifact_of_profiles_is_as_said() -> None:
    section = sections()["Store in a registry, version 1"]
    image, blob = b"\1" * 32, (f"sha256:{'02' * 32}", 9)
    made = encode_profile_artifact(image, blob, [(b"\3" * 32, 7)])
    assert parse_profile_artifact(made, image, "it") == {
        f"profiles/{image.hex()}": blob,
        f"hot/{'03' * 32}": (f"sha256:{'03' * 32}", 7),
    }
    for said in (PROFILES_TYPE, DOCUMENT_TYPE, HOT_PACK_TYPE):
        assert f"`{said}`" in section and said in made.data.decode()
    assert f"| `{profiles_tag(image).replace(image.hex(), 'HEX')}` |" in section


def test_links_lead_somewhere() -> None:
    def anchor(heading: str) -> str:
        return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")

    anchors = {anchor(heading) for heading in sections()}
    for target in re.findall(r"\]\(#([^)]*)\)", TEXT):
        assert target in anchors


def test_offsets_follow_one_another() -> None:
    for section in sections():
        for rows in layouts(section):
            for (offset, size, _), (following, _, _) in pairwise(rows):
                assert size is not None and offset + size == following, section


def test_the_artifact_is_the_one_shown() -> None:
    section = sections()["Store in a registry, version 1"]
    (shown,) = re.findall(r"^```json\n(.*?)^```$", section, re.M | re.S)
    image = b"\1" * 32
    names = (manifest_name(image), chunk_index_name(image), bootstrap_name(image))
    others = {
        name: (f"sha256:{digest * 32}", size)
        for name, digest, size in zip(names, ("a0", "a1", "a2"), (300, 5000, 40960), strict=True)
    }
    subject = Descriptor("application/vnd.oci.image.manifest.v1+json", f"sha256:{'03' * 32}", 700)
    made = encode_artifact(image, [(b"\2" * 32, 33553920)], others, subject)
    assert made.data == encode_document(json.loads(shown))
    for tag in (artifact_tag(image), artifact_tag(image, subject.digest)):
        form = tag.replace(image.hex(), "HEX").replace("03" * 16, "SUBJECT")
        assert f"| `{form}` |" in section
    form = boot_image_tag(image, subject.digest).replace(image.hex(), "HEX")
    assert f"| `{form.replace('03' * 16, 'SUBJECT')}` |" in section
