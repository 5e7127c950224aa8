"""What somebody else may do in a tree: asked of the kernel, by a process with his ids."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_PROBE = """\
import os, pickle, stat, sys
top, uid, gid, groups, paths = pickle.load(sys.stdin.buffer)
os.chroot(top)
os.chdir("/")
os.setgroups(groups)
os.setresgid(gid, gid, gid)
os.setresuid(uid, uid, uid)
answers = {}
for path in paths:
    asked = ((os.R_OK, "r"), (os.W_OK, "w"), (os.X_OK, "x"))
    answer = "".join(sign for kind, sign in asked if os.access(path or b"/", kind))
    try:
        status = os.lstat(path or b"/")
        # To ask of a device or fifo itself would be to use it.
        if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
            os.close(os.open(path or b"/", os.O_RDONLY | os.O_NOFOLLOW))
            answer += " opened"
    except OSError as error:
        answer += " " + os.strerror(error.errno)
    answers[path] = answer
pickle.dump(answers, sys.stdout.buffer)
"""


@dataclass(frozen=True)
class Identity:
    """Who asks."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


def access_of(top: str, identity: Identity, paths: Iterable[bytes]) -> dict[bytes, str]:
    """Return for each path below ``top`` what its reading, writing, running and opening gave."""
    asked = (top, identity.uid, identity.gid, identity.groups, list(paths))
    done = subprocess.run(
        [sys.executable, "-I", "-c", _PROBE],
        input=pickle.dumps(asked),
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise AssertionError(done.stderr.decode(errors="replace"))
    answers: dict[bytes, str] = pickle.loads(done.stdout)
    return answers
