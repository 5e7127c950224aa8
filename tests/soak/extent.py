"""How long the tests in here run: short in CI, long where `BOOTFS_SOAK=1` asks for it.

The figures of the long runs are in docs/performance.md.
"""

import os

IS_LONG = os.environ.get("BOOTFS_SOAK") == "1"
IMAGE_SIZE = 1 << 30 if IS_LONG else 48 << 20
"""Bytes of the one file of the image that is read."""
