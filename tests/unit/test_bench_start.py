"""What the benchmark of starts reckons with: the clock, the floor, users, and what is missing."""

from __future__ import annotations

from array import array
from dataclasses import asdict
from pathlib import Path

import pytest

from bench import ready, results, snapshotter, startup
from bench.bundle import find_user
from bench.floor import Touched, floor_s, touched_chunks
from bench.ready import run_checked, run_until_ready
from bench.results import read_figures, write_results
from bench.startup import Cold, Figures, choose_ways
from bench.touched import read_start
from bench.ways import Unavailable
from bench.ways.estargz import Estargz
from store.format.chunkindex import BLOCK, HOLE, ChunkIndex, encode_chunk_index
from store.read.order import ENTRY


def sample_index() -> ChunkIndex:
    """Places: chunk 0, a hole, chunk 1, chunk 0 again; data begin at 2 MiB."""
    index = ChunkIndex()
    index.data_start = 2 << 20
    index.plain_sizes = array("I", [BLOCK, 2 * BLOCK])
    index.starts = array("Q", [0, BLOCK, 2 * BLOCK, 4 * BLOCK, 5 * BLOCK])
    index.place_chunks = array("I", [0, HOLE, 1, 0])
    index.data_size = 5 * BLOCK
    return index


@pytest.mark.parametrize(
    ("first", "pages", "chunks"),
    [
        (0, 1, {0}),
        (1, 1, set()),
        (1, 2, {1}),
        (3, 1, {1}),
        (3, 2, {0, 1}),
        (0, 5, {0, 1}),
        (4, 64, {0}),
        (-4, 4, set()),
        (-4, 5, {0}),
        (5, 1, set()),
    ],
)
def test_a_read_touches_the_chunks_that_hold_a_byte_of_it(
    first: int, pages: int, chunks: set[int]
) -> None:
    index = sample_index()
    read = (index.data_start + first * BLOCK, pages * BLOCK)
    assert touched_chunks(index, [read]) == chunks


def test_what_a_cache_keeps_of_a_start_is_read_with_its_image_s_chunk_index(tmp_path: Path) -> None:
    name = "ab" * 32
    index = ChunkIndex()
    index.bootstrap_size = index.data_start = 2 << 20
    index.frame_starts = array("Q", range(9))
    index.frame_digests = [bytes(32)] * 8
    cached = tmp_path / "v2" / name
    for directory in (cached, tmp_path / "indexes"):
        directory.mkdir(parents=True)
    (tmp_path / "indexes" / name).write_bytes(encode_chunk_index(index))
    (cached / "reads").write_bytes(ENTRY.pack(3, 2) + ENTRY.pack(512, 1))
    found, reads = read_start(tmp_path, cached)
    assert found.data_start == 2 << 20
    assert reads == [(3 * BLOCK, 2 * BLOCK), (512 * BLOCK, BLOCK)]


def test_the_floor_is_the_line_s_time_a_warm_run_and_two_round_trips() -> None:
    touched = Touched(chunks=3, stored_bytes=10_000_000, own_layer_bytes=2_500_000)
    assert floor_s(touched, 0.5, 100e6, 0.01) == pytest.approx(1.0 + 0.5 + 0.02)


def test_the_clock_stops_at_the_line_ready_and_the_rest_is_waited_for(tmp_path: Path) -> None:
    marked = []
    after = tmp_path / "after"
    script = f"echo first; echo READY; sleep 0.3; echo last; touch {after}"
    run = run_until_ready(["sh", "-c", script], "sh", lambda: marked.append(after.exists()))
    assert marked == [False]
    assert after.exists()
    assert run.seconds < 0.3


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo NOT READY; echo why >&2", "ended before it was READY:\nwhy"),
        ("echo READY; echo why >&2; exit 3", "was READY, but exited 3:\nwhy"),
    ],
)
def test_a_run_that_is_not_ready_or_fails_is_no_figure(script: str, said: str) -> None:
    with pytest.raises(RuntimeError, match=said):
        run_until_ready(["sh", "-c", script], "it")


def test_a_run_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ready, "LIMIT_S", 0.05)
    with pytest.raises(RuntimeError, match="before it was READY"):
        run_until_ready(["sleep", "60"], "sleep")


def test_a_command_that_fails_says_why() -> None:
    assert run_checked(["echo", "out"]) == "out\n"
    with pytest.raises(RuntimeError, match="exit 1: why"):
        run_checked(["sh", "-c", "echo why >&2; exit 1"])


def test_a_user_is_found_by_name_in_the_image_s_own_list() -> None:
    passwd = "root:x:0:0:root:/root:/bin/sh\npostgres:x:105:110::/var/lib:/bin/sh\n"
    assert find_user("", passwd) == (0, 0)
    assert find_user("postgres", passwd) == (105, 110)
    with pytest.raises(KeyError):
        find_user("post", passwd)


def test_what_is_not_to_be_had_is_left_out_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(snapshotter, "LIBRARY", Path("/nowhere"))
    monkeypatch.setattr(startup, "WAYS", {"docker": startup.WAYS["docker"], "estargz": Estargz})
    assert list(choose_ways(None)) == ["docker"]
    assert "left out: eStargz: missing: " in capsys.readouterr().err
    with pytest.raises(Unavailable, match="/nowhere"):
        choose_ways(["docker", "estargz"])


def test_every_way_has_a_name_of_its_own() -> None:
    assert len({way.label for way in startup.WAYS.values()}) == len(startup.WAYS)
    asked = {key for keys in startup.LINKS.values() for key in keys}
    assert asked == set(startup.WAYS)


def test_a_run_adds_to_what_earlier_ones_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def cold(link: str, image: str, least_s: float) -> Cold:
        return Cold(link, image, "docker", {"min": least_s, "median": least_s, "n": 1}, 100, 2)

    monkeypatch.setattr(results, "RESULTS", tmp_path)
    failures = ["fast py, docker: it ended", "fast pypy, docker: it ended"]
    earlier = Figures([cold("fast", "py", 1), cold("slow", "py", 2)], failures=failures)
    write_results("startup", asdict(earlier))
    kept = Figures.kept(read_figures("startup", tmp_path))
    assert kept == earlier
    kept.put("fast", "py", [cold("fast", "py", 3)])
    kept.put("slow", "go", [cold("slow", "go", 4)])
    assert kept.cold == [cold("fast", "py", 3), cold("slow", "py", 2), cold("slow", "go", 4)]
    assert kept.failures == failures[1:]


def test_figures_of_another_machine_are_not_added_to() -> None:
    with pytest.raises(ValueError, match="another machine"):
        Figures.kept({"machine": {"kernel": "2.0"}, **asdict(Figures())})
