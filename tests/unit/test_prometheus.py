"""Metrics: read by Prometheus' own parser, whatever containers are called."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from converter.prometheus import iter_metrics
from store.format.status import BOUNDS_S
from tests.support.statuses import encoded, seen

if TYPE_CHECKING:
    from store.read.counts import Counts

EVIL = 'a"b\\c\nd} 1\n# HELP {,=\udcff'


def busy(counts: Counts) -> None:
    counts.counters.cache_hits = 5
    counts.add_request(0, 0, 1000, 1, monotonic() - 0.2)
    counts.add_request(0, 0, 500, 1, monotonic() - 100)
    counts.add_request(0, 0, 500, 1, monotonic(), is_failed=True)
    assert counts.begin_wait() is not None
    counts.note_wait(monotonic() - 3, (0, 1, 0, b""))


@pytest.mark.parametrize("image", ["example/app:1", EVIL])
def test_a_parser_of_prometheus_reads_what_was_counted(image: str) -> None:
    containers = [seen(encoded(busy), image=image), seen(encoded(), name="idle", image=image)]
    text = "\n".join(iter_metrics(containers)) + "\n"
    text.encode("utf-8")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    # A counter's family is named without the _total of its samples.
    assert all(
        name.startswith("bootfs_") and family.documentation for name, family in families.items()
    )

    def values(family: str, sample: str = "") -> dict[str, float]:
        return {
            one.labels["container"] + one.labels.get("le", ""): one.value
            for one in families[family].samples
            if one.name == (sample or family)
        }

    assert values("bootfs_requests", "bootfs_requests_total") == {"web": 2, "idle": 0}
    assert values("bootfs_request_errors", "bootfs_request_errors_total")["web"] == 1
    assert values("bootfs_fetched_bytes", "bootfs_fetched_bytes_total")["web"] == 1500
    assert values("bootfs_cache_hits", "bootfs_cache_hits_total")["web"] == 5
    assert values("bootfs_waiting_reads") == {"web": 1, "idle": 0}
    assert values("bootfs_cached_bytes")["web"] == 2048
    assert values("bootfs_status_time_seconds")["web"] > 1e9
    fetches = values("bootfs_fetch_seconds", "bootfs_fetch_seconds_bucket")
    assert fetches["web0.1"] == 1
    assert (fetches["web0.25"], fetches["web60.0"], fetches["web+Inf"]) == (2, 2, 3)
    assert values("bootfs_fetch_seconds", "bootfs_fetch_seconds_count")["web"] == 3
    assert 100.2 <= values("bootfs_fetch_seconds", "bootfs_fetch_seconds_sum")["web"] < 110
    waits = values("bootfs_read_wait_seconds", "bootfs_read_wait_seconds_bucket")
    assert (waits["web2.5"], waits["web5.0"]) == (0, 1)
    for family in ("fetch_seconds", "read_wait_seconds"):
        bounds = [
            sample.labels["le"]
            for sample in families[f"bootfs_{family}"].samples
            if sample.labels.get("le") and sample.labels["container"] == "idle"
        ]
        assert bounds == [*map(str, BOUNDS_S), "+Inf"]
    (info, _) = families["bootfs_info"].samples
    assert info.labels["mode"] == "erofs"
    assert info.labels["image"] == image.replace("\udcff", r"\udcff")


def test_of_no_container_there_are_no_samples() -> None:
    families = list(text_string_to_metric_families("\n".join(iter_metrics([])) + "\n"))
    assert families and not any(family.samples for family in families)
