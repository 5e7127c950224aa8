"""What booted containers of a session are made of, each converted once."""

from __future__ import annotations

import dataclasses
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.bootedtree import make_pause
from tests.support.require import require

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.converted import Conversions, Converted

STATIC = """
#include <stdio.h>
#include <unistd.h>
int main(void) { printf("uid %d euid %d\\n", getuid(), geteuid()); return 0; }
"""

WORKSHOP = """\
FROM debian:bookworm-slim
COPY static /usr/local/bin/static
RUN cp /usr/local/bin/static /usr/local/bin/setuid \\
 && chmod 4755 /usr/local/bin/setuid \\
 && printf '#!/bin/sh\\necho "script $0 $*"\\n' >/usr/local/bin/script \\
 && printf '#!/nowhere/sh\\n' >/usr/local/bin/orphan \\
 && printf 'echo no shebang\\n' >/usr/local/bin/bare \\
 && printf 'not a program' >/usr/local/bin/garbage \\
 && chmod 755 /usr/local/bin/script /usr/local/bin/orphan /usr/local/bin/bare \\
 && chmod 644 /usr/local/bin/garbage \\
 && useradd -u 4242 -m worker && groupadd -g 4343 others \\
 && mkdir -p /content/below && echo kept >/content/below/file && ln /content/below/file \\
    /content/link && ln -s below /content/symbolic && mkfifo /content/fifo \\
 && chown -R worker:others /content && chmod 2750 /content && chmod 1777 /content/below \\
 && touch -d '2001-02-03 04:05:06.123456789' /content/below/file \\
 && head -c 30000000 /dev/urandom >/big && sha256sum /big >/big.sum
ENV GIVEN="a value" BLOB_STORE_NOT=kept
VOLUME /content
STOPSIGNAL SIGUSR1
CMD ["echo", "from", "CMD"]
"""
"""Every program, user and path that the tests of a booted container need."""


@pytest.fixture(scope="session")
def converted_workshop(
    conversions: Conversions, base_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Converted:
    """Give the workshop, converted; `workshop` is what a test wants."""
    require("gcc")
    context = tmp_path_factory.mktemp("workshop")
    (context / "static.c").write_text(STATIC)
    command = ["gcc", "-static", "-o", str(context / "static"), str(context / "static.c")]
    subprocess.run(command, check=True)
    return conversions.convert(conversions.engine.build(WORKSHOP, context))


@pytest.fixture(params=["erofs", "fuse"])
def workshop(converted_workshop: Converted, request: pytest.FixtureRequest) -> Converted:
    """Give an image with all kinds of programs, in each mode."""
    return dataclasses.replace(converted_workshop, mode=request.param)


@pytest.fixture(scope="session")
def pause(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a static program that does nothing, for ever."""
    require("gcc")
    return make_pause(tmp_path_factory.mktemp("pause"))


@pytest.fixture
def conversions_directory(conversions: Conversions) -> Path:
    """Give the directory of the session's store."""
    return conversions.directory
