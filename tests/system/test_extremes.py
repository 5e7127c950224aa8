"""The largest and the smallest images: converted, booted in each mode, and compared."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.bootedtree import (
    ENGINE_PLACES,
    PAUSE,
    convert_layers,
    convert_tree,
    in_each_mode,
)
from tests.support.dump import dump_directory
from tests.support.layers import file, tar_of
from tests.support.trees import make_directory, make_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.converted import Conversions
    from tests.support.engine import Engine

pytestmark = pytest.mark.system

FOUR_GIB = 4 << 30
LARGE = FOUR_GIB + (32 << 20) + 12_345
PIECE = 1 << 20


@pytest.fixture
def disk() -> Iterator[Path]:
    """Yield a directory on a file system with sparse files."""
    place = Path("/var/tmp") / f"bootfs-extremes-{os.getpid()}"
    place.mkdir()
    yield place
    shutil.rmtree(place)


def test_a_file_over_4_gib(
    engine: Engine, conversions: Conversions, pause: Path, tmp_path: Path, disk: Path
) -> None:
    written = {
        0: b"at the start",
        FOUR_GIB - 3 * PIECE: os.urandom(2 * PIECE),
        FOUR_GIB - 5: b"across 4 GiB",
        LARGE - 7 - PIECE: os.urandom(PIECE),
        LARGE - 7: b"the end",
    }
    with (disk / "large").open("wb") as large:
        large.truncate(LARGE)
        for offset, data in written.items():
            large.seek(offset)
            large.write(data)
    shutil.copy(pause, disk / PAUSE.decode())
    command = ["tar", "-c", "--sparse", "--format=pax", "-C", str(disk), "large", PAUSE.decode()]
    layer = subprocess.run(command, capture_output=True, check=True).stdout
    assert len(layer) < 10 * PIECE
    image = convert_layers(conversions, tmp_path, layer)
    for mode, root in in_each_mode(image, engine):
        with open(f"{root}/large", "rb", buffering=0) as found:
            assert os.fstat(found.fileno()).st_size == LARGE
            for offset, data in written.items():
                assert os.pread(found.fileno(), len(data), offset) == data, (mode, offset)
            assert os.pread(found.fileno(), 100, LARGE - 3) == b"end"
            assert os.pread(found.fileno(), 100, LARGE) == b""
            # All that is near data, and a part of the zeros: those alone take half a minute.
            near = {(offset + size) // PIECE for offset in written for size in (-PIECE, 0, PIECE)}
            near |= {number + 1 for number in near} | set(range(0, LARGE // PIECE, 16))
            with (disk / "large").open("rb", buffering=0) as expected:
                for at in sorted(number * PIECE for number in near if number >= 0):
                    want = os.pread(expected.fileno(), PIECE, at)
                    assert os.pread(found.fileno(), PIECE, at) == want, (mode, at)


def test_a_directory_of_100000_entries(
    engine: Engine, conversions: Conversions, pause: Path, tmp_path: Path
) -> None:
    directory = make_directory()
    names = {f"entry-{number}" for number in range(100_000)}
    shared = make_file(b"")
    directory.children = {name.encode(): shared for name in names}
    for number in range(0, 100_000, 1000):
        directory.children[b"entry-%d" % number] = make_file(b"x")
    image, _ = convert_tree(conversions, make_directory(all=directory), pause, tmp_path)
    for mode, root in in_each_mode(image, engine):
        assert set(os.listdir(f"{root}/all")) == names, mode
        for number in range(0, 100_000, 500):
            found = Path(f"{root}/all/entry-{number}").read_bytes()
            assert found == (b"" if number % 1000 else b"x"), mode
        for absent in ("entry-", "entry-100000", "zzz", "0"):
            assert not os.path.lexists(f"{root}/all/{absent}")


@pytest.mark.parametrize("layers", [(), (tar_of(),)], ids=["no layer", "an empty layer"])
def test_the_empty_image(
    engine: Engine,
    conversions: Conversions,
    pause: Path,
    tmp_path: Path,
    layers: tuple[bytes, ...],
) -> None:
    image = convert_layers(conversions, tmp_path, *layers)
    options = ("-v", f"{pause}:/pause:ro")
    for mode, root in in_each_mode(image, engine, "/pause", options):
        found = dump_directory(root, skip=ENGINE_PLACES)
        assert found.keys() <= {b"", b"/etc", b"/pause"}, mode
    done = image.run(engine)
    assert (done.returncode, done.stdout) == (125, "")
    assert "no command" in done.stderr


def test_an_image_of_one_file(
    engine: Engine, conversions: Conversions, pause: Path, tmp_path: Path
) -> None:
    layer = tar_of(file("only", pause.read_bytes(), mode=0o755, mtime=1_234_567_890))
    image = convert_layers(conversions, tmp_path, layer)
    for mode, root in in_each_mode(image, engine, "/only"):
        found = dump_directory(root, skip=ENGINE_PLACES)
        assert found.keys() <= {b"", b"/etc", b"/only"}, mode
        assert found[b"/only"].mtime_ns == 1_234_567_890 * 10**9
        assert Path(f"{root}/only").read_bytes() == pause.read_bytes()
