"""Random trees written as a layer and read back, and images turned into boot images and back."""

import json
import stat
from pathlib import Path
from random import Random

import pytest

from converter.cli import main
from converter.images.layerfile import spool_layer
from converter.images.view import LayerSource
from converter.layers import merge_layers
from converter.layertar import iter_layer
from converter.spool import Spool
from converter.tree import Node
from tests.support.dump import compare, dump_tree
from tests.support.layers import docker_archive
from tests.support.trees import iter_tree, random_tree
from tests.support.treetar import tar_of_tree, without_what_tars_lack

TREES = 30


def without_what_layers_lack(root: Node) -> Node:
    """Take sockets and empty xattrs out of a tree; return it."""
    for _, node in list(iter_tree(root)):
        node.xattrs = {name: value for name, value in node.xattrs.items() if value}
        for name, child in list(node.children.items()):
            if child.kind == stat.S_IFSOCK:
                del node.children[name]
    return root


@pytest.mark.parametrize(("compress", "sparse"), [(True, True), (False, True), (True, False)])
@pytest.mark.parametrize("seed", range(TREES))
def test_a_tree_is_read_back_from_its_layer(seed: int, compress: bool, sparse: bool) -> None:
    huge = sparse and not compress
    tree = without_what_layers_lack(random_tree(Random(seed), huge=huge))
    expected = dump_tree(tree)
    with Spool() as spool:
        layer = spool_layer(iter_layer(tree, sparse=sparse), spool, compress=compress)
        again = spool_layer(iter_layer(tree, sparse=sparse), spool, compress=compress)
        assert (layer.diff_id, layer.digest) == (again.diff_id, again.digest)
        assert isinstance(layer.stored, Path)
        stored = spool.store("stored", layer.stored.read_bytes())
        source = LayerSource(layer.diff_id, layer.digest, layer.media_type, stored)
        found = dump_tree(merge_layers([source], spool))
    # Of the root itself, engines take nothing but its time from a layer.
    assert expected[b""].mtime_ns == found[b""].mtime_ns
    del expected[b""], found[b""]
    assert compare(expected, found) == []


@pytest.mark.parametrize("seed", range(TREES))
def test_an_image_comes_back_from_its_boot_image(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = without_what_tars_lack(random_tree(Random(seed)))
    (tmp_path / "source.tar").write_bytes(docker_archive(tar_of_tree(tree)))
    source, boot = f"docker-archive:{tmp_path}/source.tar", f"oci:{tmp_path}/boot"
    kind = ("oci", "oci-archive", "docker-archive")[seed % 3]
    exported = f"{kind}:{tmp_path}/exported"
    store = ("--store", str(tmp_path / "store"))
    assert main(["convert", source, boot, *store, "--level", "1"]) == 0
    assert main(["export", boot, exported, *store, *["--sparse"][: seed % 2]]) == 0
    capsys.readouterr()
    assert main(["check", exported, boot, *store, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == {"entries": len(dump_tree(tree)), "differences": []}
    assert main(["convert", exported, f"oci:{tmp_path}/again", *store, "--json"]) == 0
    new_chunks = json.loads(capsys.readouterr().out)["new_chunks"]
    # Zeros that stand where holes were are chunks, and may be cut with their neighbours.
    assert new_chunks == 0 or not seed % 2
    assert main(["check", source, f"oci:{tmp_path}/again", *store]) == 0
