"""What containers count, in Prometheus' text format 0.0.4, as the node exporter reads it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from converter.asking import Seen
from converter.statusfile import NS, Histogram
from store.format.status import BOUNDS_S

_COUNTERS = (
    ("requests", "requests_total", "Ranges fetched from the store."),
    ("errors", "request_errors_total", "Ranges that could not be fetched, with all retries."),
    ("fetched_bytes", "fetched_bytes_total", "Bytes fetched from the store, as stored."),
    ("fetched_chunks", "fetched_chunks_total", "Chunks fetched from the store."),
    ("cache_hits", "cache_hits_total", "Chunks taken from the cache."),
    ("cache_bad", "cache_damaged_total", "Chunks found damaged in the cache, and fetched again."),
    ("shared", "cache_shared_total", "Chunks taken from another image's part of the cache."),
    ("followed", "followed_total", "Chunks that another container was fetching already."),
    ("answered", "reads_total", "Reads of the kernel answered, or files filled."),
    ("waits", "waits_total", "Reads that had to wait for the store."),
    ("daemons", "daemon_starts_total", "Times that a process that answers reads was started."),
)


def iter_metrics(seen: Sequence[Seen]) -> Iterator[str]:
    """Yield the lines, each family of metrics together."""
    labels = [_labels(one) for one in seen]
    yield from _family("info", "gauge", "A container of a boot image, and how it gets its files.")
    for one, its in zip(seen, labels, strict=True):
        image = f"blake3:{one.container.chunk_index.hex()}"
        more = {"mode": one.status.mode, "chunk_index": image}
        yield f"bootfs_info{_shown({**its, **more})} 1"
    gauges = (
        (
            "status_time_seconds",
            "When the container said this.",
            lambda s: s.status.written_ns / NS,
        ),
        ("running", "1 while the container runs.", lambda s: int(s.container.is_running)),
        ("waiting_reads", "Reads that wait now.", lambda s: s.status.numbers["waiting"]),
        (
            "image_bytes",
            "Plain bytes of the image's files.",
            lambda s: s.status.numbers["data_bytes"],
        ),
    )
    for name, text, value in gauges:
        yield from _family(name, "gauge", text)
        for one, its in zip(seen, labels, strict=True):
            yield f"bootfs_{name}{_shown(its)} {value(one)!r}"
    yield from _family("cached_bytes", "gauge", "Plain bytes of the image in the cache.")
    for one, its in zip(seen, labels, strict=True):
        if one.cached is not None:
            yield f"bootfs_cached_bytes{_shown(its)} {one.cached.plain}"
    for number, name, text in _COUNTERS:
        yield from _family(name, "counter", text)
        for one, its in zip(seen, labels, strict=True):
            yield f"bootfs_{name}{_shown(its)} {one.status.numbers[number]}"
    yield from _family(
        "fetch_seconds", "histogram", "How long a range took to come, retries included."
    )
    for one, its in zip(seen, labels, strict=True):
        yield from _histogram("fetch_seconds", its, one.status.fetches)
    yield from _family("read_wait_seconds", "histogram", "How long a read waited for the store.")
    for one, its in zip(seen, labels, strict=True):
        yield from _histogram("read_wait_seconds", its, one.status.waits)


def _family(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP bootfs_{name} {text}"
    yield f"# TYPE bootfs_{name} {kind}"


def _labels(seen: Seen) -> dict[str, str]:
    return {"container": seen.container.name, "image": seen.container.image}


def _shown(labels: dict[str, str]) -> str:
    pairs = (f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return "{" + ",".join(pairs) + "}"


def _escaped(value: str) -> str:
    text = value.encode("utf-8", "backslashreplace").decode()
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _histogram(name: str, labels: dict[str, str], histogram: Histogram) -> Iterator[str]:
    total = 0
    for bound, count in zip([*map(str, BOUNDS_S), "+Inf"], histogram.counts, strict=True):
        total += count
        yield f"bootfs_{name}_bucket{_shown({**labels, 'le': bound})} {total}"
    yield f"bootfs_{name}_sum{_shown(labels)} {histogram.sum_s!r}"
    yield f"bootfs_{name}_count{_shown(labels)} {total}"
