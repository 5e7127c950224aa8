"""The benchmark of a boot's steps: it names what there is, and its rows add up."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from bench import bootprofile
from bench.boot import TOP, Boot, compile_start, read_profile
from bench.bootprofile import BECOMING, MOUNTED_SAID, PREFIX, SERVING, STEPS
from boot import spawn

NAMES = [(module, path) for module, paths in STEPS.items() for path in paths]
INIT = ["first 1000000 1000000", "read_mounts 1500000 1600000", "imports 0 300000"]
DAEMON = [
    *("fork 3000000 3500000", "open_index 4000000 5000000", "_mount_file 5000000 5250000"),
    *("mounted 7000000 7000000", "imports 0 400000"),
]
CHILD = [
    *("fork 4000000 4300000", "Joining.wait_for_image 4300000 7500000"),
    *("mount_overlay 7600000 8000000", "Joining.wait_for_parent 8000000 8200000"),
    *("becomes 8300000 8300000", "exec 9000000 9000000", "exec 9500000 9500000"),
    "imports 0 0",
]


def written(**roles: list[str]) -> str:
    """Give what processes write, and lines of others between."""
    lines = [f"{PREFIX} {role} {line}" for role, stamps in roles.items() for line in stamps]
    return "\n".join(["bootfs: something else", *lines, "READY", ""])


@pytest.mark.parametrize(("module", "path"), [*NAMES, SERVING, BECOMING])
def test_every_step_is_a_function_that_there_is(module: str, path: str) -> None:
    found: object = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    assert callable(found)


def test_what_the_daemon_tells_is_what_is_listened_for() -> None:
    assert spawn._READY == MOUNTED_SAID


def test_the_rows_of_the_path_add_up() -> None:
    boot = Boot(500_000, 20_000_000, read_profile(written(init=INIT, daemon=DAEMON, child=CHILD)))
    steps = boot.steps(200_000)
    assert boot.totals() == {"init to exec": 8.5, "exec to the end of docker run": 10.5}
    assert sum(steps.values()) == pytest.approx(9.0)
    assert sum(ms for name, ms in steps.items() if ":" in name) == pytest.approx(8.5)
    assert steps["engine"] == pytest.approx(0.3)
    assert steps["daemon: index"] == 1.0
    assert steps["daemon: EROFS mount"] == 0.0
    assert steps["child: becoming the workload"] == pytest.approx(1.2)
    assert boot.beside()["init: boot config, mountinfo"] == pytest.approx(0.1)


def test_a_boot_that_lacks_a_process_is_refused() -> None:
    with pytest.raises(ValueError, match="no whole boot"):
        read_profile(written(init=INIT, child=CHILD))


def test_what_is_put_before_the_start_needs_no_module_by_path() -> None:
    parts = [Path(bootprofile.__file__).read_bytes(), (TOP / "boot/start.py").read_bytes()]
    assert b"__future__" not in compile_start(parts)
