"""The list of a boot image's referrers by tag, which others may write at the same time."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from converter.images import joined
from converter.images.joined import JoinedImage
from store.write.artifact import Artifact
from store.write.registry.manifest import Descriptor, Manifest

SUBJECT = f"sha256:{'5' * 64}"


def artifact(digit: str) -> Artifact:
    found = SimpleNamespace(digest=f"sha256:{digit * 64}", size=7, subject=SUBJECT)
    return cast("Artifact", found)


class Tag:
    """A registry without a referrers API: a tag that is read and written whole."""

    def __init__(self, between: list[str]) -> None:
        self.held: list[str] = []
        self.between = between
        """What somebody else, who has not seen ours, writes just after us, each time once."""
        self.writes = 0

    def fetch_referrers(self, digest: str) -> list[Descriptor]:
        assert digest == SUBJECT
        return [Descriptor("a/b", held, 7) for held in self.held]

    def push_manifest(self, tag: str, manifest: Manifest) -> None:
        assert tag == SUBJECT.replace(":", "-")
        self.writes += 1
        document: dict[str, Any] = json.loads(manifest.data)
        self.held = [entry["digest"] for entry in document["manifests"]]
        if self.between:
            self.held = [self.between.pop()]


def list_ours(repository: Tag) -> None:
    image = JoinedImage.__new__(JoinedImage)
    image._backend = cast("Any", SimpleNamespace(repository=repository))
    image._list_referrer(artifact("a"))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joined, "LISTING_PAUSE_S", 0.001)


def test_an_entry_that_somebody_wrote_over_is_written_again() -> None:
    other = artifact("b").digest
    tag = Tag([other, other])
    list_ours(tag)
    assert tag.held == [other, artifact("a").digest] and tag.writes == 3


def test_what_is_listed_is_not_written_again() -> None:
    tag = Tag([])
    tag.held = [artifact("a").digest]
    list_ours(tag)
    assert tag.writes == 0


def test_a_registry_that_lists_nothing_is_not_asked_for_ever() -> None:
    tag = Tag([artifact("b").digest] * 99)
    list_ours(tag)
    assert tag.writes == joined.LISTING_TRIES
