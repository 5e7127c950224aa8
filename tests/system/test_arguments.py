"""Arguments arrive as under plain `docker run`: very many of them, and what is no UTF-8."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.engine import docker
from tests.support.layers import config_of, docker_archive, file, tar_of
from tests.support.require import require

if TYPE_CHECKING:
    from tests.support.converted import Conversions, Converted
    from tests.support.engine import Engine

pytestmark = pytest.mark.system

MODES = ("erofs", "lease")
SHOW = """
#include <stdio.h>
int main(int count, char **words) {
    for (int i = 0; i < count; i++, puts(""))
        for (unsigned char *at = (void *)words[i]; *at; at++) printf("%02x", *at);
}
"""
"""Prints each of its arguments in hexadecimal, on a line."""
ODD = ("", " ", "two words", "--", "-", "$HOME", "`id`", "'\"\\", "line\nbreak", "é", "\U0001f600")
MANY = [*ODD, *(f"argument {number}" for number in range(1000 - len(ODD) - 1)), "x" * 100_000]


@pytest.fixture(scope="module")
def show(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Give the layer of an image that has one program, which shows its arguments."""
    require("gcc")
    directory = tmp_path_factory.mktemp("show")
    (directory / "show.c").write_text(SHOW)
    command = ["gcc", "-static", "-s", "-o", "show", "show.c"]
    subprocess.run(command, check=True, cwd=directory)
    return tar_of(file("show", (directory / "show").read_bytes(), mode=0o755))


def image_of(
    engine: Engine, conversions: Conversions, directory: Path, layer: bytes, entrypoint: bytes
) -> Converted:
    """Give an image whose ENTRYPOINT is this JSON, loaded into the engine and converted."""
    name = engine.image_name()
    config = json.dumps(config_of([layer], config={"Entrypoint": ["here"]})).encode()
    assert config.count(b'["here"]') == 1
    config = config.replace(b'["here"]', entrypoint)
    (directory / "image.tar").write_bytes(docker_archive(layer, tags=[name], config=config))
    docker("load", "-i", str(directory / "image.tar"))
    return conversions.convert(name)


def shown(words: list[str]) -> list[str]:
    """Give what the program prints."""
    return [os.fsencode(word).hex() for word in words]


def test_an_entrypoint_of_1000_arguments(
    engine: Engine, conversions: Conversions, tmp_path: Path, show: bytes
) -> None:
    entrypoint = ["/show", *MANY]
    image = image_of(engine, conversions, tmp_path, show, json.dumps(entrypoint).encode())
    given = [f"given {number}" for number in range(1000)]
    plain = image.run_source(engine, *given)
    assert plain.stdout.splitlines() == shown([*entrypoint, *given])
    for mode in MODES:
        done = dataclasses.replace(image, mode=mode).run(engine, *given)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == plain.stdout


@pytest.mark.parametrize(
    "word",
    [b"a\xffz", b"\xe2\x82", b"a\xed\xb3\xbfz", rb"a\udcffz", rb"a\ud800z", rb"\ud83d\ude00"],
    ids=["byte", "cut off", "surrogate", "escaped byte", "half a pair", "pair"],
)
def test_an_entrypoint_that_is_not_utf8(
    engine: Engine, conversions: Conversions, tmp_path: Path, show: bytes, word: bytes
) -> None:
    """Docker cannot have one: `docker build` wants UTF-8, and so does JSON.

    Where a config has other bytes all the same, Docker puts U+FFFD in their place, and so
    it does on its command line.
    """
    entrypoint = b'["/show", "' + word + b'"]'
    image = image_of(engine, conversions, tmp_path, show, entrypoint)
    given = os.fsdecode(b"given \xff\xe2\x82")
    plain = image.run_source(engine, given)
    expected = "\U0001f600" if b"de00" in word else "\N{REPLACEMENT CHARACTER}"
    assert expected.encode().hex() in plain.stdout.splitlines()[1]
    assert plain.stdout.splitlines()[2] == "given \ufffd\ufffd\ufffd".encode().hex()
    for mode in MODES:
        done = dataclasses.replace(image, mode=mode).run(engine, given)
        assert (done.returncode, done.stdout, done.stderr) == (0, plain.stdout, "")
