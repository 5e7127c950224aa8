"""Each of the 256 exit codes a workload can have is the container's."""

from __future__ import annotations

import dataclasses
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from tests.support.bootedtree import convert_layers
from tests.support.engine import asking
from tests.support.layers import file, tar_of
from tests.support.require import require

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.converted import Conversions
    from tests.support.engine import Engine

pytestmark = pytest.mark.system

CODES = range(256)
TOGETHER = 8
EXIT = """
#include <fcntl.h>
#include <unistd.h>
int main(void) {
    unsigned char code = 255;
    int fd = open("/wanted/code", O_RDONLY);
    return read(fd, &code, 1) == 1 ? code : 255;
}
"""


@pytest.fixture(scope="session")
def exit_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a static program that exits with the code that it reads."""
    require("gcc")
    directory = tmp_path_factory.mktemp("exit")
    (directory / "exit.c").write_text(EXIT)
    program = directory / "exit"
    command = ["gcc", "-static", "-s", "-o", str(program), str(directory / "exit.c")]
    subprocess.run(command, check=True)
    return program


@pytest.mark.parametrize("mode", ["erofs", "lease"])
def test_every_exit_code(
    engine: Engine, conversions: Conversions, exit_program: Path, tmp_path: Path, mode: str
) -> None:
    layer = tar_of(file("exit", exit_program.read_bytes(), mode=0o755))
    image = dataclasses.replace(convert_layers(conversions, tmp_path, layer), mode=mode)
    store = ("-v", f"{conversions.directory}:/store:ro")

    def run(number: int) -> list[tuple[int, int]]:
        wanted = tmp_path / str(number)
        wanted.mkdir()
        options = image.options(*store, "-e", "BLOB_STORE=/store", "-v", f"{wanted}:/wanted")
        # A container that is there is started in half the time.
        container = engine.create(image.boot, "/exit", options=options)
        found = []
        for code in CODES[number::TOGETHER]:
            (wanted / "code").write_bytes(bytes([code]))
            with asking() as client:
                client.start(container.name)
                found.append((code, client.wait(container.name)["StatusCode"]))
        assert container.logs() == ""
        return found

    with ThreadPoolExecutor(TOGETHER) as pool:
        found = [line for lines in pool.map(run, range(TOGETHER)) for line in lines]
    assert sorted(found) == [(code, code) for code in CODES]
