"""Build what system tests build first of all, beside other work: `python -m tests.ahead`.

Nothing depends on it: a test that finds no such image builds it, which takes it minutes.  What
cannot be built here is said, and left to the test.
"""

from __future__ import annotations

import sys

from bench.images import IMAGES, build_image
from tests.support.engine import EngineError
from tests.support.mkimage import build_mkimage

BENCH_IMAGES = ("deb", "node", "gcc", "pg", "py")
"""Those that tests start."""
MKIMAGE = "bootfs-ahead/mkimage"
"""A name that keeps the layers: the test's own build of it finds them."""


def main() -> int:
    """Build them all; give 1 where one could not be."""
    code = 0
    for name in BENCH_IMAGES:
        try:
            build_image(IMAGES[name])
        except SystemExit as error:
            print(f"ahead: {error}", file=sys.stderr)
            code = 1
    try:
        build_mkimage(MKIMAGE)
    except EngineError as error:
        print(f"ahead: {error}", file=sys.stderr)
        code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
