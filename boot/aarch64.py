"""The filter of `boot.seccomp` for AArch64, whose layer has this in place of that one's.

Docker lets 32-bit programs of ARM run beside those of AArch64 (moby
profiles/seccomp/default.json, archMap).
"""

from __future__ import annotations

from boot.seccomp import (
    _ALLOW,
    _AT_ARCH,
    _JUMP_EQUAL,
    _LOAD,
    _RETURN,
    REFUSED,
    _answers,
    _podman_answers,
    _step,
)

# linux/audit.h; asm-generic/unistd.h and arch/arm/tools/syscall.tbl
ARCH_AARCH64 = 0xC00000B7
ARCH_ARM = 0x40000028
CLONE_AARCH64, CLONE_ARM = 220, 120
PODMAN_REFUSED_AARCH64 = (
    18,  # lookup_dcookie
    60,  # quotactl
    161,  # sethostname
    162,  # setdomainname
    241,  # perf_event_open
    262,  # fanotify_init
    280,  # bpf
)
REFUSED_AARCH64 = (
    39,  # umount2
    40,  # mount
    97,  # unshare
    116,  # syslog
    264,  # name_to_handle_at
    268,  # setns
    *PODMAN_REFUSED_AARCH64,
    *REFUSED,
)
PODMAN_REFUSED_ARM = (
    74,  # sethostname
    121,  # setdomainname
    131,  # quotactl
    249,  # lookup_dcookie
    364,  # perf_event_open
    367,  # fanotify_init
    386,  # bpf
)
REFUSED_ARM = (
    21,  # mount
    52,  # umount2
    103,  # syslog
    337,  # unshare
    370,  # name_to_handle_at
    375,  # setns
    *PODMAN_REFUSED_ARM,
    *REFUSED,
)


def plain_docker_filter() -> bytes:
    """Return the filter program, struct sock_filter[]."""
    return _program(_answers(CLONE_AARCH64, REFUSED_AARCH64), _answers(CLONE_ARM, REFUSED_ARM))


def plain_podman_filter() -> bytes:
    """Return that of Podman's profile, which refuses less."""
    return _program(_podman_answers(PODMAN_REFUSED_AARCH64), _podman_answers(PODMAN_REFUSED_ARM))


def _program(aarch64: list[bytes], arm: list[bytes]) -> bytes:
    program = [
        _step(_LOAD, _AT_ARCH),
        _step(_JUMP_EQUAL, ARCH_AARCH64, 0, len(aarch64)),
        *aarch64,
        _step(_JUMP_EQUAL, ARCH_ARM, 0, len(arm)),
        *arm,
        # Any other the engine's own filter refuses.
        _step(_RETURN, _ALLOW),
    ]
    return b"".join(program)
