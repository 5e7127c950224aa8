"""The runtime layer as a tar archive that depends on nothing but its files."""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections.abc import Mapping

from converter.runtime import contents

TOP = ".bootfs"
_PROGRAMS = ("ld.so", "python")
_LAUNCHER_MODE = 0o4755


def encode_tar(bundle: Mapping[str, bytes], launcher: bytes) -> bytes:
    """Return the tar archive of ``/.bootfs``: sorted, owned by root, of 1970.

    ``bundle`` are files by their path below ``/.bootfs/runtime``.
    """
    members: dict[str, tuple[int, bytes | None]] = {
        f"{TOP}/{name}": (0o755, None) for name in contents.EMPTY_DIRECTORIES
    }
    members[f"{TOP}/init"] = (_LAUNCHER_MODE, launcher)
    for path, contained in bundle.items():
        mode = 0o755 if path in _PROGRAMS else 0o644
        members[f"{TOP}/{contents.RUNTIME}/{path}"] = (mode, contained)
    return encode_members(members)


def encode_members(members: Mapping[str, tuple[int, bytes | None]], time_s: int = 0) -> bytes:
    """Return a tar archive of files and of directories, which have no contents, by their path.

    The directories above them are added.  All were changed at ``time_s``.
    """
    members = dict(members)
    for path in list(members):
        while path := posixpath.dirname(path):
            members[path] = (0o755, None)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(members):
            mode, body = members[path]
            member = tarfile.TarInfo(path)
            member.mode = mode
            member.mtime = time_s
            member.type = tarfile.DIRTYPE if body is None else tarfile.REGTYPE
            member.size = len(body or b"")
            tar.addfile(member, io.BytesIO(body or b""))
    return out.getvalue()
