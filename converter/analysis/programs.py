"""From a command to what its start reads: programs, interpreters, and what they run."""

from __future__ import annotations

import re
from collections.abc import Mapping

from converter.analysis.files import File, Files
from converter.analysis.loader import Loader
from converter.analysis.python import Python
from converter.analysis.pythonpaths import is_python

DEPTH = 6
"""Programs that start programs."""
PROGRAM_LIMIT = 64
"""Programs of one start."""
SCRIPT_LIMIT = 256 << 10
"""Longer shell scripts are not looked into."""
_INTERPRETER_LIMIT = 256
_DEFAULT_PATH = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SHELLS = frozenset((b"sh", b"bash", b"dash", b"ash", b"busybox"))
_WRAPPERS = frozenset(
    b"catatonit chpst dumb-init env exec gosu nice nohup setpriv su-exec tini tini-static".split()
)
"""Programs that become the one their arguments name."""
_COMMANDS_LIMIT = 2000
_COMMENT = re.compile(rb"(?:^|(?<=\s))#[^\n]*", re.MULTILINE)
_END = re.compile(rb"[\n;&|()`}]|(?<!\$)\{")
"""What a simple command of a shell ends at, or begins behind."""
_BEFORE = frozenset(b"! do elif else exec if then time until while".split())
"""Words that a command can stand behind."""
_SETTING = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*=")
_CHANGED = re.compile(rb"[$*?<>\[\]\\]")
_ALL_ARGUMENTS = (b'"$@"', b"$@", b'"$*"', b"$*")
_ACCOUNTS = (b"/etc/nsswitch.conf", b"/etc/passwd")


class Programs:
    """Starts programs of one tree on paper."""

    def __init__(self, files: Files, environment: Mapping[bytes, bytes], cwd: bytes) -> None:
        self._files = files
        self._environment = environment
        self._loader = Loader(files, environment)
        self._cwd = cwd
        self._started: set[tuple[bytes, ...]] = set()

    def start(self, words: list[bytes], depth: int = 0) -> None:
        """Note what the start of a command reads, as far as the image tells."""
        if not words or depth > DEPTH or len(self._started) >= PROGRAM_LIMIT:
            return
        called, file = self._look_up(words[0])
        if file is None or tuple(words) in self._started:
            return
        self._started.add(tuple(words))
        elf = self._loader.read_elf(file)
        if elf is not None:
            self._loader.load_program(file, elf)
            self._follow(called, file, words, depth)
            return
        head = self._files.read(file, 0, _INTERPRETER_LIMIT)
        if head.startswith(b"#!"):
            line = head[2:].partition(b"\n")[0].strip()
            interpreter, _, argument = line.partition(b" ")
            self._files.touch(file)
            before = [interpreter, *([argument.strip()] if argument.strip() else [])]
            self.start([*before, called, *words[1:]], depth + 1)

    def _look_up(self, word: bytes) -> tuple[bytes, File | None]:
        """Return the path by which a program is called and its file, as execvp finds it."""
        if b"/" in word:
            path = word if word.startswith(b"/") else self._cwd + b"/" + word
            return path, self._files.find(path)
        for directory in self._environment.get(b"PATH", _DEFAULT_PATH).split(b":")[:64]:
            path = (directory or self._cwd) + b"/" + word
            file = self._files.find(path)
            if file is not None and file.is_program:
                return path, file
        return word, None

    def _follow(self, called: bytes, file: File, words: list[bytes], depth: int) -> None:
        """Note what a program that was started starts or reads in its turn."""
        names = (called.rpartition(b"/")[2], file.name)
        if any(map(is_python, names)):
            Python(self._files, self._loader, self._environment, called).start(words, self._cwd)
        elif any(name in _SHELLS for name in names):
            for path in _ACCOUNTS:
                self._touch_small(path)
            self._follow_shell(words, depth)
        elif names[0] in _WRAPPERS:
            self.start(_wrapped(words), depth + 1)
        elif names[0] in (b"node", b"nodejs"):
            script = next((word for word in words[1:] if not word.startswith(b"-")), b"")
            if not any(word in (b"-e", b"-p", b"--eval", b"--print") for word in words):
                self._touch_small(script if script.startswith(b"/") else self._cwd + b"/" + script)
        elif names[0] == b"java":
            self._load_java(file)

    def _follow_shell(self, words: list[bytes], depth: int) -> None:
        rest = words[1:]
        while rest and rest[0].startswith(b"-") and not rest[0].endswith(b"c"):
            rest = rest[1:]
        if not rest:
            return
        if rest[0].startswith(b"-"):
            script, arguments = rest[1] if len(rest) > 1 else b"", rest[3:]
        else:
            path = rest[0] if rest[0].startswith(b"/") else self._cwd + b"/" + rest[0]
            file = self._files.find(path)
            if file is None or file.size > SCRIPT_LIMIT:
                return
            self._files.touch(file)
            script, arguments = self._files.read(file, 0, file.size), rest[1:]
        for command in _END.split(_COMMENT.sub(b"", script[:SCRIPT_LIMIT]))[:_COMMANDS_LIMIT]:
            run = _plain_words(command)
            if run and run[0] in (b".", b"source"):
                self._touch_small(run[1] if len(run) > 1 else b"")
            else:
                self.start(run, depth + 1)
        if arguments and any(one in script for one in _ALL_ARGUMENTS):
            self.start(arguments, depth + 1)

    def _touch_small(self, path: bytes) -> None:
        file = self._files.find(path)
        if file is not None and file.size <= SCRIPT_LIMIT:
            self._files.touch(file)

    def _load_java(self, file: File) -> None:
        """Note what the launcher of a JDK loads by name: the machine, and its modules' head."""
        home = file.directory.rpartition(b"/")[0]
        for name in (
            b"server/libjvm.so",
            b"libjava.so",
            b"libjimage.so",
            b"libnio.so",
            b"libnet.so",
        ):
            library = self._files.find(home + b"/lib/" + name)
            if library is not None:
                self._loader.load_library(library)
        self._touch_small(home + b"/lib/jvm.cfg")
        modules = self._files.find(home + b"/lib/modules")
        if modules is not None:
            self._files.touch(modules, 0, 1 << 20)
        archive = self._files.find(home + b"/lib/server/classes.jsa")
        if archive is not None:
            self._files.touch(archive)


def _wrapped(words: list[bytes]) -> list[bytes]:
    """Return the command among a wrapper's arguments: what follows options and settings."""
    rest = words[1:]
    if words[0].rpartition(b"/")[2] in (b"gosu", b"su-exec"):
        rest = rest[1:]
    while rest and (rest[0].startswith(b"-") or b"=" in rest[0]):
        # A line "#!/usr/bin/env -S tool -x" gives env "-S tool -x" and the script.
        rest = [*rest[0][2:].split(), *rest[1:]] if rest[0].startswith(b"-S") else rest[1:]
    return rest


def _plain_words(command: bytes) -> list[bytes]:
    """Return the words of a shell's simple command up to the first that the shell would change."""
    words: list[bytes] = []
    for word in command.split(maxsplit=64)[:64]:
        if not words and (word in _BEFORE or _SETTING.match(word)):
            continue
        if _CHANGED.search(word):
            break
        words.append(word.strip(b"\"'"))
    return words
