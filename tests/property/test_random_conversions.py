"""Random trees converted and compared, by `bootfs check` and by a dump of the tests' own."""

import json
from pathlib import Path
from random import Random

import pytest

from converter.bootview import read_boot_image
from converter.cli import main
from converter.images.transports import open_image
from converter.reference import parse_reference
from converter.spool import Spool
from store.read.local import DirectorySource
from tests.support.dump import compare, dump_image, dump_tree
from tests.support.layers import docker_archive
from tests.support.trees import random_tree
from tests.support.treetar import tar_of_tree, without_what_tars_lack

TREES = 50


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a directory for all conversions: the store fills up, the layout shares the runtime."""
    return tmp_path_factory.mktemp("conversions")


@pytest.mark.parametrize("seed", range(TREES))
def test_a_random_tree_is_converted_without_a_difference(
    seed: int, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = without_what_tars_lack(random_tree(Random(seed)))
    archive = place / f"{seed}.tar"
    archive.write_bytes(docker_archive(tar_of_tree(tree)))
    source, destination = f"docker-archive:{archive}", f"oci:{place}/layout:t{seed}"
    store = str(place / "store")
    assert main(["convert", source, destination, "--store", store, "--level", "1"]) == 0
    capsys.readouterr()
    assert main(["check", source, destination, "--store", store, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    expected = dump_tree(tree)
    assert report == {"entries": len(expected), "differences": []}

    with Spool() as spool:
        view = read_boot_image(open_image(parse_reference(destination), spool), spool)
        source_of_chunks = DirectorySource(store)
        reader = view.open_reader(source_of_chunks)
        image = view.open_tree(reader)
        found = dump_image(image, lambda at, size: b"".join(reader.read(at, size)))
        reader.close()
        source_of_chunks.close()
    # Of the root itself, engines take nothing from a layer (and `check` has compared it).
    del expected[b""], found[b""]
    assert compare(expected, found) == []
    archive.unlink()
