"""The corpus through every target, without a fuzzer: what was found once stays found."""

from __future__ import annotations

import pytest

from tests.fuzz.corpus import CORPUS, iter_corpus
from tests.fuzz.registry import Check, Target, as_it_is
from tests.fuzz.replay import TooMuch, replay
from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS

SIZE_LIMIT = 1_500_000
"""Of the whole corpus, in bytes: it is in every clone."""


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> Target:
    return TARGETS[request.param]


def test_every_input_keeps_every_promise(target: Target) -> None:
    outcomes = set()
    for name, data in iter_corpus(target):
        try:
            outcomes.add(replay(target, data))
        except BaseException as error:
            error.add_note(f"tests/fuzz/corpus/{target.name}/{name}")
            raise
    # Of both kinds: a corpus that is only refused tests a digest and nothing behind it.
    assert outcomes == {True, False}


def test_what_fuzzing_begins_with_is_well_formed(target: Target) -> None:
    assert any(target.check(data) for data in seeds()[target.name])


def test_the_corpus_is_small_and_has_no_other_files() -> None:
    places = {place.name for place in CORPUS.iterdir()}
    assert places == set(TARGETS) == set(seeds())
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < SIZE_LIMIT


def take_time(data: bytes) -> bool:
    while True:
        len(data)


def take_memory(data: bytes) -> bool:
    return bool(bytearray(1 << 20))


@pytest.mark.parametrize("check", [take_time, take_memory])
def test_time_and_memory_are_bounded(check: Check) -> None:
    bounded = Target("t", check, as_it_is, as_it_is, (), 9, memory=1 << 16, steps=1000)
    with pytest.raises(TooMuch):
        replay(bounded, b"input")
