"""The system calls that `os` of Python 3.11 lacks, under the names of the manual's section 2.

Through `_ctypes`, the C half of `ctypes`: the Python half costs 3-4 ms of imports
at every container start, and all it would add is argument types for eight calls.
Integers are passed as C ints, bytes as pointers to them, None as NULL.
"""

from __future__ import annotations

import _ctypes
import os

# linux/mount.h
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_MOVE = 8192
MS_PRIVATE = 1 << 18
MS_RELATIME = 1 << 21
MNT_DETACH = 2

# linux/sched.h
CLONE_FILES = 0x00000400
CLONE_NEWNS = 0x00020000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

# linux/prctl.h
PR_GET_DUMPABLE = 3
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_SET_SECCOMP = 22
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_LOWER = 3

_FUNCFLAG_CDECL = 1
_FUNCFLAG_PYTHONAPI = 4
_FUNCFLAG_USE_ERRNO = 8


class _Int(_ctypes._SimpleCData):  # type: ignore[type-arg]  # generic in stubs alone
    _type_ = "i"


class _Char(_ctypes._SimpleCData):  # type: ignore[type-arg]  # generic in stubs alone
    _type_ = "c"


class _Long(_ctypes._SimpleCData):  # type: ignore[type-arg]  # generic in stubs alone
    _type_ = "l"


class _Function(_ctypes.CFuncPtr):
    _flags_ = _FUNCFLAG_CDECL | _FUNCFLAG_USE_ERRNO
    _restype_ = _Int


class _ForkingFunction(_ctypes.CFuncPtr):
    """Does not let go of the interpreter's lock, so that a child has it too."""

    _flags_ = _FUNCFLAG_CDECL | _FUNCFLAG_PYTHONAPI | _FUNCFLAG_USE_ERRNO
    _restype_ = _Int


class _AddressFunction(_ctypes.CFuncPtr):
    _flags_ = _FUNCFLAG_CDECL | _FUNCFLAG_USE_ERRNO
    _restype_ = _Long


_process = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]  # NULL: this process


def _bind(name: str) -> Callable[..., int]:
    return _Function(_ctypes.dlsym(_process, name))


def _buffer(data: bytes) -> _ctypes.Array[_Char]:
    """Return C memory that holds ``data``, for a call that writes to it or needs its address."""
    kind = type("Buffer", (_ctypes.Array,), {"_type_": _Char, "_length_": len(data)})
    return kind.from_buffer(bytearray(data))  # type: ignore[attr-defined,no-any-return]  # made by type()


_mount = _bind("mount")
_umount2 = _bind("umount2")
_unshare = _bind("unshare")
_setns = _bind("setns")
_prctl = _bind("prctl")
_mallopt = _bind("mallopt")
_capget = _bind("capget")
_capset = _bind("capset")
_mincore = _bind("mincore")
_mmap = _AddressFunction(_ctypes.dlsym(_process, "mmap"))
_fsopen = _bind("fsopen")
_fsconfig = _bind("fsconfig")
_fsmount = _bind("fsmount")
_signalfd = _bind("signalfd")
_setfsuid = _bind("setfsuid")
_setfsgid = _bind("setfsgid")
_getrlimit = _bind("getrlimit")
_setrlimit = _bind("setrlimit")


def _check(result: int, what: str) -> int:
    if result == -1:
        number = _ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def mount(
    source: bytes | None, target: bytes, kind: bytes | None, flags: int, data: bytes = b""
) -> None:
    """Mount something or change a mount; the error's ``filename`` is the target."""
    _check(_mount(source, target, kind, flags, data or None), os.fsdecode(target))


def unmount(target: bytes, flags: int) -> None:
    """Take a mount away."""
    _check(_umount2(target, flags), os.fsdecode(target))


class Residency:
    """Which pages of a file the kernel has; asking makes nobody read them (mincore(2))."""

    __slots__ = ("_address",)

    def __init__(self, fd: int, size: int) -> None:
        """Map the file, for as long as this process lives.

        Raises:
            OSError: it cannot be mapped.

        """
        arguments = (_Long(0), _Long(size), _PROT_READ, _MAP_SHARED, fd, _Long(0))
        self._address = _check(_mmap(*arguments), "mmap")

    def missing(self, offset: int, size: int) -> int:
        """Return how many of the ``size`` bytes from ``offset``, whole pages, are not there."""
        pages = -(-size // _PAGE)
        found = _buffer(bytes(pages))
        _check(_mincore(_Long(self._address + offset), _Long(size), found), "mincore")
        return (pages - bytes(found).count(1)) * _PAGE


_PAGE = 4096
_PROT_READ, _MAP_SHARED = 1, 1


def open_file_system(kind: bytes) -> int:
    """Return a descriptor of the root of a new mount of ``kind`` that is attached nowhere.

    The caller closes it, and with it goes the mount (fsopen(2), fsmount(2)).
    """
    context = _check(_fsopen(kind, 0), "fsopen")
    try:
        _check(_fsconfig(context, _FSCONFIG_CMD_CREATE, None, None, 0), "fsconfig")
        return _check(_fsmount(context, 0, 0), "fsmount")
    finally:
        os.close(context)


_FSCONFIG_CMD_CREATE = 6
"""linux/mount.h."""


def unshare(flags: int) -> None:
    """Leave the namespaces of ``flags`` for new ones."""
    _check(_unshare(flags), "unshare")


def setns(fd: int, kind: int) -> None:
    """Enter the namespace behind ``fd``."""
    _check(_setns(fd, kind), "setns")


def prctl(operation: int, first: int | bytes = 0, second: int | bytes | None = None) -> int:
    """Do one operation on this process, the arguments after the second zero."""
    return _check(_prctl(operation, first, second, 0, 0), f"prctl {operation}")


def keep_freed_memory(size: int) -> None:
    """Let malloc keep up to ``size`` freed bytes, and take none from the kernel block by block.

    By default glibc maps each buffer of 128 KiB or more anew, and gives the heap's end
    back when that much is free: a process that makes and drops chunks all the time
    spends more on page faults than on the chunks (mallopt(3)).
    """
    for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
        _mallopt(option, size)
    # Other threads would take theirs from heaps of their own, to which this does not apply.
    _mallopt(_M_ARENA_MAX, 1)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_CAP_HEADER = b"\x22\x05\x08\x20\0\0\0\0"
"""_LINUX_CAPABILITY_VERSION_3 and pid 0, the caller (linux/capability.h)."""


def drop_capability(number: int) -> None:
    """Remove a capability for good: ambient, bounding, effective, permitted, inheritable."""
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_LOWER, number)
    prctl(PR_CAPBSET_DROP, number)
    # Two struct __user_cap_data_struct {effective, permitted, inheritable}, 12 bytes each.
    sets = _buffer(bytes(24))
    _check(_capget(_CAP_HEADER, sets), "capget")
    changed = bytearray(sets)
    word, bit = divmod(number, 32)
    for field in range(3):
        changed[word * 12 + field * 4 + bit // 8] &= ~(1 << bit % 8)
    _check(_capset(_CAP_HEADER, bytes(changed)), "capset")


def has_capability(number: int) -> bool:
    """Whether a capability is in effect."""
    sets = _buffer(bytes(24))
    _check(_capget(_CAP_HEADER, sets), "capget")
    word, bit = divmod(number, 32)
    return bool(bytes(sets)[word * 12 + bit // 8] >> bit % 8 & 1)


def install_seccomp(program: bytes) -> None:
    """Install a seccomp filter: struct sock_filter[], 8 bytes each, in host byte order."""
    filters = _buffer(program)
    # struct sock_fprog {unsigned short len; struct sock_filter *filter;} on 64 bits
    fprog = (len(program) // 8).to_bytes(8, "little")
    fprog += _ctypes.addressof(filters).to_bytes(8, "little")
    prctl(PR_SET_SECCOMP, 2, fprog)


def open_signals(number: int) -> int:
    """Return a descriptor from which signals ``number`` are read, which is blocked.

    The caller closes it (signalfd(2)).
    """
    mask = (1 << number - 1).to_bytes(128, "little")
    return _check(_signalfd(-1, mask, os.O_CLOEXEC), "signalfd")


def act_on_files_as(uid: int) -> None:
    """Be ``uid`` to file systems, this thread alone (setfsuid(2)); 0 is back to normal."""
    _setfsuid(uid)


def set_real_uid(uid: int) -> None:
    """Set the real user id of this thread alone, as `os.setresuid` would of all (setresuid(2))."""
    _check(_syscall(_SYS_SETRESUID, uid, -1, -1), "setresuid")


def act_on_files_as_group(gid: int) -> None:
    """Be group ``gid`` to file systems, this thread alone (setfsgid(2)); 0 is back to normal."""
    _setfsgid(gid)


def open_files_limit() -> tuple[int, int]:
    """Return soft and hard limit of open files (getrlimit(2))."""
    limits = _buffer(bytes(16))
    _check(_getrlimit(_RLIMIT_NOFILE, limits), "getrlimit")
    data = bytes(limits)
    return int.from_bytes(data[:8], "little"), int.from_bytes(data[8:], "little")


def limit_open_files(soft: int, hard: int) -> None:
    """Set the limits of open files."""
    data = soft.to_bytes(8, "little") + hard.to_bytes(8, "little")
    _check(_setrlimit(_RLIMIT_NOFILE, data), "setrlimit")


_RLIMIT_NOFILE = 7
"""asm-generic/resource.h."""


def fork_sharing_files() -> int:
    """Fork a process with the very same table of open files; return 0 in it, else its pid.

    It may do next to nothing: threads are not told, and what other threads held stays held.
    """
    return _check(_syscall(_SYS_CLONE, CLONE_FILES | _SIGCHLD, None, None, None, None), "clone")


_syscall = _ForkingFunction(_ctypes.dlsym(_process, "syscall"))
_SYS_CLONE, _SYS_SETRESUID = 56, 117
"""x86-64."""
_SIGCHLD = 17

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
