"""What the kernel and the dynamic loader read to start a program: ld.so(8).

Which pages of a library a start touches was measured (docs/decisions/0024-analysis.md).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping

from converter.analysis.elf import EXECUTABLE, WRITABLE, Elf, parse_elf
from converter.analysis.files import File, Files
from converter.analysis.ldcache import LIMIT as CACHE_LIMIT
from converter.analysis.ldcache import parse_ld_cache

LIBRARY_LIMIT = 1000
"""Libraries of one start."""
PROGRAM_WHOLE = 16 << 20
"""A segment of code or constants of a program is read whole, if it is no larger."""
LIBRARY_WHOLE = 3 << 19
"""The same of a library that a program is linked with."""
LATER_WHOLE = 1 << 20
"""The same of a library that is loaded while it runs."""
STUB = 64 << 10
"""A program with less code only calls the library that it needs first: that is the program."""
TABLES = 16 << 20
"""So much of symbols and of data, which the loader goes through."""
AROUND = 64 << 10
"""So much about where the code begins, of what is larger."""

_MACHINES = {62: (b"x86_64", b"x86_64-linux-gnu"), 183: (b"aarch64", b"aarch64-linux-gnu")}
_CACHE = b"/etc/ld.so.cache"
_PRELOAD = b"/etc/ld.so.preload"
_PRELOAD_LIMIT = 64 << 10


class Loader:
    """Loads programs and libraries of one tree, each once; ``environment`` is the start's."""

    def __init__(self, files: Files, environment: Mapping[bytes, bytes]) -> None:
        self._files = files
        self._environment = environment
        self._elfs: dict[int, Elf | None] = {}
        self._loaded: set[int] = set()
        self._cache: dict[bytes, bytes] | None = None

    def read_elf(self, file: File) -> Elf | None:
        """Return what an ELF file says; None where it is none."""
        nid = file.inode.nid
        if nid not in self._elfs:
            self._elfs[nid] = parse_elf(lambda at, size: self._files.read(file, at, size))
        return self._elfs[nid]

    def load_program(self, file: File, elf: Elf) -> None:
        """Note what the start of a program reads: its own pages, its loader, its libraries."""
        self._files.touch(file, 0, 4096)
        interpreter = self._files.find(elf.interpreter) if elf.interpreter else None
        if interpreter is None:
            self._touch(file, elf, PROGRAM_WHOLE)
            return
        loader = self.read_elf(interpreter)
        if loader is not None:
            self._touch(interpreter, loader, LIBRARY_WHOLE)
        has_cache = b"musl" not in interpreter.name
        self._load(file, elf, (PROGRAM_WHOLE, LIBRARY_WHOLE), has_cache=has_cache)

    def load_library(self, file: File) -> None:
        """Note what a program reads that loads one more library (``dlopen``)."""
        elf = self.read_elf(file)
        if elf is not None:
            self._load(file, elf, (LATER_WHOLE, LATER_WHOLE), has_cache=True)

    def _load(self, file: File, elf: Elf, limits: tuple[int, int], *, has_cache: bool) -> None:
        """Note a program or library and all that it needs, breadth first.

        ``limits`` says which segments are read whole, first of the program, then of the rest.
        """
        whole, later = limits
        code = sum(one.size for one in elf.segments if one.flags & EXECUTABLE)
        pending: deque[tuple[File, Elf, tuple[bytes, ...]]] = deque([(file, elf, ())])
        for name in self._preloaded() if has_cache else ():
            self._add(name, file, elf, (), pending, has_cache=has_cache)
        while pending:
            file, elf, paths = pending.popleft()
            if file.inode.nid in self._loaded or len(self._loaded) >= LIBRARY_LIMIT:
                continue
            self._loaded.add(file.inode.nid)
            self._touch(file, elf, whole)
            if code >= STUB:
                whole = later
            code = STUB
            if elf.rpath and not elf.runpath:
                # Of a library that has no RUNPATH what it needs is looked for there too.
                paths = (*self._expand(elf.rpath, file, elf), *paths)[:64]
            for name in elf.needed:
                self._add(name, file, elf, paths, pending, has_cache=has_cache)

    def _add(
        self,
        name: bytes,
        file: File,
        elf: Elf,
        paths: tuple[bytes, ...],
        pending: deque[tuple[File, Elf, tuple[bytes, ...]]],
        *,
        has_cache: bool,
    ) -> None:
        for path in self._candidates(name, file, elf, paths, has_cache=has_cache):
            found = self._files.find(path)
            other = self.read_elf(found) if found is not None else None
            if found is not None and other is not None and other.machine == elf.machine:
                pending.append((found, other, paths))
                return

    def _candidates(
        self, name: bytes, file: File, elf: Elf, paths: tuple[bytes, ...], *, has_cache: bool
    ) -> Iterator[bytes]:
        """Yield where a library is looked for, in order."""
        if b"/" in name:
            yield from self._expand(name, file, elf)
            return
        before = () if elf.runpath else paths
        given = self._environment.get(b"LD_LIBRARY_PATH", b"")
        for directory in (
            *before,
            *self._expand(given.replace(b";", b":"), file, elf),
            *self._expand(elf.runpath, file, elf),
        ):
            yield directory + b"/" + name
        if has_cache:
            found = self._read_cache().get(name)
            if found is not None:
                yield found
        if not elf.has_default_directories:
            return
        triplet = _MACHINES.get(elf.machine, (b"", b""))[1]
        if has_cache:
            directories = [b"/lib/" + triplet, b"/usr/lib/" + triplet, b"/lib64", b"/usr/lib64"]
        else:
            directories = [b"/lib", b"/usr/local/lib"]
        for directory in (*directories, b"/lib", b"/usr/lib"):
            yield directory + b"/" + name

    def _expand(self, paths: bytes, file: File, elf: Elf) -> Iterator[bytes]:
        """Yield the directories of a search path, at most 64."""
        platform, triplet = _MACHINES.get(elf.machine, (b"", b""))
        known = {b"ORIGIN": file.directory, b"LIB": b"lib/" + triplet, b"PLATFORM": platform}
        for part in paths.split(b":")[:64]:
            path = part
            for word, value in known.items():
                path = path.replace(b"${" + word + b"}", value).replace(b"$" + word, value)
            if path.startswith(b"/") and len(path) <= 4096:
                yield path

    def _read_cache(self) -> dict[bytes, bytes]:
        if self._cache is None:
            file = self._files.find(_CACHE)
            if file is None or file.size > CACHE_LIMIT:
                self._cache = {}
            else:
                self._files.touch(file)
                self._cache = parse_ld_cache(self._files.read(file, 0, file.size))
        return self._cache

    def _preloaded(self) -> list[bytes]:
        given = self._environment.get(b"LD_PRELOAD", b"")
        file = self._files.find(_PRELOAD)
        if file is not None and file.size <= _PRELOAD_LIMIT:
            self._files.touch(file)
            given += b" " + self._files.read(file, 0, file.size)
        return given.replace(b":", b" ").split()[:64]

    def _touch(self, file: File, elf: Elf, whole: int) -> None:
        """Note the pages of a program or library that are read when it is loaded."""
        self._files.touch(file, 0, 4096)
        for number, one in enumerate(elf.segments):
            # The first has the symbols, what is writable is relocated: both are read through.
            limit = TABLES if number == 0 or one.flags & WRITABLE else whole
            if one.size <= limit:
                self._files.touch(file, one.offset, one.size)
            elif one.flags & EXECUTABLE:
                for address in (elf.init, elf.entry):
                    at = elf.place_of(address) if address else None
                    if at is not None:
                        self._files.touch(file, at - at % AROUND, AROUND)
