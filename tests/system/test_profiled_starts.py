"""From a recorded start to one that finds all of it in one object, by the commands of a user."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from bench.images import IMAGES, build_image
from converter.cli import main

if TYPE_CHECKING:
    from tests.support.converted import Conversions
    from tests.support.engine import Engine

pytestmark = pytest.mark.system

COMMAND = ("perl", "-e", "use POSIX; print qq(READY\n)")


def test_a_start_with_a_profile_asks_for_its_hot_pack_and_little_else(
    engine: Engine, conversions: Conversions, capsys: pytest.CaptureFixture[str]
) -> None:
    image = conversions.convert(build_image(IMAGES["deb"]))
    profile = ("profile", "add", image.boot, "--store", str(conversions.directory))
    cache = ("-v", f"{engine.volume()}:/.bootfs/cache")
    container = image.start(engine, *COMMAND, options=(*cache, "-e", "BOOTFS_RECORD=1"))
    assert container.wait() == 0
    conversions.server.forget()
    assert image.run(engine, *COMMAND).stdout == "READY\n"
    before = [request for request in conversions.server.requests() if request.status == 206]
    capsys.readouterr()
    assert main([*profile, "--from", container.name, "--json"]) == 0
    (fact,) = json.loads(capsys.readouterr().out)
    assert fact["name"] == "perl" and fact["command"][-3:] == list(COMMAND)
    assert fact["reads"] > 10 and fact["hot_pack"] > 0
    conversions.server.forget()
    done = image.run(engine, *COMMAND)
    assert (done.returncode, done.stdout, done.stderr) == (0, "READY\n", "")
    after = conversions.server.requests()
    hot = [request for request in after if request.path.startswith("/hot/")]
    assert [request.size for request in hot] == [fact["hot_pack"]]
    packs = [request for request in after if request.path.startswith("/packs/")]
    assert len(packs) * 2 < len(before)
    conversions.server.forget()
    off = image.run(engine, *COMMAND, options=("-e", "BOOTFS_PROFILE=off"))
    assert off.stdout == "READY\n"
    assert not [r for r in conversions.server.requests() if r.path.startswith("/hot/")]
    assert main(["profile", "remove", *profile[2:], "--all"]) == 0
