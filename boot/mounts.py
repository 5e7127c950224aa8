"""Reading /proc/self/mountinfo (proc(5)), and mounting again what it shows."""

from __future__ import annotations

from boot.syscalls import (
    MS_BIND,
    MS_NOATIME,
    MS_NODEV,
    MS_NODIRATIME,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_RELATIME,
    MS_REMOUNT,
    mount,
)

_FLAGS = {
    b"ro": MS_RDONLY,
    b"nosuid": MS_NOSUID,
    b"nodev": MS_NODEV,
    b"noexec": MS_NOEXEC,
    b"noatime": MS_NOATIME,
    b"nodiratime": MS_NODIRATIME,
    b"relatime": MS_RELATIME,
}


class Mount:
    """One line of mountinfo; paths are unescaped bytes."""

    __slots__ = (
        "device",
        "kind",
        "number",
        "options",
        "parent",
        "root",
        "source",
        "super_options",
        "target",
    )

    def __init__(self, line: bytes) -> None:
        fields, _, rest = line.partition(b" - ")
        words = fields.split(b" ")
        self.number = int(words[0])
        self.parent = int(words[1])
        self.device = words[2]
        """Major and minor number, as ``0:45``."""
        self.root = unescaped(words[3])
        self.target = unescaped(words[4])
        self.options = words[5].split(b",")
        self.kind, self.source, self.super_options = rest.split(b" ", 2)

    @property
    def flags(self) -> int:
        """The per-mount options as mount(2) flags."""
        flags = 0
        for option in self.options:
            flags |= _FLAGS.get(option, 0)
        return flags


def unescaped(field: bytes) -> bytes:
    r"""Return a mountinfo path with ``\040`` and its like as the bytes they stand for."""
    if b"\\" not in field:
        return field
    parts = field.split(b"\\")
    return parts[0] + b"".join(bytes([int(p[:3], 8)]) + p[3:] for p in parts[1:])


def parse_mounts(text: bytes) -> list[Mount]:
    """Return the mounts that a mountinfo lists, in its order."""
    # The kernel escapes newlines in names, and no other byte that splitlines() takes for one.
    return [Mount(line) for line in text.split(b"\n") if line]


def read_mounts() -> list[Mount]:
    """Return the mounts of this process, in the kernel's order."""
    with open("/proc/self/mountinfo", "rb", buffering=0) as file:
        return parse_mounts(file.readall() or b"")


def are_podmans(mounts: list[Mount]) -> bool:
    """Whether Podman has started this container."""
    return any(m.target == b"/run/.containerenv" for m in mounts)


def top_level(mounts: list[Mount]) -> list[Mount]:
    """Return what is mounted directly on the root mount, the topmost one where several are."""
    roots = [m for m in mounts if m.target == b"/"]
    last = roots[-1].number
    return [m for m in mounts if m.parent == last and m.target != b"/"]


def remake_proc(old: list[Mount]) -> None:
    """Protect a fresh /proc as the engine protected the one in ``old``.

    The engine's own choice is repeated, whatever it was: paths bound read-only on
    themselves, directories hidden under an empty tmpfs, files under /dev/null.
    """
    for entry in old:
        if not entry.target.startswith(b"/proc/"):
            continue
        try:
            if entry.kind == b"proc":
                mount(entry.target, entry.target, None, MS_BIND, b"")
                flags = entry.flags | MS_REMOUNT | MS_BIND
                mount(None, entry.target, None, flags, b"")
            elif entry.root == b"/null":
                mount(b"/dev/null", entry.target, None, MS_BIND, b"")
            elif entry.kind == b"tmpfs":
                mount(b"tmpfs", entry.target, b"tmpfs", entry.flags, b"")
        except FileNotFoundError:
            # The kernel shows some paths to the initial PID namespace alone.
            continue
