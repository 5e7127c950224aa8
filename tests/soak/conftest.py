"""The image whose daemon lives long."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.soak.extent import IMAGE_SIZE

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.converted import Conversions, Converted


@pytest.fixture(scope="session")
def big_file(
    conversions: Conversions, base_image: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Converted, Path]:
    """Give a converted image with a file of `IMAGE_SIZE`, and the file."""
    context = tmp_path_factory.mktemp("big")
    with (context / "big").open("wb") as file:
        for _ in range(IMAGE_SIZE >> 20):
            # Halves that can be compressed, as files are.
            file.write(os.urandom(1 << 19) + os.urandom(1 << 9) * (1 << 10))
    dockerfile = f"FROM {base_image}\nCOPY big /big\n"
    return conversions.convert(conversions.engine.build(dockerfile, context)), context / "big"
