"""Which names of an image's tree the boot image's own layer has, for the engine to find.

The engine works in a root before the tree is there: it makes mount points and the working
directory, copies files in (`docker cp` into a container that was created) and executes programs
(`docker exec`, HEALTHCHECK).  So it finds directories and links as in the source image, few enough
to keep the layer small, and at the names of programs a placeholder (boot/launcher/placeholder.S),
which waits for the program.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from converter.images.view import JsonObject
from converter.tree import Node
from converter.treepaths import find, trace

DEPTH = 3
"""How deep links and directories may lie to be known to the engine: /var/run has 2."""
SHALLOW = frozenset((b"bin", b"lib", b"lib32", b"lib64", b"libx32", b"sbin", b"usr"))
"""Directories in which only those with a depth of 2 may: packages have hundreds there, users none.
All that is in the layer is unpacked before each first start, some 0.1 ms a name."""
LOCAL = b"usr/local"
"""But here they have."""
LEFT_OUT = b"etc/alternatives"
"""Links of Debian's own."""
LINK_COUNT = 200
DIRECTORY_COUNT = 400
LIKELY = (
    *(b"sh", b"bash", b"ash", b"dash", b"busybox", b"env", b"cat", b"ls", b"id", b"true", b"test"),
    *(b"[", b"echo", b"printf", b"sleep", b"ps", b"pgrep", b"kill", b"grep", b"sed", b"awk"),
    *(b"head", b"tail", b"find", b"stat", b"touch", b"mkdir", b"rm", b"cp", b"mv", b"chmod"),
    *(b"pwd", b"uname", b"wc", b"cut", b"sort", b"tr", b"tee", b"xargs", b"which", b"timeout"),
    *(b"false", b"mount", b"df", b"du"),
    *(b"chown", b"tar", b"date", b"hostname", b"whoami", b"printenv", b"getent", b"sha256sum"),
    *(b"curl", b"wget", b"nc", b"python3", b"python", b"perl", b"node", b"ruby", b"php", b"java"),
    *(b"psql", b"pg_isready", b"mysql", b"mysqladmin", b"mariadb", b"mariadb-admin"),
    *(b"redis-cli", b"valkey-cli", b"mongosh", b"rabbitmqctl", b"nginx", b"healthcheck.sh"),
)
"""What people execute in a container that has just started, and checks of its health do."""
SYSTEM = (b"usr/sbin", b"usr/bin", b"sbin", b"bin")
OWN_COUNT = 40
"""Programs of each other directory in PATH, where images have their own."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where engines look for a program if the image does not say."""


@dataclass(slots=True)
class Names:
    """Names of a tree, as paths from its root; each with its node."""

    directories: dict[bytes, Node] = field(default_factory=dict)
    links: dict[bytes, Node] = field(default_factory=dict)
    programs: dict[bytes, Node] = field(default_factory=dict)

    def add_way(self, tree: Node, path: bytes, *, is_program: bool = False) -> None:
        """Add links and directories on the way to what is at ``path``, in the tree.

        As a program, what it leads to is added too, if it is one.
        """
        for place, node in trace(tree, path):
            if node.is_directory:
                self.directories[place] = node
            elif node.is_symlink:
                self.links[place] = node
            elif is_program and node.is_regular and node.mode & 0o111:
                self.programs[place] = node


def names_for_engine(tree: Node, settings: JsonObject, ours: frozenset[bytes]) -> Names:
    """Return the names; equal input gives equal names.

    ``settings`` are those of the image's config, checked.  ``ours`` are paths of which the
    layer says itself what is there; what is in them is left out as well.
    """
    names = Names()
    links, directories = _upper(tree, ours)
    for path in _programs(tree, settings):
        names.add_way(tree, path, is_program=True)
    # Those that lead to directories come first: more is mounted there.
    links.sort(key=lambda path: not _is_directory(tree, path))
    for path in links:
        if len(names.links) >= LINK_COUNT:
            break
        names.add_way(tree, path)
    for path in directories:
        if len(names.directories) >= DIRECTORY_COUNT:
            break
        names.add_way(tree, path)
    for found in (names.directories, names.links, names.programs):
        for path in [path for path in found if path.partition(b"/")[0] in ours or path in ours]:
            del found[path]
    return names


def _is_directory(tree: Node, path: bytes) -> bool:
    node = find(tree, path)
    return node is not None and node.is_directory


def _is_local(path: bytes) -> bool:
    return path == LOCAL or path.startswith(LOCAL + b"/")


def _upper(tree: Node, ours: frozenset[bytes]) -> tuple[list[bytes], list[bytes]]:
    """Return paths of links and of directories not deeper than `DEPTH`, the upper ones first."""
    links: list[bytes] = []
    directories: list[bytes] = []
    todo: list[tuple[bytes, Node]] = [(b"", tree)]
    for depth in range(DEPTH):
        below = []
        for path, directory in todo:
            top = path.partition(b"/")[0]
            if path == LEFT_OUT or (depth > 1 and top in SHALLOW and not _is_local(path)):
                continue
            for name, node in sorted(directory.children.items()):
                place = path + b"/" + name if path else name
                if place in ours:
                    continue
                if node.is_directory:
                    directories.append(place)
                    below.append((place, node))
                elif node.is_symlink:
                    links.append(place)
        todo = below
    return links, directories


def _programs(tree: Node, settings: JsonObject) -> Iterator[bytes]:
    """Yield the paths of programs that an engine is likely to be asked for."""
    health = settings.get("Healthcheck")
    test = health.get("Test") if isinstance(health, dict) else None
    for words in (
        settings.get("Shell"),
        test[1:] if isinstance(test, list) and test[:1] == ["CMD"] else None,
        settings.get("Entrypoint"),
        settings.get("Cmd"),
    ):
        if isinstance(words, list) and words and str(words[0]).startswith("/"):
            yield str(words[0]).encode("utf-8", "ignore")
    yield b"/bin/sh"
    variables = [str(entry) for entry in settings.get("Env") or []]
    given = [entry[5:] for entry in variables if entry.startswith("PATH=")]
    for path in (given[-1] if given else PATH).split(":"):
        place = path.strip("/").encode("utf-8", "ignore")
        directory = find(tree, place) if path.startswith("/") and place else None
        if directory is not None and directory.is_directory:
            own = [] if place in SYSTEM else sorted(directory.children)[:OWN_COUNT]
            for name in dict.fromkeys((*LIKELY, *own)):
                if name in directory.children:
                    yield place + b"/" + name
