"""Pods of sample/kubernetes as containers of the engine: each boots with what it is given."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench.images import IMAGES, build_image
from tests.support.engine import Engine
from tests.support.pods import pod_of, read_manifests, run_options

if TYPE_CHECKING:
    from tests.support.converted import Conversions

pytestmark = [pytest.mark.system, pytest.mark.requires("docker", "erofs", "fuse", "root", "nginx")]


@pytest.mark.parametrize("name", ["app-lease.yaml", "app-erofs.yaml"])
def test_a_pod_boots(name: str, engine: Engine, conversions: Conversions, tmp_path: Path) -> None:
    image = conversions.convert(build_image(IMAGES["deb"]))
    pod = copy.deepcopy(pod_of(read_manifests()[name]))
    options = run_options(pod, tmp_path, {"BLOB_STORE": image.store})
    for _ in range(2):
        done = engine.run(image.boot, options=options)
        assert (done.returncode, done.stdout, done.stderr) == (0, "READY\n", "")
    if name == "app-erofs.yaml":
        # The credentials are not the workload's to see.  (Mode lease hides nothing from root.)
        done = engine.run(image.boot, "cat", "/.bootfs/auth/config.json", options=options)
        assert done.returncode != 0 and "auths" not in done.stdout
    # A cache that is a directory of the node has been filled.
    assert any((tmp_path / "cache").rglob("data")) == (name == "app-erofs.yaml")
