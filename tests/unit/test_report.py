"""The report of the benchmarks: tables of what was measured, between the marks and nowhere else."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from bench.conversion import Conversion
from bench.floor import Touched
from bench.report import BEGIN, END, performance_part, readme_part, replace_between
from bench.startup import Cold, Figures
from bench.warm import Warm

MACHINE = {"kernel": "6.12.1-cloud", "cores": 2, "docker": "27.0", "python": "3.11"}
LESS, MORE = {"min": 2.0, "median": 2.5, "n": 3}, {"min": 8.0, "median": 9.0, "n": 3}
MIDDLE = {"min": 5.0, "median": 5.5, "n": 3}
STARTUP = {
    "machine": MACHINE,
    **asdict(
        Figures(
            cold=[
                Cold("100M/10ms", "py", "docker", MORE, 200_000_000, 9),
                Cold("100M/10ms", "py", "eStargz, traced", MIDDLE, 50_000_000, 90),
                Cold("100M/10ms", "py", "bootfs, runtime there", LESS, 30_000_000, 120),
                Cold("1G/1ms", "py", "bootfs, runtime there", LESS, 30_000_000, 121),
            ],
            warm={"py": Warm({"median": 0.5}, {"median": 0.6})},
            touched={"py": Touched(300, 19_000_000, 1_000_000)},
            failures=["1G/1ms py, docker: it ended\nbecause"],
            source_bytes={"py": 200_000_000},
            conversions={
                "py": Conversion(10**9, 3 * 10**8, 10**6, 8 * 10**6, 20.0),
                "seed": Conversion(0, 0, 10**3, 8 * 10**6, 1.0),
            },
        )
    ),
}
CONVERT = {
    "machine": MACHINE,
    "image": "py",
    "data_bytes": 10**9,
    "bootfs": LESS,
    "casync": MORE,
    "pairs": [{"bootfs_bytes": 3 * 10**8, "casync_bytes": 4 * 10**8}],
    "ways": {
        way: [
            {"seconds": first, "cpu_s": first, "bytes": 3 * 10**8},
            {"seconds": second, "cpu_s": second, "bytes": 4 * 10**6},
        ]
        for way, first, second in (
            ("archive", MORE, LESS),
            ("registry", MORE, MORE),
            ("casync", MORE, MORE),
        )
    },
}
FILESYSTEM = {
    "machine": MACHINE,
    "image": "py",
    "entries": 20_000,
    "cpu_s": {"overlay2": {"find cold": LESS}, "erofs": {"find cold": MORE}},
}


BOOT = {
    "machine": MACHINE,
    "images": {
        "deb": {
            "path_ms": [{"step": "engine", **LESS}],
            "totals_ms": [{"step": "init to exec", **MORE}],
            "beside_ms": [],
            "walls_ms": {"docker run": LESS, "bootfs": MORE, "bootfs, with stamps": MORE},
        }
    },
}


def cells(table: str, *first: str) -> list[str]:
    """The cells of the row that begins with `first`, without those."""
    for line in table.splitlines():
        row = [cell.strip() for cell in line.strip("|").split("|")]
        if row[: len(first)] == list(first):
            return row[len(first) :]
    raise AssertionError(f"no row {first} in\n{table}")


def test_a_cold_start_shows_seconds_and_ratios_in_one_row() -> None:
    part = readme_part({"startup": STARTUP})
    assert cells(part, "100M/10ms", "py") == ["8.00", "5.00", "2.00", "4.0", "2.5"]
    assert cells(part, "1G/1ms", "py") == ["-", "-", "2.00", "-", "-"]
    assert cells(part, "py") == ["0.500", "0.600", "1.20"]


def test_a_cold_start_shows_bytes_requests_and_what_it_needed_at_least() -> None:
    part = performance_part({"startup": STARTUP})
    row = cells(part, "100M/10ms", "py", "bootfs, runtime there")
    assert row == ["2.00", "2.50", "3", "4.0", "2.5", "30.0", "15.0%", "1.50", "120"]
    assert cells(part, "1G/1ms", "py", "bootfs, runtime there")[3:5] == ["-", "-"]
    # 20 MB at 100 Mbit/s and at 1 Gbit/s, 0.6 s warm, two round trips.
    assert cells(part, "py", "300") == ["19.0", "1.00", "2.22", "0.76"]
    assert "- Failed: 1G/1ms py, docker: it ended\n" in f"{part}\n"
    assert "because" not in part


def test_figures_of_before_the_floor_are_still_shown() -> None:
    older = {key: STARTUP[key] for key in ("machine", "cold", "warm")}
    older |= {key: STARTUP[key] for key in ("source_bytes", "conversions")}
    row = cells(performance_part({"startup": older}), "100M/10ms", "py", "docker")
    assert row == ["8.00", "9.00", "3", "1.0", "0.6", "200.0", "100.0%", "-", "9"]


def test_everything_measured_is_in_the_long_report() -> None:
    part = performance_part({"startup": STARTUP, "convert": CONVERT, "filesystem": FILESYSTEM})
    assert cells(part, "bootfs convert") == ["2.0", "2.5", "400", "300"]
    assert cells(part, "bootfs, docker archive") == ["9.0", "2.5", "3.6", "2.5", "4.0"]
    before = {name: value for name, value in CONVERT.items() if name != "ways"}
    assert "similar" not in performance_part({"convert": before})
    assert cells(part, "find cold") == ["2.00 (1.00)", "8.00 (4.00)"]
    assert cells(part, "py", "200.0") == ["1.00", "0.50%", "8.00", "300.0"]
    assert "Linux 6.12.1, 2 cores, Docker 27.0." in part


def test_many_containers_and_sequential_reads() -> None:
    taken = {"first_s": LESS, "half_s": MIDDLE, "last_s": MORE, "received": 10**8, "requests": 7}
    fast = {**taken, "last_s": MIDDLE}
    links = {"1G/1ms": {"docker": taken, "bootfs, runtime there": fast}}
    many = {"machine": MACHINE, "images": ["py", "go"], "containers": 20, "links": links}
    # In the order in which the results' file has them.
    seconds = {"erofs": {"cache": MIDDLE, "pages": LESS, "store": MORE}}
    sequential = {"machine": MACHINE, "file_bytes": 800_000_000, "seconds": seconds}
    part = performance_part({"many": many, "sequential": sequential})
    row = cells(part, "1G/1ms", "bootfs, runtime there")
    assert row == ["2.00", "5.00", "5.00", "1.6", "100.0", "7"]
    assert cells(part, "erofs") == ["100", "160", "400"]
    assert "20 containers of py, go." in part


def test_what_was_not_measured_is_not_shown() -> None:
    assert "Cold" not in readme_part({"convert": CONVERT})


def test_only_what_stands_between_the_marks_is_replaced() -> None:
    assert replace_between(f"a{BEGIN}old{END}b", "new") == f"a{BEGIN}\nnew\n{END}b"
    again = replace_between(replace_between(f"a{BEGIN}{END}b", "x"), "y")
    assert again == f"a{BEGIN}\ny\n{END}b"


@pytest.mark.parametrize("text", ["", BEGIN, END + BEGIN])
def test_a_document_without_marks_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="figures"):
        replace_between(text, "new")


def test_the_steps_of_a_boot_and_their_ratio() -> None:
    part = performance_part({"boot": BOOT})
    assert part.startswith("## Steps of a warm boot\n\nLinux 6.12.1, 2 cores, Docker 27.0.")
    assert cells(part, "init to exec") == ["8.00", "9.00"]
    assert cells(part, "bootfs / docker run") == ["4.00", "3.60"]
    assert "Steps" not in readme_part({"boot": BOOT})
