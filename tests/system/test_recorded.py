"""Traces copied out of containers that recorded them, whether these run or have ended."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from converter.cli import main
from converter.images.recorded import read_container_traces
from store.errors import NotFound
from store.format.tracenames import trace_file_name
from tests.support.engine import Container, Engine, docker
from tests.support.profiled import Profiled, make_profiled

pytestmark = [pytest.mark.system, pytest.mark.requires("docker")]


@pytest.fixture
def stored(tmp_path: Path) -> Profiled:
    return make_profiled(str(tmp_path / "store"), tmp_path)


def fill_cache(container: Container, stored: Profiled) -> None:
    """Put into a cache two traces, what a daemon has only begun, and other files beside them."""
    cache = stored.place / "cache" / ".bootfs/cache/v2" / stored.image.hex()
    cache.mkdir(parents=True)
    for number, page in enumerate((80, 0)):
        trace = stored.trace(f"t{number}", (page, 4))
        data = bytearray(trace.read_bytes())
        data[16] = 9 - number  # the second is older
        # As releases before called it, and as this one does.
        name = f"{number:016x}" if number else trace_file_name(stored.image, 9, bytes(8))[6:]
        (cache / f"trace-{name}").write_bytes(data)
    (cache / f"trace-{'f' * 16}").write_bytes(b"bootfsTR")
    (cache / "trace-x").write_bytes(b"not ours")
    (cache / "data").write_bytes(bytes(3_000_000))
    (cache / f"trace-{'e' * 16}").symlink_to("data")
    docker("cp", f"{stored.place}/cache/.", f"{container.name}:/")


@pytest.mark.parametrize("runs", [True, False])
def test_all_traces_of_a_container_come_oldest_first(
    engine: Engine, base_image: str, stored: Profiled, runs: bool
) -> None:
    options = ("-v", f"{engine.volume()}:/.bootfs/cache")
    container = engine.start(base_image, "sleep", "infinity", options=options)
    fill_cache(container, stored)
    if not runs:
        container.stop(0)
    said: list[str] = []
    traces = read_container_traces(container.name, stored.image, said.append)
    page = stored.first
    assert [found.trace.reads for found in traces] == [[(0, page, 4)], [(0, page + 80, 4)]]
    assert len(said) == 1 and f"trace-{'f' * 16}" in said[0]


def test_a_profile_is_made_from_a_container(
    engine: Engine, base_image: str, stored: Profiled, capsys: pytest.CaptureFixture[str]
) -> None:
    container = engine.start(base_image, "sleep", "infinity")
    add = ["profile", "add", stored.boot, "--store", stored.url, "--from", container.name]
    assert main(add) == 10 and "start it with BOOTFS_RECORD=1" in capsys.readouterr().err
    fill_cache(container, stored)
    capsys.readouterr()
    assert main([*add, "--json"]) == 0
    captured = capsys.readouterr()
    (fact,) = json.loads(captured.out)
    assert (fact["name"], fact["traces"], fact["origin"]) == ("app", 2, "recording")
    assert "not a trace" in captured.err


def test_a_container_that_is_not_there_is_said(stored: Profiled) -> None:
    with pytest.raises(NotFound, match="no such container"):
        read_container_traces("bootfs-test-none", stored.image, lambda _: None)
