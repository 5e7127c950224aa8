"""Lines of mountinfo with names in them that are the user's."""

from __future__ import annotations

import pytest

from boot.mounts import parse_mounts

LINE = b"%d 1 0:45 /root %s rw,nosuid - ext4 /dev/sda rw\n"


@pytest.mark.parametrize(
    ("written", "target"),
    [
        (rb"/a\040b\011c\012d\134e", b"/a b\tc\nd\\e"),
        # The kernel does not escape it, and for Python it ends a line.
        (b"/a\rb", b"/a\rb"),
        (b"/a\x0b\x0c\x1c\x85b", b"/a\x0b\x0c\x1c\x85b"),
        (b"/#", b"/#"),
        (b"/\xff", b"/\xff"),
    ],
)
def test_names_are_those_of_the_mounts(written: bytes, target: bytes) -> None:
    mounts = parse_mounts(LINE % (7, written) + LINE % (8, b"/next"))
    assert [(mount.number, mount.target) for mount in mounts] == [(7, target), (8, b"/next")]
    assert [mount.root for mount in mounts] == [b"/root", b"/root"]
