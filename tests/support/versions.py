"""Random images in two versions that have layers in common."""

from __future__ import annotations

from random import Random

from tests.support.layers import Member, file, hardlink, opaque, symlink, tar_of, whiteout
from tests.support.trees import random_tree
from tests.support.treetar import tar_of_tree, without_what_tars_lack

_PLACES = [f"{directory}{name}" for directory in ("", "etc/", "usr/", "usr/lib/") for name in "abc"]


def random_layer(random: Random) -> bytes:
    """Return a layer of small and large files, links and whiteouts, some of few names."""
    members: list[Member] = []
    for place in random.sample(_PLACES, random.randrange(1, 6)):
        kind = random.randrange(8)
        if kind == 0:
            members.append(whiteout(place))
        elif kind == 1:
            members.append(symlink(place, "etc/a"))
        elif (
            kind == 2 and members and members[0].info.isreg() and ".wh." not in members[0].info.name
        ):
            members.append(hardlink(place, members[0].info.name))
        elif kind == 3:
            members.append(opaque("usr/lib/"))
        else:
            size = random.choice((0, 1, 5000, 127 << 10, 400 << 10))
            members.append(file(place, random.randbytes(size), mode=0o600 + random.randrange(64)))
    return tar_of(*members)


def random_versions(random: Random) -> tuple[list[bytes], list[bytes]]:
    """Return the layers of an image and of its successor, lowest first."""
    base = tar_of_tree(without_what_tars_lack(random_tree(random, huge=False)))
    before = [base, *(random_layer(random) for _ in range(random.randrange(3)))]
    kept = before[: random.randrange(1, len(before) + 1)]
    added = [random_layer(random) for _ in range(random.randrange(1, 3))]
    # A layer may be there twice, as the engine's empty ones are.
    return before, kept + added + ([kept[-1]] if random.random() < 0.2 else [])
