"""How much the tests in here read: little in the gate, much in `nox -s soak`.

The figures of the long runs are in docs/performance.md.
"""

from tests.support.faultlog import is_soak

IS_LONG = is_soak()
IMAGE_SIZE = 1 << 30 if IS_LONG else 48 << 20
"""Bytes of the one file of the image that is read."""
