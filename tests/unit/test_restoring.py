"""The config of an exported image is the source's, but for what told of its layers."""

import json
from pathlib import Path
from typing import Any

import pytest

from converter.cli import main
from converter.images.transports import open_image
from converter.reference import parse_reference
from converter.spool import Spool
from tests.support.layers import config_of, docker_archive, file, tar_of

LAYER = tar_of(file("f", b"x"))
SETTINGS: list[dict[str, Any]] = [
    {
        "Entrypoint": ["/bin/e", "-x"],
        "Cmd": ["c"],
        "Env": ["A=b"],
        "User": "1:2",
        "WorkingDir": "/w",
        "Labels": {"mine": "1", "io.bootfs.example": "2"},
        "ExposedPorts": {"80/tcp": {}},
        "Volumes": {"/v": {}},
        "Healthcheck": {"Test": ["CMD", "true"], "Interval": 3_000_000_000},
        "StopSignal": "SIGINT",
        "OnBuild": ["RUN true"],
        "Shell": ["/bin/sh", "-c"],
        "x-unknown": [1],
    },
    {"Cmd": ["c"]},
    {},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_settings_come_back(settings: dict[str, Any], tmp_path: Path) -> None:
    source = config_of(
        [LAYER],
        config=settings,
        created="2020-01-01T00:00:00Z",
        author="somebody",
        history=[{"created_by": "one"}, {"created_by": "two", "empty_layer": True}],
        container_config={"Hostname": "x"},
    )
    (tmp_path / "s.tar").write_bytes(docker_archive(LAYER, config=source))
    store = ("--store", str(tmp_path / "store"))
    assert main(["convert", f"docker-archive:{tmp_path}/s.tar", f"oci:{tmp_path}/b", *store]) == 0
    assert main(["export", f"oci:{tmp_path}/b", f"oci:{tmp_path}/e", *store]) == 0
    with Spool() as spool:
        image = open_image(parse_reference(f"oci:{tmp_path}/e"), spool)
        assert len(image.layers) == 1
        config = image.config
    expected = {name: value for name, value in settings.items() if name != "Labels"}
    if "Labels" in settings:
        expected["Labels"] = {"mine": "1"}
    assert config["config"] == expected
    assert [step["created_by"] for step in config["history"]][:2] == ["one", "two"]
    assert [step.get("empty_layer", False) for step in config["history"]] == [True, True, False]
    assert (config["created"], config["author"]) == ("2020-01-01T00:00:00Z", "somebody")
    assert "container_config" not in config


def test_export_says_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s.tar").write_bytes(docker_archive(LAYER))
    store = ("--store", str(tmp_path / "store"))
    main(["convert", f"docker-archive:{tmp_path}/s.tar", f"oci:{tmp_path}/b", *store])
    capsys.readouterr()
    target = f"docker-archive:{tmp_path}/e"
    assert main(["export", f"oci:{tmp_path}/b", target, *store, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["reference"] == target and said["digest"].startswith("sha256:")
    # An archive is not overwritten, and the refusal comes before the work.
    assert main(["export", f"oci:{tmp_path}/b", target, *store]) == 2
    # A source image is none that could be exported.
    assert main(["export", f"docker-archive:{tmp_path}/s.tar", f"oci:{tmp_path}/x", *store]) == 2


def test_an_export_that_fails_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s.tar").write_bytes(docker_archive(LAYER))
    store = ("--store", str(tmp_path / "store"))
    main(["convert", f"docker-archive:{tmp_path}/s.tar", f"oci:{tmp_path}/b", *store])
    pack = next((tmp_path / "store" / "packs").glob("*/*"))
    good = pack.read_bytes()
    pack.write_bytes(good[:16] + bytes([good[16] ^ 1]) + good[17:])
    assert main(["export", f"oci:{tmp_path}/b", f"oci:{tmp_path}/e", *store]) == 11
    pack.unlink()
    assert main(["export", f"oci:{tmp_path}/b", f"oci:{tmp_path}/e", *store]) == 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "s.tar", "store"]
    assert "bootfs: " in capsys.readouterr().err
