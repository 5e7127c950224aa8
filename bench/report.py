"""Write the figures of the last benchmarks into README.md and docs/performance.md.

`python -m bench.report [RESULTS]` reads the JSON files that the benchmarks left in bench/results,
and replaces what stands between the marks in both documents. What was not measured is not shown.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.results import RESULTS, format_table, read_figures
from bench.starttables import seconds_table, start_part, warm_table

TOP = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- figures:begin -->", "<!-- figures:end -->"
MB = 1e6
KINDS = (
    *("startup", "many", "boot", "lease", "convert", "updates", "registrystore"),
    *("filesystem", "sequential"),
)
BOOT_PARTS = ("path_ms", "totals_ms", "beside_ms")
SEQUENTIAL = {
    "store": "from the store",
    "cache": "from the cache",
    "pages": "from the page cache",
}
WALLS = ("docker run", "bootfs", "bootfs, with stamps")

Figures = Mapping[str, Any]
"""One benchmark's JSON document; the benchmark that writes it knows its shape."""


def read_results(directory: Path) -> dict[str, Figures]:
    """Return the documents that there are, by the name of their benchmark."""
    found: dict[str, Figures] = {}
    for kind in KINDS:
        with suppress(FileNotFoundError):
            found[kind] = read_figures(kind, directory)
    return found


def boot_table(figures: Figures) -> str:
    """Return the steps of warm boots in ms, least and median of each image."""
    images = figures["images"]
    names = list(images)
    walls = [images[name]["walls_ms"] for name in names]
    taken: list[tuple[str, Sequence[Figures]]] = []
    for part in BOOT_PARTS:
        steps = zip(*(images[name][part] for name in names), strict=True)
        taken += [(step[0]["step"], step) for step in steps]
    taken += [(wall, [one[wall] for one in walls]) for wall in WALLS]
    rows = []
    for label, of_images in taken:
        cells = (f"{one[kind]:.2f}" for one in of_images for kind in ("min", "median"))
        rows.append([label, *cells])
    ratios = [
        [wall["bootfs"][k] / wall["docker run"][k] for k in ("min", "median")] for wall in walls
    ]
    rows.append(["bootfs / docker run", *(f"{ratio:.2f}" for pair in ratios for ratio in pair)])
    header = ["ms", *(f"{name} {kind}" for name in names for kind in ("min", "median"))]
    return format_table(header, rows)


def lease_table(figures: Figures) -> str:
    """Return what mode lease costs for each file, in us."""
    rows = [
        (what, f"{taken['min']:.1f}", f"{taken['median']:.1f}")
        for what, taken in (
            ("making a file of the tree", figures["skeleton_us"]),
            ("open+read, docker run", figures["read_us"]["plain"]),
            ("open+read, filled", figures["read_us"]["filled"]),
        )
    ]
    return format_table(("us a file", "min", "median"), rows)


def convert_table(figures: Figures) -> str:
    """Return conversion against casync as a table, and below it what a second one takes."""
    data = figures["data_bytes"]
    rows = []
    for name, key in (("bootfs convert", "bootfs"), ("casync make", "casync")):
        taken = figures[key]
        stored = figures["pairs"][0][f"{key}_bytes"]
        rows.append(
            (
                name,
                f"{taken['min']:.1f}",
                f"{taken['median']:.1f}",
                f"{data / MB / taken['median']:.0f}",
                f"{stored / MB:.0f}",
            )
        )
    table = format_table(("conversion", "min s", "median s", "MB/s", "stored MB"), rows)
    # Figures from before there were records have no second conversions.
    return f"{table}\n\n{_second_table(figures['ways'])}" if "ways" in figures else table


def _second_table(ways: Figures) -> str:
    """Return the first conversion and one of a similar image; CPU time, medians."""
    rows = []
    for name, way in (
        ("bootfs, docker archive", "archive"),
        ("bootfs, registry", "registry"),
        ("casync make", "casync"),
    ):
        first, second = ways[way]
        before, after = first["cpu_s"]["median"], second["cpu_s"]["median"]
        rows.append(
            (
                name,
                f"{before:.1f}",
                f"{after:.1f}",
                f"{before / after:.1f}",
                f"{second['seconds']['median']:.1f}",
                f"{second['bytes'] / MB:.1f}",
            )
        )
    header = ("similar image", "first CPU s", "second CPU s", "ratio", "second s", "new MB")
    return format_table(header, rows)


def updates_table(figures: Figures) -> str:
    """Return what updates and a family of images take in a store as a table."""
    rows = []
    for what, stored in figures["stored"].items():
        casync = "-" if stored["casync"] is None else f"{stored['casync'] / MB:.1f}"
        layers, ours = f"{stored['layers'] / MB:.1f}", f"{stored['bootfs'] / MB:.1f}"
        rows.append((what, layers, ours, f"{stored['bootfs'] / stored['layers']:.1%}", casync))
    header = ("bytes stored", "layers, gz MB", "bootfs MB", "of the layers", "casync MB")
    return format_table(header, rows)


def registry_table(figures: Figures) -> str:
    """Return starts from, and conversions into, a registry as tables."""
    rows = []
    for name, ready in figures["ready_s"].items():
        web, registry = ready["directory"]["min"], ready["registry"]["min"]
        start = f"{figures['link']} {name}"
        rows.append((start, f"{web:.2f}", f"{registry:.2f}", f"{registry / web:.2f}"))
    starts = format_table(("cold start", "web server s", "registry s", "ratio"), rows)
    least = {
        key: min(conversion[f"{key}_s"] for conversion in figures["conversions"])
        for key in ("bootfs", "casync")
    }
    memory = max(conversion["memory_bytes"] for conversion in figures["conversions"])
    large = figures["large_layer_memory_bytes"]
    taken = [
        (f"bootfs, {figures['converted']}", f"{least['bootfs']:.1f}", f"{memory / MB:.0f}"),
        ("docker pull, casync make, copy", f"{least['casync']:.1f}", "-"),
        *([("bootfs, layer of 5 GB", "-", f"{large / MB:.0f}")] if large else []),
    ]
    return starts + "\n\n" + format_table(("registry to registry", "s", "MB resident"), taken)


def filesystem_table(figures: Figures) -> str:
    """Return CPU seconds of each mode, and in brackets how many times overlay2's they are."""
    cpu = figures["cpu_s"]
    rows = []
    for what, base in cpu["overlay2"].items():
        cells = [what]
        for mode in cpu:
            least = cpu[mode][what]["min"]
            cells.append(f"{least:.2f} ({least / base['min']:.2f})" if base["min"] else "-")
        rows.append(cells)
    return format_table(("CPU s", *cpu), rows)


def many_table(figures: Figures) -> str:
    """Return when the first, half and the last of the containers were READY."""
    rows = []
    for link, ways in figures["links"].items():
        base = ways["docker"]["last_s"]["min"]
        for way, taken in ways.items():
            rows.append(
                (
                    link,
                    way,
                    *(f"{taken[key]['min']:.2f}" for key in ("first_s", "half_s", "last_s")),
                    f"{base / taken['last_s']['min']:.1f}",
                    f"{taken['received'] / MB:.1f}",
                    str(taken["requests"]),
                )
            )
    header = ("link", "way", "first s", "half s", "last s", "x docker", "MB", "requests")
    return format_table(header, rows, texts=2)


def sequential_table(figures: Figures) -> str:
    """Return MB/s of each mode, of the best reads."""
    size = figures["file_bytes"]
    # By name: a JSON document has its keys in the order of the alphabet.
    rows = [
        (mode, *(f"{size / MB / taken[kind]['min']:.0f}" for kind in SEQUENTIAL))
        for mode, taken in figures["seconds"].items()
    ]
    return format_table(("MB/s", *SEQUENTIAL.values()), rows)


def machine_line(figures: Figures) -> str:
    """Say where figures were taken."""
    machine = figures["machine"]
    return (
        f"Linux {machine['kernel'].split('-')[0]}, {machine['cores']} cores, "
        f"Docker {machine['docker']}."
    )


def readme_part(results: Mapping[str, Figures]) -> str:
    """Return the section of README.md: the tables that a user asks for."""
    parts = []
    if "startup" in results:
        parts += [
            "Cold start, least seconds from the start of the pull to READY, all over one link:",
            seconds_table(results["startup"]),
            "Warm start, everything on the node:",
            warm_table(results["startup"]),
        ]
    if "convert" in results:
        parts += [f"Conversion of image {results['convert']['image']}:"]
        parts += [convert_table(results["convert"])]
    if "filesystem" in results:
        parts += [
            f"CPU time over the {results['filesystem']['entries']:,} entries of image "
            f"{results['filesystem']['image']}, and how many times overlay2's it is:",
            filesystem_table(results["filesystem"]),
        ]
    parts += [machine_line(next(iter(results.values())))]
    return "\n\n".join(parts)


def performance_part(results: Mapping[str, Figures]) -> str:
    """Return the section of docs/performance.md: everything."""
    parts = []
    titles = {
        "startup": "Start",
        "many": "Many containers at once",
        "boot": "Steps of a warm boot",
        "lease": "Mode lease",
        "convert": "Conversion",
        "updates": "Updates",
        "registrystore": "The registry as the store",
        "filesystem": "File system",
        "sequential": "Sequential reads",
    }
    for kind, figures in results.items():
        parts += [f"## {titles[kind]}", machine_line(figures)]
        if kind == "startup":
            parts += [start_part(figures)]
            if (RESULTS / "startup.png").exists():
                parts += ["![Seconds to READY](../bench/results/startup.png)"]
        elif kind == "many":
            what = f"{figures['containers']} containers of {', '.join(figures['images'])}."
            parts += [what, many_table(figures)]
        elif kind == "sequential":
            parts += [f"File of {figures['file_bytes'] / MB:.0f} MB.", sequential_table(figures)]
        elif kind == "boot":
            parts += [boot_table(figures)]
        elif kind == "lease":
            parts += [lease_table(figures)]
        elif kind == "convert":
            parts += [f"Image: {figures['image']}.", convert_table(figures)]
        elif kind == "updates":
            parts += [updates_table(figures)]
        elif kind == "registrystore":
            parts += [registry_table(figures)]
        else:
            parts += [f"Image: {figures['image']}.", filesystem_table(figures)]
    return "\n\n".join(parts)


def replace_between(text: str, part: str) -> str:
    """Return ``text`` with ``part`` between the marks, which stay.

    Raises:
        ValueError: a mark is missing, or they stand in the wrong order.

    """
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no {BEGIN} … {END}")
    return f"{head}{BEGIN}\n{part}\n{END}{tail}"


def main(arguments: list[str] | None = None) -> int:
    """Write both documents."""
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=main.__doc__)
    parser.add_argument("results", nargs="?", type=Path, default=RESULTS, metavar="RESULTS")
    results = read_results(parser.parse_args(arguments).results)
    if not results:
        print("report: nothing measured yet; run `nox -s bench`", file=sys.stderr)
        return 1
    for name, part in (
        ("README.md", readme_part(results)),
        ("docs/performance.md", performance_part(results)),
    ):
        path = TOP / name
        path.write_text(replace_between(path.read_text(), part))
    return 0


if __name__ == "__main__":
    sys.exit(main())
