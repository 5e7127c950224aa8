"""A container's status in words, and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from converter.asking import Seen
from converter.firstuse import FetchedFile
from converter.htmltable import percent, shown_size
from converter.statusfile import NS, Histogram, Read, shown_name
from store.format.status import BOUNDS_S


def as_facts(seen: Seen) -> dict[str, Any]:
    """Return all that is known of a container but its lists, for JSON."""
    container, status = seen.container, seen.status
    return {
        "container": container.name,
        "id": container.id,
        "image": container.image,
        "chunk_index": f"blake3:{container.chunk_index.hex()}",
        "running": container.is_running,
        "mode": status.mode,
        "time": datetime.fromtimestamp(status.written_ns / NS, UTC).isoformat(),
        "fresh": seen.is_fresh,
        "age_s": status.age_s,
        **{name: n for name, n in status.numbers.items() if not name.endswith(("_ns", "_reads"))},
        "unlisted_reads": status.numbers["unlisted_reads"],
        "cached_chunks": None if seen.cached is None else seen.cached.chunks,
        "cached_bytes": None if seen.cached is None else seen.cached.plain,
        "fetch_seconds": _histogram_facts(status.fetches),
        "wait_seconds": _histogram_facts(status.waits),
        "steps": status.steps,
        "waiting_reads": [read_facts(read) for read in status.reads if read.waits],
    }


def _histogram_facts(histogram: Histogram) -> dict[str, Any]:
    return {"bounds": BOUNDS_S, "counts": histogram.counts, "sum": histogram.sum_s}


def read_facts(read: Read) -> dict[str, Any]:
    """Return all that is known of a read, for JSON."""
    return {
        "begun_s": read.begun_s,
        "waited_s": read.waited_s,
        "offset": read.offset,
        "size": read.size,
        "pid": read.process,
        "process": shown_name(read.name),
    }


def present(seen: Seen) -> str:
    """Return how much of the image is on this machine, as far as one knows."""
    numbers, said = seen.status.numbers, []
    if seen.cached is not None:
        share = percent(seen.cached.plain, seen.cached.whole)
        said.append(
            f"{share} cached: {shown_size(seen.cached.plain)} of {shown_size(seen.cached.whole)}, "
            f"{seen.cached.chunks:,} of {numbers['chunks']:,} chunks"
        )
    if seen.status.mode in ("lease", "eager"):
        whole = max(numbers["data_bytes"], numbers["to_fill"])
        left = max(numbers["to_fill"] - numbers["filled"], 0)
        said.append(f"{percent(whole - left, whole)} filled: {shown_size(left)} are left to fill")
    return (
        "; ".join(said).replace("\N{NO-BREAK SPACE}", " ") or "unknown: no cache that can be read"
    )


def plain_size(size: int) -> str:
    """Return a size with a unit, for a terminal."""
    return shown_size(size).replace("\N{NO-BREAK SPACE}", " ")


def one_line(seen: Seen) -> str:
    """Return one line about a container that is followed."""
    numbers = seen.status.numbers
    moment = datetime.fromtimestamp(seen.status.written_ns / NS).astimezone()
    ended = "" if seen.container.is_running else "; ended"
    fetched = plain_size(numbers["fetched_bytes"])
    counted = (
        f"{numbers['requests']:,} requests, {numbers['errors']:,} failed; "
        f"{numbers['cache_hits']:,} hits; {numbers['waiting']:,} waiting"
    )
    name = shown_name(seen.container.name.encode())
    return (
        f"{moment:%H:%M:%S} {name}: {seen.status.mode}, {present(seen)}; "
        f"fetched {fetched} in {counted}{ended}"
    )


def iter_lines(seen: Seen) -> Iterator[str]:
    """Yield what is known of a container but its lists, a line each."""
    container, status, numbers = seen.container, seen.status, seen.status.numbers
    moment = datetime.fromtimestamp(status.written_ns / NS).astimezone().isoformat(" ", "seconds")
    state = "runs" if container.is_running else "has ended"
    if not seen.is_fresh:
        state = "runs, and does not answer: this is what it said before"
    steps = ", ".join(f"{name} {at:.3f}" for name, at in status.steps.items() if name != "begun")
    rows = [
        ("container", f"{container.name} ({container.id[:12]})"),
        ("image", container.image),
        ("mode", status.mode),
        ("state", f"{state}; as of {moment}, {status.age_s:.1f} s after its start"),
        ("present", present(seen)),
        (
            "fetched",
            f"{plain_size(numbers['fetched_bytes'])} in {numbers['requests']:,} requests, "
            f"{numbers['fetched_chunks']:,} chunks; {numbers['errors']:,} requests failed",
        ),
        ("a request took", _times(status.fetches)),
        (
            "hits",
            f"{numbers['cache_hits']:,} chunks from the cache, {numbers['shared']:,} from other "
            f"images in it; {numbers['followed']:,} that other containers fetched",
        ),
        ("reads", f"{numbers['answered']:,} answered, {numbers['waits']:,} had to wait"),
        ("a wait took", _times(status.waits)),
        ("waiting now", _waiting(seen)),
        ("seconds until", steps or "nothing yet"),
    ]
    if numbers["daemons"] > 1:
        rows.append(("daemon", f"started {numbers['daemons']:,} times"))
    for name, text in rows:
        yield f"{name:<15}{shown_name(text.encode('utf-8', 'surrogateescape'))}"


def _times(histogram: Histogram) -> str:
    if not histogram.count:
        return "-"
    mean_ms = 1000 * histogram.sum_s / histogram.count
    half, most = (_bound(histogram.quantile(share)) for share in (0.5, 0.99))
    return f"{mean_ms:.1f} ms in the mean; half within {half}, 99 % within {most}"


def _bound(bound_s: float) -> str:
    if bound_s > BOUNDS_S[-1]:
        return f"more than {BOUNDS_S[-1]:g} s"
    return f"{bound_s:g} s" if bound_s >= 1 else f"{bound_s * 1000:g} ms"


def _waiting(seen: Seen) -> str:
    waiting = [read for read in seen.status.reads if read.waits]
    count = seen.status.numbers["waiting"]
    if not waiting:
        return f"{count:,}"
    longest = max(waiting, key=lambda read: read.waited_s)
    return f"{count:,}, {longest.waited_s:.1f} s the longest, of {process(longest)}"


def first_reader(file: FetchedFile) -> str:
    """Return who read a file first, with a mark where it may have been the kernel, ahead."""
    if file.first is None:
        return ""
    return process(file.first) + (" ?" if file.is_ahead else "")


def process(read: Read) -> str:
    """Return whose a read is: name and process id, or a dash."""
    if not read.process:
        return "-"
    return f"{shown_name(read.name)} ({read.process})" if read.name else f"({read.process})"
