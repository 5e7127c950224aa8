"""What a start of CPython reads: its own modules, and all that a program imports at once.

As importlib finds modules: path entries in order, packages before extension modules
before source; of source, the cached bytecode where there is some.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from converter.analysis.files import File, Files
from converter.analysis.imports import iter_imports, split_statements
from converter.analysis.loader import Loader
from converter.analysis.pythonpaths import SMALL, find_paths

MODULE_LIMIT = 5000
SOURCE_LIMIT = 2 << 20
"""Larger source is not looked into."""
_PTH_LINES = 100

_FIRST = (
    *(b"codecs", b"encodings", b"encodings.aliases", b"encodings.utf_8", b"io", b"abc"),
    *(b"site", b"os", b"_sitebuiltins", b"sitecustomize", b"usercustomize"),
)
"""Modules of every start."""
_FROZEN = frozenset(
    b"_collections_abc _sitebuiltins abc codecs genericpath importlib._bootstrap "
    b"importlib._bootstrap_external importlib.machinery importlib.util io ntpath os posixpath "
    b"runpy site stat zipimport".split()
)
"""Since Python 3.11 these lie in the interpreter, and their files are not read."""
_LOCALE = b"/usr/lib/locale/C.utf8/LC_CTYPE"
"""What CPython takes where no locale is set (PEP 538)."""
_TRIPLETS = tuple(
    machine + b"-linux-" + libc + b".so"
    for machine in (b"x86_64", b"aarch64")
    for libc in (b"gnu", b"musl")
)
_WITH_ARGUMENT = frozenset((b"-W", b"-X", b"--check-hash-based-pycs"))


@dataclass(frozen=True, slots=True)
class _Module:
    """A module that was found: its file and, where it is a package, its directory."""

    name: bytes
    file: File | None
    directory: bytes


class Python:
    """One interpreter of an image."""

    def __init__(
        self, files: Files, loader: Loader, environment: Mapping[bytes, bytes], program: bytes
    ) -> None:
        """Begin with the interpreter called as ``program``, an absolute path."""
        self._files = files
        self._loader = loader
        self._modules: dict[bytes, _Module | None] = {}
        found = find_paths(files, environment, program)
        self._minor = found.minor
        self._sites = found.sites
        self._paths = [*found.paths, *found.sites]
        tag = b".cpython-3%d-" % self._minor
        self._suffixes = (*(tag + one for one in _TRIPLETS), b".abi3.so", b".so")

    def start(self, words: list[bytes], cwd: bytes) -> None:
        """Note what ``python WORDS…`` reads."""
        if not self._minor:
            return
        locale = self._files.find(_LOCALE)
        if locale is not None:
            self._files.touch(locale)
        self._import_all(_FIRST)
        self._read_pth_files()
        kind, argument = _split(words)
        if kind == b"-c":
            self._paths.insert(0, cwd)
            self._run_main(split_statements(argument))
        elif kind == b"-m":
            self._paths.insert(0, cwd)
            self._import_all((b"runpy", argument))
            module = self._modules.get(argument)
            if module is not None and module.directory:
                self._import_all((argument + b".__main__",))
        elif argument:
            self._start_script(argument, cwd)

    def _start_script(self, argument: bytes, cwd: bytes) -> None:
        file = self._files.find(cwd + b"/" + argument if argument[:1] != b"/" else argument)
        if file is None:
            return
        self._files.touch(file)
        self._paths.insert(0, file.directory)
        if file.size <= SOURCE_LIMIT:
            self._run_main(self._files.read(file, 0, file.size))

    def _read_pth_files(self) -> None:
        for site in self._sites:
            for name in sorted(self._files.names(site)):
                file = self._files.find(site + b"/" + name) if name.endswith(b".pth") else None
                if file is None or file.size > SMALL:
                    continue
                self._files.touch(file)
                data = self._files.read(file, 0, file.size)
                for line in data.splitlines()[:_PTH_LINES]:
                    if line.startswith((b"import ", b"import\t")):
                        self._run(self._iter_modules(split_statements(line), b"site", b""))
                    elif line.strip() and not line.startswith(b"#"):
                        path = line.strip()
                        path = path if path.startswith(b"/") else site + b"/" + path
                        if self._files.find_directory(path) and path not in self._paths:
                            self._paths.append(path)

    def _import_all(self, names: Iterable[bytes]) -> None:
        for name in names:
            self._run(self._import(name))

    def _run(self, first: Iterator[_Module]) -> None:
        """Follow imports, and what each of them imports before what comes after it."""
        stack = [first]
        while stack:
            module = next(stack[-1], None)
            if module is None:
                stack.pop()
            elif module.file is not None and module.file.size <= SOURCE_LIMIT:
                source = self._files.read(module.file, 0, module.file.size)
                package = module.name if module.directory else module.name.rpartition(b".")[0]
                stack.append(self._iter_modules(source, module.name, package))

    def _run_main(self, source: bytes) -> None:
        self._run(self._iter_modules(source, b"__main__", b""))

    def _iter_modules(self, source: bytes, name: bytes, package: bytes) -> Iterator[_Module]:
        """Yield each module, not met before, that a module's source imports."""
        for dots, dotted, names in iter_imports(
            source, self._files.spend, is_main=name == b"__main__"
        ):
            target = dotted
            if dots:
                parts = package.split(b".") if package else []
                if dots > len(parts):
                    continue
                above = parts[: len(parts) - dots + 1]
                target = b".".join([*above, dotted] if dotted else above)
            if not target or target == name:
                continue
            yield from self._import(target)
            module = self._modules.get(target)
            if module is not None and module.directory:
                for one in names:
                    yield from self._import(target + b"." + one)

    def _import(self, name: bytes) -> Iterator[_Module]:
        """Find a module and the packages around it; yield each that was not met before."""
        self._files.spend(1)
        module = None
        parts = name.split(b".")[:32]
        for end in range(1, len(parts) + 1):
            full = b".".join(parts[:end])
            if full not in self._modules:
                if len(self._modules) >= MODULE_LIMIT:
                    return
                paths = [module.directory] if module is not None else self._paths
                found = self._modules[full] = self._find(full, parts[end - 1], paths)
                if found is not None:
                    yield found
            module = self._modules[full]
            if module is None:
                return

    def _find(self, full: bytes, name: bytes, paths: list[bytes]) -> _Module | None:
        """Return a module, what is read of it noted; None where no path has it."""
        spread = None
        for path in paths:
            names = self._files.names(path) if path else frozenset()
            if name in names:
                directory = path + b"/" + name
                if b"__init__.py" in self._files.names(directory):
                    return self._found(full, directory, b"__init__", directory)
                if spread is None and self._files.find_directory(directory):
                    spread = _Module(full, None, directory)  # a package without __init__.py
            for suffix in self._suffixes:
                file = (
                    self._files.find(b"%s/%s%s" % (path, name, suffix))
                    if (name + suffix in names)
                    else None
                )
                if file is not None:
                    self._loader.load_library(file)
                    return _Module(full, None, b"")
            if name + b".py" in names:
                return self._found(full, path, name, b"")
        return spread

    def _found(self, full: bytes, path: bytes, name: bytes, directory: bytes) -> _Module | None:
        """Note a module's bytecode or source; return the module, its imports still to come."""
        source = self._files.find(path + b"/" + name + b".py")
        if source is None:
            return None
        cache = b"%s/__pycache__/%s.cpython-3%d.pyc" % (path, name, self._minor)
        bytecode = self._files.find(cache)
        if full not in _FROZEN or self._minor < 11:
            self._files.touch(bytecode or source)
        return _Module(full, source, directory)


def _split(words: list[bytes]) -> tuple[bytes, bytes]:
    """Return ``-c`` or ``-m`` and its argument, or nothing and the script."""
    at = 1
    while at < len(words):
        word = words[at]
        if word[:2] in (b"-c", b"-m"):
            rest = word[2:] or (words[at + 1] if at + 1 < len(words) else b"")
            return word[:2], rest
        if not word.startswith(b"-") or word == b"-":
            return b"", b"" if word == b"-" else word
        if not word.startswith(b"--") and word[-1:] in (b"c", b"m") and len(word) > 2:
            return b"-" + word[-1:], words[at + 1] if at + 1 < len(words) else b""
        at += 2 if word in _WITH_ARGUMENT else 1
    return b"", b""
