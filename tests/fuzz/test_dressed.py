"""Damage, dressed so that it gets past digests: what a fuzzer does, without one and briefly."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.corpus import iter_corpus
from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS
from tests.support.damage import damaged

EXAMPLES = 40
"""For each target; the fuzzer of `python -m tests.fuzz` does thousands a second."""


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=EXAMPLES)
@given(st.data())
def test_what_is_damaged_and_dressed_is_refused_or_keeps_every_promise(
    name: str, data: st.DataObject
) -> None:
    target = TARGETS[name]
    inputs = [found for _, found in iter_corpus(target)]
    found = data.draw(damaged(data.draw(st.sampled_from(inputs))))
    random = Random(data.draw(st.integers(0, 1 << 32)))
    if random.random() < 0.5:
        found = target.edit(found, random)
    target.check(target.dress(found, random))


@pytest.mark.parametrize(
    ("name", "at"),
    [
        ("pack", -100),  # in the table
        ("chunk-index", -5),
        ("boot-config", -1),
        ("bootstrap", 1024 + 48),  # in the UUID, which the checksum of the first block covers
        ("tar", 1),  # in the first name
    ],
)
def test_dressing_gets_past_digests_and_sums(name: str, at: int) -> None:
    target = TARGETS[name]
    changed = bytearray(next(found for found in seeds()[name] if target.check(found)))
    changed[at] ^= 1
    assert not target.check(bytes(changed))
    # Each part of a dresser is left out now and then.
    assert any(target.check(target.dress(bytes(changed), Random(seed))) for seed in range(20))


@pytest.mark.parametrize("name", ["profiles", "chunk-index"])
def test_dressing_outlives_a_frame_that_claims_any_size(name: str) -> None:
    target = TARGETS[name]
    head = next(found for found in seeds()[name] if target.check(found))[:96]
    # A single segment of 2^61 bytes, and an empty last block.
    frame = b"\x28\xb5\x2f\xfd\xe0" + (1 << 61).to_bytes(8, "little") + b"\x01\x00\x00"
    start = 80 if name == "profiles" else 96
    assert all(target.dress(head[:start] + frame, Random(seed)) for seed in range(4))
