"""Merged layers are what a naive model makes of them: flat dictionaries, path by path."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from converter.images.view import LayerSource
from converter.layers import merge_layers
from converter.spool import Spool
from converter.tree import Node
from tests.support.layers import (
    Member,
    digest,
    directory,
    file,
    hardlink,
    opaque,
    symlink,
    tar_of,
    whiteout,
)

Path = tuple[str, ...]
Operation = tuple[str, Path, int]
Model = dict[Path, tuple[Any, ...]]

NAMES = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(tuple)
KINDS = st.sampled_from(["file", "file", "dir", "dir", "symlink", "hardlink", "whiteout", "opaque"])
LAYERS = st.lists(
    st.lists(st.tuples(KINDS, PATHS, st.integers(0, 0o777)), max_size=10), min_size=1, max_size=4
)


def below(model: Model, path: Path) -> list[Path]:
    return [other for other in model if len(other) > len(path) and other[: len(path)] == path]


def remove(model: Model, path: Path) -> None:
    for other in [*below(model, path), path]:
        model.pop(other, None)


def unpack(operations: list[Operation]) -> tuple[list[Member], Model]:
    """Return the members of a layer, without what no engine unpacks, and what it unpacks to."""
    members: list[Member] = []
    layer: Model = {}
    for number, (kind, path, mode) in enumerate(operations):
        name = "/".join(path)
        parents = [path[:size] for size in range(1, len(path))]
        if kind == "opaque":
            parents.append(path)
        if any(parent in layer and layer[parent][0] not in ("dir", "opaque") for parent in parents):
            continue
        files = sorted(other for other, value in layer.items() if value[0] == "file")
        if (kind == "hardlink" and not [other for other in files if other != path]) or (
            kind == "whiteout" and path in layer
        ):
            continue
        for parent in parents:
            layer.setdefault(parent, ("dir", 0o755))
        if kind == "file":
            data = b"%d" % number
            members.append(file(name, data, mode=mode))
            remove(layer, path)
            layer[path] = ("file", [mode, data])
        elif kind == "dir":
            members.append(directory(name, mode=mode))
            old = layer.get(path)
            if old is None or old[0] not in ("dir", "opaque"):
                remove(layer, path)
                layer[path] = ("dir", mode)
            else:
                layer[path] = (old[0], mode)
        elif kind == "symlink":
            members.append(symlink(name, f"to-{number}"))
            remove(layer, path)
            layer[path] = ("symlink", f"to-{number}".encode())
        elif kind == "hardlink":
            target = next(other for other in files if other != path)
            if target[: len(path)] == path:
                continue
            members.append(hardlink(name, "/".join(target), mode=mode))
            remove(layer, path)
            layer[path] = layer[target]
            layer[target][1][0] = mode
        elif kind == "whiteout":
            members.append(whiteout(name))
            layer[path] = ("whiteout",)
        else:
            members.append(opaque(name))
            layer[path] = ("opaque", layer[path][1])
    return members, layer


def lay_over(lower: Model, layer: Model) -> None:
    for path in sorted(layer, key=len):
        value = layer[path]
        if value[0] in ("dir", "opaque"):
            if value[0] == "opaque" or lower.get(path, ("none",))[0] != "dir":
                remove(lower, path)
            lower[path] = ("dir", value[1])
        else:
            remove(lower, path)
            if value[0] != "whiteout":
                lower[path] = value


def flat(root: Node) -> Model:
    out: Model = {}
    stack: list[tuple[Path, Node]] = [((), root)]
    while stack:
        path, node = stack.pop()
        for name, child in node.children.items():
            where = (*path, name.decode())
            if child.is_directory:
                out[where] = ("dir", child.mode & 0o7777)
                stack.append((where, child))
            elif child.is_symlink:
                out[where] = ("symlink", child.target)
            else:
                data = child.content.pread(0, child.content.size)
                out[where] = ("file", [child.mode & 0o7777, data])
    return out


@settings(max_examples=300)
@given(LAYERS)
def test_merged_tree_is_the_models(layers: list[list[Operation]]) -> None:
    expected: Model = {}
    tars = []
    for operations in layers:
        members, layer = unpack(operations)
        tars.append(tar_of(*members))
        lay_over(expected, layer)
    with Spool() as spool:
        sources = [LayerSource(digest(tar), "", "", spool.store("tar", tar)) for tar in tars]
        assert flat(merge_layers(sources, spool)) == expected
