"""Which images of an index are meant."""

from __future__ import annotations

import pytest

from converter.platforms import (
    ALL,
    OWN_OR_ONLY,
    Listed,
    Platform,
    check_stated,
    choose_entry,
    choose_several,
    is_same,
    parse_platform,
    parse_platforms,
    platform_of_machine,
)
from store.errors import ImageNotFound, UsageError


def stated(*texts: str) -> list[dict[str, object]]:
    names = ("os", "architecture", "variant")
    return [dict(zip(names, text.split("/"), strict=False)) for text in texts]


def listed(*texts: str) -> list[Listed]:
    """Return entries of an index, by digests that are their numbers."""
    return [
        Listed((str(place),), entry, entry["os"] != "unknown")
        for place, entry in enumerate(stated(*texts))
    ]


@pytest.mark.parametrize("text", ["linux/amd64", "linux/arm64/v8"])
def test_a_platform_is_what_the_user_wrote(text: str) -> None:
    assert str(parse_platform(text)) == text
    assert parse_platforms(text) == (parse_platform(text),)


def test_several_platforms_and_all() -> None:
    assert parse_platforms("all") == (ALL,)
    several = Platform("linux", "amd64"), Platform("linux", "arm64", "v8")
    assert parse_platforms("linux/amd64,linux/arm64/v8") == several


@pytest.mark.parametrize(
    "text", ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux/amd 64", "ALL"]
)
def test_what_is_no_platform(text: str) -> None:
    with pytest.raises(UsageError, match="linux/amd64"):
        parse_platform(text)
    for several in (text, f"linux/amd64,{text}", "linux/amd64,all"):
        with pytest.raises(UsageError, match="with commas between them; or all"):
            parse_platforms(several)


def test_one_command_takes_one() -> None:
    for text in ("all", "linux/amd64,linux/arm64"):
        with pytest.raises(UsageError, match="OS/ARCHITECTURE"):
            parse_platform(text)


def test_without_a_wish_it_is_the_machines() -> None:
    mine = platform_of_machine()
    assert mine.system == "linux"
    index = stated("linux/mips0", str(mine), "windows/amd64")
    assert choose_entry(index, None, "x") == choose_entry(index, OWN_OR_ONLY, "x") == 1


def test_of_boot_images_the_only_one_may_be_for_another_machine() -> None:
    index = stated("unknown/unknown", "linux/mips0", "unknown/unknown")
    assert choose_entry(index, OWN_OR_ONLY, "x") == 1
    for wanted, other in ((None, index), (OWN_OR_ONLY, [*index, *stated("linux/mips1")])):
        with pytest.raises(ImageNotFound):
            choose_entry(other, wanted, "x")


@pytest.mark.parametrize(
    ("wanted", "place"),
    [("linux/arm", 1), ("linux/arm/v7", 2), ("linux/arm/v5", 1), ("windows/amd64", 0)],
)
def test_the_first_that_fits(wanted: str, place: int) -> None:
    index = stated("windows/amd64", "linux/arm/v5", "linux/arm/v7")
    assert choose_entry(index, parse_platform(wanted), "x") == place


@pytest.mark.parametrize(
    ("wanted", "place"),
    [
        ("linux/amd64", 1),
        ("linux/amd64/v1", 1),
        ("linux/amd64/v2", 0),
        ("linux/arm64", 2),
        ("linux/arm64/v8", 2),
        ("linux/arm64/v9", 3),
    ],
)
def test_a_variant_that_says_nothing_more_is_as_none(wanted: str, place: int) -> None:
    """Of several variants the plain one is meant, which runs wherever the others do."""
    index = stated("linux/amd64/v2", "linux/amd64", "linux/arm64/v8", "linux/arm64/v9")
    assert choose_entry(index, parse_platform(wanted), "x") == place
    assert is_same(*stated("linux/arm64", "linux/arm64/v8"))
    assert not is_same(*stated("linux/amd64", "linux/amd64/v2"))


def test_what_is_not_there_is_said_with_what_is() -> None:
    index = [*stated("linux/arm/v5", "linux/s390x"), {}]
    with pytest.raises(ImageNotFound, match=r"linux/arm/v7.*linux/arm/v5, linux/s390x, one with"):
        choose_entry(index, parse_platform("linux/arm/v7"), "x")


def test_of_all_what_has_no_runtime_layer_is_left_out_and_named() -> None:
    index = listed("linux/s390x", "linux/arm64/v8", "unknown/unknown", "windows/amd64")
    index += [Listed(("4",), {}), *listed("linux/amd64/v3", "linux/amd64")]
    chosen, left_out = choose_several(index, (ALL,), "x")
    assert [str(one) for one in chosen] == ["linux/arm64/v8", "linux/amd64/v3", "linux/amd64"]
    assert [(one.what, one.is_image) for one in left_out] == [
        ("linux/s390x", True),
        ("unknown/unknown 2", False),
        ("windows/amd64", True),
        ("one without a platform", True),
    ]
    assert str(left_out[0]) == "linux/s390x left out: there is no runtime layer for it"


def test_of_two_for_one_platform_the_first_counts_as_for_engines() -> None:
    first, second = listed("linux/arm64", "linux/arm64/v8")
    chosen, left_out = choose_several([first, second], (ALL,), "x")
    assert chosen == [first] and [one.is_image for one in left_out] == [True]
    assert "linux/arm64/v8 1 left out: an earlier entry" in str(left_out[0])
    # Twice the same is one image.
    assert choose_several([first, first], (ALL,), "x") == ([first], [])


@pytest.mark.parametrize("index", [(), ("unknown/unknown",), ("linux/s390x", "windows/amd64")])
def test_an_index_with_nothing_for_us(index: tuple[str, ...]) -> None:
    with pytest.raises(ImageNotFound, match="no image for linux/amd64 or linux/arm64; the index"):
        choose_several(listed(*index), (ALL,), "x")


def test_several_that_are_named_are_all_there_and_others_of_no_interest() -> None:
    index = listed("linux/s390x", "linux/arm64", "unknown/unknown", "linux/amd64")
    wanted = parse_platforms("linux/amd64,linux/arm64,linux/arm64/v8")
    assert choose_several(index, wanted, "x") == ([index[1], index[3]], [])
    with pytest.raises(ImageNotFound, match=r"linux/riscv64.*linux/s390x, linux/arm64"):
        choose_several(index, parse_platforms("linux/amd64,linux/riscv64"), "x")


def test_an_image_alone_is_checked_too() -> None:
    config = {"os": "linux", "architecture": "arm64"}
    for wanted in (None, OWN_OR_ONLY, Platform("linux", "arm64"), Platform("linux", "arm64", "v9")):
        check_stated(config, wanted, "x")
    with pytest.raises(ImageNotFound, match=r"x: .*linux/arm64, not for linux/amd64"):
        check_stated(config, Platform("linux", "amd64"), "x")
    with pytest.raises(ImageNotFound, match="linux/arm/v7, not for linux/arm/v6"):
        check_stated(stated("linux/arm/v7")[0], Platform("linux", "arm", "v6"), "x")


def test_nobody_is_offered_what_is_no_image() -> None:
    held = stated("linux/s390x", "unknown/unknown")
    with pytest.raises(ImageNotFound, match="the index has linux/s390x; choose"):
        choose_entry(held, Platform("linux", "amd64"), "x")
    with pytest.raises(ImageNotFound, match="the index has none; choose"):
        choose_entry(stated("unknown/unknown"), Platform("linux", "amd64"), "x")
