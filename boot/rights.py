"""Capabilities that a boot takes: doing without some, and naming those that are missing."""

from __future__ import annotations

import os
import stat
from errno import EPERM

from boot.syscalls import (
    PR_GET_DUMPABLE,
    PR_SET_DUMPABLE,
    act_on_files_as_group,
    has_capability,
    prctl,
)

CAP_DAC_OVERRIDE, CAP_SETGID, CAP_SETUID, CAP_SETPCAP = 1, 6, 7, 8
CAP_SYS_CHROOT, CAP_SYS_ADMIN = 18, 21
FILES = frozenset({0, CAP_DAC_OVERRIDE, 3, 4, 27, 31})
"""What making files may take that are not just root's and plain."""
_NAMES = {
    0: "CHOWN",
    CAP_DAC_OVERRIDE: "DAC_OVERRIDE",
    3: "FOWNER",
    4: "FSETID",
    CAP_SETGID: "SETGID",
    CAP_SETUID: "SETUID",
    CAP_SETPCAP: "SETPCAP",
    CAP_SYS_CHROOT: "SYS_CHROOT",
    CAP_SYS_ADMIN: "SYS_ADMIN",
    27: "MKNOD",
    31: "SETFCAP",
}
"""SYS_ADMIN alone is not among what Docker gives without being asked."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def missing(numbers: Iterable[int]) -> list[int]:
    """Return those capabilities of ``numbers`` that are not in effect, in order."""
    return [number for number in sorted(numbers) if not has_capability(number)]


def options(numbers: Iterable[int]) -> str:
    """Return the options of ``docker run`` that give the capabilities ``numbers``."""
    return " ".join(f"--cap-add {_NAMES[number]}" for number in numbers)


def set_mode(path: bytes | int, mode: int, gid: int) -> None:
    """Give a path or descriptor, which is group ``gid``'s, its mode.

    Raises:
        OSError: it cannot be given.

    """
    os.chmod(path, mode)
    if not mode & stat.S_ISGID or os.stat(path).st_mode & stat.S_ISGID:
        return
    # Without CAP_FSETID the kernel leaves this bit out and says nothing, but for the group.
    was_dumpable = prctl(PR_GET_DUMPABLE) == 1
    act_on_files_as_group(gid)
    try:
        os.chmod(path, mode)
    finally:
        act_on_files_as_group(0)
        if was_dumpable:
            # It goes with any change of ids, and with it what the init may see of its child.
            prctl(PR_SET_DUMPABLE, 1)
    if not os.stat(path).st_mode & stat.S_ISGID:
        raise PermissionError(EPERM, os.strerror(EPERM), path)
