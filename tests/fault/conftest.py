"""What the containers of all faults are made of."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fault.reading import Place, make_tree
from tests.support.bootedtree import convert_layers
from tests.support.certificates import Authority
from tests.support.faultlog import is_soak
from tests.support.require import require
from tests.support.treetar import tar_of_tree

if TYPE_CHECKING:
    from tests.support.converted import Conversions

LIMIT_S = 4.0
"""BOOTFS_READ_LIMIT; in a soak, its default."""
SOAK_LIMIT_S = 30.0


@pytest.fixture(scope="session")
def place(conversions: Conversions, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Give an image of files and their store's server, for containers that read them."""
    require("gcc")
    directory = tmp_path_factory.mktemp("fault")
    program = directory / "reader"
    source = Path(__file__).with_name("reader.c")
    subprocess.run(["gcc", "-O2", "-static", "-s", "-o", program, source], check=True)
    image = convert_layers(conversions, directory, tar_of_tree(make_tree()))
    trusted = Authority(directory / "trusted")
    context = directory / "context"
    context.mkdir()
    (context / "ca.crt").write_bytes(trusted.certificate.read_bytes())
    names = f"IP:{conversions.address}"
    return Place(
        image=conversions.engine.build(
            f"FROM {image.boot}\nCOPY ca.crt /.bootfs/runtime/ca-certificates.crt\n", context
        ),
        program=program,
        upstream=(conversions.address, conversions.server.port),
        address=conversions.address,
        trusted=trusted.issue(names),
        untrusted=Authority(directory / "untrusted").issue(names),
        limit_s=SOAK_LIMIT_S if is_soak() else LIMIT_S,
    )
