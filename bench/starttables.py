"""Tables and drawing of what bench/startup.py has measured, from its JSON document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.floor import Touched, floor_s
from bench.link import parse_rate, parse_time
from bench.results import format_table

MB = 1e6
DOCKER, TRACED = "docker", "eStargz, traced"
"""What others are compared with: what everybody has, and the best of the peers."""
OURS = ("profile, runtime there", "bootfs, runtime there")
"""The way that is compared in summaries: the first of these that was measured."""

Figures = Mapping[str, Any]
Cold = Mapping[str, Any]


def index_cold(figures: Figures) -> dict[tuple[str, str, str], Cold]:
    """Return cold starts by link, image and way."""
    return {(cold["link"], cold["image"], cold["way"]): cold for cold in figures["cold"]}


def distinct(figures: Figures, key: str) -> list[str]:
    """Return the links, images or ways that there are, in the order of measuring."""
    return list(dict.fromkeys(cold[key] for cold in figures["cold"]))


def _ratio(base: Cold | None, cold: Cold | None) -> str:
    if not base or not cold:
        return "-"
    return f"{base['seconds']['min'] / cold['seconds']['min']:.1f}"


def _touched(figures: Figures, image: str) -> Touched | None:
    found = figures.get("touched", {}).get(image)
    return Touched(**found) if found else None


def seconds_table(figures: Figures) -> str:
    """Return the least seconds to READY, a column a way, and ours against the others'."""
    cold = index_cold(figures)
    ways = distinct(figures, "way")
    ours = next((way for way in OURS if way in ways), None)
    rows = []
    for link in distinct(figures, "link"):
        for image in distinct(figures, "image"):
            of_image = [cold.get((link, image, way)) for way in ways]
            cells = [f"{one['seconds']['min']:.2f}" if one else "-" for one in of_image]
            best = cold.get((link, image, ours)) if ours else None
            ratios = [_ratio(cold.get((link, image, base)), best) for base in (DOCKER, TRACED)]
            if any(of_image):
                rows.append((link, image, *cells, *(ratios if ours else ())))
    against = [f"x {base}" for base in (DOCKER, TRACED)] if ours else []
    return format_table(("link", "image", *ways, *against), rows, texts=2)


def cold_table(figures: Figures) -> str:
    """Return all that is known of each kind of cold start."""
    by_key = index_cold(figures)
    rows = []
    for cold in figures["cold"]:
        link, image = cold["link"], cold["image"]
        touched = _touched(figures, image)
        rows.append(
            (
                link,
                image,
                cold["way"],
                f"{cold['seconds']['min']:.2f}",
                f"{cold['seconds']['median']:.2f}",
                str(cold["seconds"]["n"]),
                _ratio(by_key.get((link, image, DOCKER)), cold),
                _ratio(by_key.get((link, image, TRACED)), cold),
                f"{cold['received'] / MB:.1f}",
                f"{cold['received'] / figures['source_bytes'][image]:.1%}",
                f"{cold['received'] / touched.bytes:.2f}" if touched else "-",
                str(cold["requests"]),
            )
        )
    header = (
        *("link", "image", "way", "min s", "median s", "of", "x docker", "x traced"),
        *("MB", "of image", "of touched", "requests"),
    )
    return format_table(header, rows, texts=3)


def floor_table(figures: Figures) -> str:
    """Return what starts touch, and the least seconds that it takes over each link; empty: none."""
    links = distinct(figures, "link")
    rows = []
    for image in figures.get("touched", {}):
        touched = _touched(figures, image)
        warm = figures["warm"].get(image)
        if not touched or not warm:
            continue
        floors = [
            floor_s(touched, warm["bootfs"]["median"], parse_rate(rate), parse_time(rtt))
            for rate, rtt in (link.split("/") for link in links)
        ]
        rows.append(
            (
                image,
                str(touched.chunks),
                f"{touched.stored_bytes / MB:.1f}",
                f"{touched.own_layer_bytes / MB:.2f}",
                *(f"{seconds:.2f}" for seconds in floors),
            )
        )
    header = ("floor", "chunks", "stored MB", "own layer MB", *(f"s at {link}" for link in links))
    return format_table(header, rows) if rows else ""


def warm_table(figures: Figures) -> str:
    """Return warm starts as a table."""
    rows = [
        (
            name,
            f"{warm['docker']['median']:.3f}",
            f"{warm['bootfs']['median']:.3f}",
            f"{warm['bootfs']['median'] / warm['docker']['median']:.2f}",
        )
        for name, warm in figures["warm"].items()
    ]
    return format_table(("warm start", "docker run s", "bootfs s", "ratio"), rows)


def size_table(figures: Figures) -> str:
    """Return what each boot image weighs, against its source image."""
    rows = []
    for name, made in figures["conversions"].items():
        if name not in figures["source_bytes"]:
            continue
        source = figures["source_bytes"][name]
        rows.append(
            (
                name,
                f"{source / MB:.1f}",
                f"{made['own_layer_bytes'] / MB:.2f}",
                f"{made['own_layer_bytes'] / source:.2%}",
                f"{made['runtime_layer_bytes'] / MB:.2f}",
                f"{made['stored_bytes'] / MB:.1f}",
            )
        )
    header = ("image", "layers gz MB", "own layer MB", "of it", "runtime layer MB", "in store MB")
    return format_table(header, rows)


def start_part(figures: Figures) -> str:
    """Return every table, and the starts that failed."""
    tables = [
        seconds_table(figures),
        floor_table(figures),
        cold_table(figures),
        warm_table(figures),
        size_table(figures),
    ]
    failures = figures.get("failures", ())
    failed = "\n".join(f"- Failed: {failure.splitlines()[0]}" for failure in failures)
    return "\n\n".join(part for part in (*tables, failed) if part)


def draw(figures: Figures, path: Path) -> None:
    """Draw seconds to READY: a panel a link, a group an image, a bar a way."""
    # Drawing is the last step of a long run, and the only one that needs matplotlib.
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    cold = index_cold(figures)
    links, images, ways = (distinct(figures, key) for key in ("link", "image", "way"))
    size = (max(8, 1.6 * len(images)), 4 * len(links))
    figure, panels = plt.subplots(len(links), 1, figsize=size, squeeze=False)
    width = 0.85 / len(ways)
    for panel, link in zip(panels[:, 0], links, strict=True):
        for at, way in enumerate(ways):
            taken = _bars(cold, link, images, way)
            places = [place + (at - (len(ways) - 1) / 2) * width for place, _ in taken]
            # More ways than the usual ten colours.
            colour = mpl.colormaps["tab20"](at)
            bars = panel.bar(places, [s for _, s in taken], width, label=way, color=colour)
            panel.bar_label(bars, fmt="%.1f", fontsize=6)
        panel.set_xticks(range(len(images)), images)
        # As the others, also where it has not all of the images.
        panel.set_xlim(-0.6, len(images) - 0.4)
        # From half a second to two minutes: on a linear axis the short ones cannot be told apart.
        panel.set_yscale("log")
        panel.set_title(f"cold start to READY, {link}")
        panel.set_ylabel("seconds")
    panels[0, 0].legend(fontsize=7, ncols=3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def _bars(
    cold: Mapping[tuple[str, str, str], Cold], link: str, images: Sequence[str], way: str
) -> list[tuple[int, float]]:
    found = [(place, cold.get((link, image, way))) for place, image in enumerate(images)]
    return [(place, one["seconds"]["min"]) for place, one in found if one]
