import json
from pathlib import Path
from typing import Any

import pytest

from bench import reliability
from bench.report import BEGIN, END
from tests.support.faultlog import FaultCase, FaultLog

CASES = [
    FaultCase("network", "404", "erofs", "EIO", injected=5, reads=4),
    FaultCase("network", "404", "lease", "ends with 125", injected=2, reads=1),
    FaultCase("network", "404", "erofs", "right bytes", injected=1, reads=1_000, wrong=1),
    FaultCase("daemon", "SIGKILL", "erofs", "right bytes", injected=1, reads=8, hangs=2),
]


def cells(part: str, first: str) -> list[str]:
    (line,) = (line for line in part.splitlines() if line.startswith(f"| {first} "))
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    log = FaultLog(tmp_path / "lines")
    for case in CASES:
        log.record(case)
    return log.path


def test_what_is_recorded_is_what_is_read(lines: Path) -> None:
    read: list[Any] = reliability.read_cases([lines])
    assert [FaultCase(**case) for case in read] == CASES
    assert len(reliability.read_cases([lines, lines])) == 2 * len(CASES)


def test_each_area_has_a_table_and_all_are_summed_up(lines: Path) -> None:
    part = reliability.reliability_part(reliability.read_cases([lines]))
    assert cells(part, "all") == ["all", "4", "9", "1,013", "1", "2"]
    assert cells(part, "network") == ["network", "3", "8", "1,005", "1", "0"]
    assert part.index("## Faults of: daemon") < part.index("## Faults of: network")
    found = cells(part, "404")
    assert found == ["404", "EIO or right bytes", "ends with 125", "8", "1,005", "1", "0"]


def test_the_document_keeps_what_is_around_the_tables(
    lines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = tmp_path / "document.md"
    document.write_text(f"before\n{BEGIN}\n{END}\nafter\n")
    monkeypatch.setattr(reliability, "DOCUMENT", document)
    assert reliability.main([str(lines)]) == 0
    text = document.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "SIGKILL" in text
    (tmp_path / "none").write_text("")
    assert reliability.main([str(tmp_path / "none")]) == 1
    assert json.loads(lines.read_text().splitlines()[0])["mode"] == "erofs"
