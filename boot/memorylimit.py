"""What a container may use of memory."""

from __future__ import annotations

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Of cgroup v2 and v1, as a container sees its own."""


def memory_limit() -> int:
    """Return the bytes that the container may use; a number beyond all machines' without limit."""
    for path in _LIMITS:
        try:
            with open(path, "rb", buffering=0) as file:
                value = (file.readall() or b"").strip()
        except OSError:
            continue
        return int(value) if value.isdigit() else 1 << 62
    return 1 << 62
