"""Give the workload plain Docker's answers to the calls that SYS_ADMIN had opened.

Docker's default profile allows a list of system calls only to containers with
CAP_SYS_ADMIN.  bootfs needs the capability to mount; the workload must get the
errno it would get without (moby profiles/seccomp/default.json): ENOSYS for
clone3, so that libraries fall back to clone, and EPERM for the others, even
where the kernel itself would now allow them, as unshare(CLONE_NEWUSER).
"""

from __future__ import annotations

from errno import ENOSYS, EPERM
from struct import pack

# linux/audit.h and the system call tables (arch/x86/entry/syscalls/); Docker lets programs of
# all three ABIs run.  x32 is x86-64 with another bit in the number.
ARCH_X86_64 = 0xC000003E
ARCH_I386 = 0x40000003
_X32_BIT = 0x40000000
CLONE3 = 435
CLONE_X86_64, CLONE_I386 = 56, 120
REFUSED = (
    428,  # open_tree
    429,  # move_mount
    430,  # fsopen
    431,  # fsconfig
    432,  # fsmount
    433,  # fspick
    442,  # mount_setattr
    443,  # quotactl_fd
)
REFUSED_X86_64 = (
    103,  # syslog
    165,  # mount
    166,  # umount2
    170,  # sethostname
    171,  # setdomainname
    179,  # quotactl
    212,  # lookup_dcookie
    272,  # unshare
    298,  # perf_event_open
    300,  # fanotify_init
    303,  # name_to_handle_at
    308,  # setns
    321,  # bpf
    *REFUSED,
)
REFUSED_I386 = (
    21,  # mount
    22,  # umount
    52,  # umount2
    74,  # sethostname
    103,  # syslog
    121,  # setdomainname
    131,  # quotactl
    253,  # lookup_dcookie
    310,  # unshare
    336,  # perf_event_open
    338,  # fanotify_init
    341,  # name_to_handle_at
    346,  # setns
    357,  # bpf
    *REFUSED,
)
PODMAN_REFUSED_X86_64 = (
    170,  # sethostname
    171,  # setdomainname
    179,  # quotactl
    212,  # lookup_dcookie
    298,  # perf_event_open
    300,  # fanotify_init
    321,  # bpf
)
"""Podman's own profile lets every container make namespaces and try to mount."""
PODMAN_REFUSED_I386 = (
    74,  # sethostname
    121,  # setdomainname
    131,  # quotactl
    253,  # lookup_dcookie
    336,  # perf_event_open
    338,  # fanotify_init
    357,  # bpf
)
CLONE_NAMESPACES = 0x7E020000
"""CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID, NET: the flags that plain Docker refuses."""

# linux/bpf_common.h, linux/filter.h
_LOAD, _AND, _JUMP_EQUAL, _JUMP_SET, _RETURN = 0x20, 0x54, 0x15, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
# struct seccomp_data {int nr; __u32 arch; __u64 ip; __u64 args[6];}
_AT_NUMBER, _AT_ARCH, _AT_FIRST_ARGUMENT = 0, 4, 16


def _step(code: int, value: int, true: int = 0, false: int = 0) -> bytes:
    return pack("<HBBI", code, true, false, value)


def _answers(clone: int, refused: tuple[int, ...]) -> list[bytes]:
    """Return the program for one system call table; each of its paths ends in a return."""
    count = len(refused)
    return [
        _step(_LOAD, _AT_NUMBER),
        _step(_AND, ~_X32_BIT & 0xFFFFFFFF),
        _step(_JUMP_EQUAL, CLONE3, count + 4, 0),
        *(_step(_JUMP_EQUAL, number, count - i + 4, 0) for i, number in enumerate(refused)),
        _step(_JUMP_EQUAL, clone, 0, 2),
        _step(_LOAD, _AT_FIRST_ARGUMENT),
        _step(_JUMP_SET, CLONE_NAMESPACES, 2, 0),
        _step(_RETURN, _ALLOW),
        _step(_RETURN, _ERRNO | ENOSYS),
        _step(_RETURN, _ERRNO | EPERM),
    ]


def _podman_answers(refused: tuple[int, ...]) -> list[bytes]:
    """Return the same for Podman's profile."""
    count = len(refused)
    return [
        _step(_LOAD, _AT_NUMBER),
        _step(_AND, ~_X32_BIT & 0xFFFFFFFF),
        *(_step(_JUMP_EQUAL, number, count - i, 0) for i, number in enumerate(refused)),
        _step(_RETURN, _ALLOW),
        _step(_RETURN, _ERRNO | EPERM),
    ]


def plain_docker_filter() -> bytes:
    """Return the filter program, struct sock_filter[]."""
    return _program(_answers(CLONE_X86_64, REFUSED_X86_64), _answers(CLONE_I386, REFUSED_I386))


def plain_podman_filter() -> bytes:
    """Return that of Podman's profile (containers-common, seccomp.json), which refuses less."""
    return _program(_podman_answers(PODMAN_REFUSED_X86_64), _podman_answers(PODMAN_REFUSED_I386))


def _program(x86_64: list[bytes], i386: list[bytes]) -> bytes:
    program = [
        _step(_LOAD, _AT_ARCH),
        _step(_JUMP_EQUAL, ARCH_X86_64, 0, len(x86_64)),
        *x86_64,
        _step(_JUMP_EQUAL, ARCH_I386, 0, len(i386)),
        *i386,
        # Any other the engine's own filter refuses.
        _step(_RETURN, _ALLOW),
    ]
    return b"".join(program)
