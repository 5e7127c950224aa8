"""Put before boot/start.py by `bench.boot`: when the steps of a boot begin and end.

Runs in the container, ahead of everything else, and imports nothing that is not there
already.  What is timed are whole functions, wrapped when their module has been
imported, and what `_find_and_load` does, which is every import that is not a look at
`sys.modules`.  Stamps stay in memory.  A process writes them as lines to stderr when it
ends; the daemon, which is killed, when the image is mounted and all it has to do is to
answer.
"""

from __future__ import annotations

import _frozen_importlib
import posix as _posix
import sys as _sys
import time as _time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PREFIX = "bootfs-profile"
"""How each line begins; role, name, begin and end in ns of CLOCK_MONOTONIC follow."""
FIRST, FORK, IMPORTS = "first", "fork", "imports"
MOUNTED, BECOMES, EXEC = "mounted", "becomes", "exec"
"""Names of stamps that are no functions."""
STEPS = {
    "boot.config": ("read_boot_config",),
    "boot.daemon": ("open_image",),
    "boot.image": ("open_index",),
    "boot.joining": ("Joining.wait_for_image", "Joining.wait_for_parent"),
    "boot.modes.erofs": ("_mount_file", "_mount_image"),
    "boot.mounts": ("read_mounts",),
    "boot.root": ("Writable.__init__", "mount_overlay", "move_mounts", "make_directory", "enter"),
    "boot.spawn": ("Spawned.wait_until_mounted",),
    "boot.volumes": ("fill_new_volumes",),
    "store.format.chunkindex": ("parse_chunk_index",),
    "store.read.cache": ("Cache.__init__",),
    "store.read.order": ("StartOrder.__init__",),
}
"""Functions to time, by module; a dot leads into a class."""
MOUNTED_SAID = b"r"
"""What the daemon tells the init when it has mounted the image (boot/spawn.py)."""
SERVING = ("boot.daemon", "Service.read_ahead")
"""What the daemon does once it has told that the image is mounted."""
BECOMING = ("boot.workload", "become_workload")
"""What the child does last; it does not return."""

_now = _time.monotonic_ns
_first = _now()
_stamps: list[tuple[str, int, int]] = [(FIRST, _first, _first)]
_roles = ["daemon", "child"]
"""What the processes are that are still to be forked, in their order."""
_state = {"role": "init", "imports": 0, "depth": 0}


def _write() -> None:
    role = _state["role"]
    lines = [f"{PREFIX} {role} {name} {begin} {end}\n" for name, begin, end in _stamps]
    lines.append(f"{PREFIX} {role} {IMPORTS} 0 {_state['imports']}\n")
    _plain_write(2, "".join(lines).encode())


def _timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def timed(*arguments: Any, **named: Any) -> Any:
        begin = _now()
        try:
            return function(*arguments, **named)
        finally:
            _stamps.append((name, begin, _now()))

    return timed


def _wrap(module: str, path: str, wrapper: Callable[[str, Callable[..., Any]], Any]) -> None:
    owner: Any = _sys.modules[module]
    *classes, name = path.split(".")
    for one in classes:
        owner = getattr(owner, one)
    setattr(owner, name, wrapper(path, getattr(owner, name)))


def _serving(path: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def serving(*arguments: Any) -> Any:
        _write()
        return function(*arguments)

    return serving


def _becoming(path: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def becoming(*arguments: Any) -> Any:
        now = _now()
        _stamps.append((BECOMES, now, now))
        return function(*arguments)

    return becoming


def _import(name: str, importing: object) -> object:
    is_outermost = not _state["depth"]
    _state["depth"] = 1
    begin = _now()
    try:
        module = _find_and_load(name, importing)
    finally:
        if is_outermost:
            _state["depth"] = 0
            _state["imports"] += _now() - begin  # type: ignore[operator]  # this one is a number
    for path, wrapper in _left.pop(name, ()):
        _wrap(name, path, wrapper)
    return module


def _fork() -> int:
    begin = _now()
    pid = _plain_fork()
    role = _roles.pop(0) if _roles else "other"
    if pid == 0:
        _stamps.clear()
        _state["role"] = role
        _state["imports"] = 0
        _stamps.append((FORK, begin, _now()))
    return pid


def _execve(*arguments: Any) -> None:
    # Again for each place in PATH: the last one is the one.
    now = _now()
    _stamps.append((EXEC, now, now))
    _write()
    _plain_execve(*arguments)


def _tell(fd: int, data: bytes) -> int:
    if data == MOUNTED_SAID and _state["role"] == "daemon":
        # Before: who hears it may go on before this process does.
        now = _now()
        _stamps.append((MOUNTED, now, now))
        _sys.modules["os"].write = _plain_write  # type: ignore[attr-defined]  # any module
    return _plain_write(fd, data)


def _exit(code: int) -> None:
    _write()
    _plain_exit(code)


def _begin() -> None:
    _frozen_importlib._find_and_load = _import  # type: ignore[attr-defined]  # not in stubs
    _posix.fork, _posix.execve, _posix._exit = _fork, _execve, _exit  # type: ignore[assignment]  # wrapped
    _posix.write = _tell  # type: ignore[assignment]  # wrapped


_left: dict[str, list[tuple[str, Callable[[str, Callable[..., Any]], Callable[..., Any]]]]]
_left = {module: [(path, _timed) for path in paths] for module, paths in STEPS.items()}
for (_module, _path), _wrapper in ((SERVING, _serving), (BECOMING, _becoming)):
    _left.setdefault(_module, []).append((_path, _wrapper))
_find_and_load = _frozen_importlib._find_and_load  # type: ignore[attr-defined]  # not in stubs
_plain_fork, _plain_execve, _plain_exit = _posix.fork, _posix.execve, _posix._exit
_plain_write = _posix.write
if __name__ == "__main__":
    _begin()
