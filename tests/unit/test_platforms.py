"""Which image of an index is meant."""

from __future__ import annotations

import pytest

from converter.platforms import (
    ALL,
    Platform,
    check_stated,
    choose_entry,
    parse_platform,
    platform_of_machine,
)
from store.errors import ImageNotFound, UsageError


def stated(*texts: str) -> list[dict[str, object]]:
    names = ("os", "architecture", "variant")
    return [dict(zip(names, text.split("/"), strict=False)) for text in texts]


@pytest.mark.parametrize("text", ["linux/amd64", "linux/arm64/v8", "all"])
def test_a_platform_is_what_the_user_wrote(text: str) -> None:
    assert str(parse_platform(text)) == text


@pytest.mark.parametrize(
    "text", ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux/amd 64", "ALL"]
)
def test_what_is_no_platform(text: str) -> None:
    with pytest.raises(UsageError, match="linux/amd64"):
        parse_platform(text)


def test_without_a_wish_it_is_the_machines() -> None:
    mine = platform_of_machine()
    assert mine.system == "linux"
    assert choose_entry(stated("linux/mips0", str(mine), "windows/amd64"), None, "x") == 1


@pytest.mark.parametrize(
    ("wanted", "place"),
    [("linux/arm", 1), ("linux/arm/v7", 2), ("linux/arm/v5", 1), ("windows/amd64", 0)],
)
def test_the_first_that_fits(wanted: str, place: int) -> None:
    index = stated("windows/amd64", "linux/arm/v5", "linux/arm/v7")
    assert choose_entry(index, parse_platform(wanted), "x") == place


def test_what_is_not_there_is_said_with_what_is() -> None:
    index = [*stated("linux/arm/v5", "linux/s390x"), {}]
    with pytest.raises(ImageNotFound, match=r"linux/arm/v7.*linux/arm/v5, linux/s390x, one with"):
        choose_entry(index, parse_platform("linux/arm/v7"), "x")


def test_all_is_refused_where_one_would_be_left_out() -> None:
    assert choose_entry(stated("unknown/unknown", "linux/amd64"), ALL, "x") == 1
    with pytest.raises(UsageError, match=r"no runtime layer for linux/arm64/v8.*linux/amd64"):
        choose_entry(stated("linux/amd64", "linux/arm64/v8"), ALL, "x")
    for index in (stated("linux/amd64/v1", "linux/amd64/v3"), []):
        with pytest.raises(UsageError, match="one is converted at a time"):
            choose_entry(index, ALL, "x")


def test_an_image_alone_is_checked_too() -> None:
    config = {"os": "linux", "architecture": "arm64"}
    for wanted in (None, ALL, Platform("linux", "arm64")):
        check_stated(config, wanted, "x")
    with pytest.raises(ImageNotFound, match=r"x: .*linux/arm64, not for linux/amd64"):
        check_stated(config, Platform("linux", "amd64"), "x")


def test_nobody_is_offered_what_is_no_image() -> None:
    held = stated("linux/s390x", "unknown/unknown")
    with pytest.raises(ImageNotFound, match="the index has linux/s390x; choose"):
        choose_entry(held, Platform("linux", "amd64"), "x")
    with pytest.raises(ImageNotFound, match="the index has none; choose"):
        choose_entry(stated("unknown/unknown"), Platform("linux", "amd64"), "x")
