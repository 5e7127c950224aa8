from typing import Any

import pytest

from converter.bootimage import LABEL, check_source
from converter.images.view import ImageView
from converter.sourceconfig import PATH_LIMIT, architecture_of, check_config, check_platform
from store.errors import ConvertError, UsageError


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"config": None},
        {"config": {}, "created": None, "history": None},
        {"config": {"Env": None, "Volumes": None, "Labels": None, "WorkingDir": ""}},
        {"created": "0001-01-01T00:00:00Z"},
        {"created": "2024-02-29T23:59:59.123456789+05:45"},
        {"created": ""},
        {"config": {"Volumes": {"/data": {}, "relative": None}, "ExposedPorts": {"80/tcp": {}}}},
        {"config": {"Healthcheck": 5, "Unheard-of": [[]]}, "history": [{"empty_layer": True}]},
    ],
)
def test_what_engines_take_is_taken(config: dict[str, Any]) -> None:
    assert None not in check_config(config).values()


@pytest.mark.parametrize(
    "config",
    [
        {"config": []},
        {"config": 0},
        {"os": 1},
        {"architecture": ["amd64"]},
        {"variant": {}},
        {"created": 0},
        {"created": "yesterday"},
        {"created": "2024-02-30T00:00:00Z"},
        {"created": "2024-02-20 00:00:00Z"},
        {"created": "2024-02-20T00:00:00"},
        {"history": {}},
        {"history": ["a step"]},
        {"config": {"Env": [1]}},
        {"config": {"Env": "A=b"}},
        {"config": {"Cmd": "text"}},
        {"config": {"Entrypoint": {}}},
        {"config": {"Volumes": ["/data"]}},
        {"config": {"Volumes": {"/data": 1}}},
        {"config": {"ExposedPorts": ["80"]}},
        {"config": {"Labels": ["a"]}},
        {"config": {"Labels": {"a": 1}}},
        {"config": {"User": 0}},
        {"config": {"StopSignal": 9}},
        {"config": {"WorkingDir": "/" + "x/" * PATH_LIMIT}},
        {"config": {"WorkingDir": "/a\ud800"}},
    ],
)
def test_a_value_of_another_kind_is_refused_by_name(config: dict[str, Any]) -> None:
    with pytest.raises(ConvertError) as raised:
        check_config(config)
    assert "the source image" in str(raised.value) and "; " in str(raised.value)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"architecture": "s390x", "os": "linux"}, "architecture is 's390x'"),
        ({"architecture": "amd64", "os": "windows"}, "os is 'windows'"),
    ],
)
def test_another_platform_is_refused_with_what_to_do(config: dict[str, Any], named: str) -> None:
    with pytest.raises(ConvertError) as raised:
        check_platform(config)
    assert named in str(raised.value) and "--platform linux/amd64" in str(raised.value)


@pytest.mark.parametrize("config", [{}, {"os": "", "architecture": None}, {"os": "linux"}])
def test_no_platform_stands_for_x86_64(config: dict[str, Any]) -> None:
    check_platform(config)
    assert architecture_of(config) == "amd64"


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_what_there_is_a_runtime_layer_for(architecture: str) -> None:
    assert architecture_of({"architecture": architecture, "os": "linux"}) == architecture


def test_a_boot_image_is_refused_by_the_name_of_its_source() -> None:
    labels = {LABEL + "release": "0.1.0", LABEL + "source.reference": "docker-daemon:debian:12"}
    source = ImageView("docker-daemon:boot:1", {"config": {"Labels": labels}}, "", ())
    with pytest.raises(UsageError) as raised:
        check_source(source)
    assert "docker-daemon:boot:1 is a boot image already, made of docker-daemon:debian:12" in str(
        raised.value
    )
