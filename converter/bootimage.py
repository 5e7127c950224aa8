"""The boot image: what the engine pulls instead of the source image.

Two layers: the runtime, the same for every image, and the image's own, with the
bootstrap, the chunk index, the boot config, and what the engine itself looks
for in a root before the real one is mounted.
"""

from __future__ import annotations

import copy
import io
import json
import os
import stat
import tarfile
from dataclasses import dataclass

from converter import RELEASE
from converter.images.view import ImageView, JsonObject, Layer
from converter.reference import DOCKER_ARCHIVE, OCI, OCI_ARCHIVE, ROOT_ALONE
from converter.sourceconfig import PATH_LIMIT, check_config, check_platform, encode_text
from converter.tree import Node
from store.errors import ConvertError, UsageError
from store.format.bootconfig import BootConfig, encode_boot_config

INIT = "/.bootfs/init"
LABEL = "io.bootfs."
OWN_VOLUMES = ("/.bootfs/cache", "/.bootfs/rw")
LINK_LIMIT = 40
NAME_LIMIT = 255
"""The longest name of an entry that a file system takes, in bytes."""
LINK_DEPTH = 3
"""How deep links to directories may lie to be known to the engine: /var/run has 2."""
LINK_COUNT = 1000

_DIRECTORIES = (
    (".bootfs", 0o755),
    (".bootfs/cache", 0o700),
    (".bootfs/image", 0o755),
    (".bootfs/mnt", 0o700),
    (".bootfs/mnt/fuse", 0o700),
    (".bootfs/mnt/image", 0o755),
    (".bootfs/mnt/root", 0o755),
    (".bootfs/rw", 0o700),
    ("dev", 0o755),
    ("etc", 0o755),
    ("proc", 0o555),
    ("sys", 0o555),
)
"""Mount points of ours and of the engine's; with ``--read-only`` nobody can make them."""
_ENGINE_FILES = ("etc/hostname", "etc/hosts", "etc/resolv.conf")
_ACCOUNTS = ("etc/group", "etc/passwd")
"""Where the engine looks up USER, ``docker exec -u`` and HOME."""
ACCOUNTS_LIMIT = 16 << 20


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """The files of an image's own layer."""

    bootstrap: bytes
    chunk_index: bytes
    chunk_index_digest: bytes
    """Raw BLAKE3 digest of ``chunk_index``."""
    origins: bytes


def check_source(source: ImageView) -> None:
    """Return when an image is one to make a boot image of, as far as its config tells.

    Raises:
        ConvertError: its config is damaged, or for another platform.
        UsageError: it is a boot image already.

    """
    settings = check_config(source.config)
    check_platform(source.config)
    labels = settings.get("Labels", {})
    if LABEL + "release" in labels:
        origin = labels.get(LABEL + "source.reference") or "an image that it does not name"
        raise UsageError(
            f"{source.name} is a boot image already, made of {origin}; convert that one"
        )


def build_own_layer(source: ImageView, tree: Node, files: ImageFiles, blob_store: str) -> Layer:
    """Return the image's own layer; equal input gives equal bytes.

    Raises:
        ConvertError: the source's config has values that no engine takes.

    """
    settings = check_config(source.config)
    config = encode_boot_config(
        BootConfig(
            release=RELEASE.encode(),
            source=encode_text(public_name(source.name)),
            chunk_index=files.chunk_index_digest,
            entrypoint=[encode_text(a) for a in settings.get("Entrypoint", [])],
            blob_store=blob_store.encode(),
            volumes=[encode_text(v) for v in sorted(settings.get("Volumes", {}))],
        )
    )
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        directories = dict(_DIRECTORIES)
        links = _directory_links(tree, directories)
        ways = [*settings.get("Volumes", {}), settings.get("WorkingDir", "")]
        ways += [part for link in links for part in (os.path.dirname(link), link)]
        directories.update(_engine_directories(ways, tree, directories))
        for name, mode in _top_directories(tree):
            directories.setdefault(name, mode)
        for name, mode in sorted(directories.items()):
            node = find(tree, name.encode("utf-8", "surrogateescape"))
            owner = node if node is not None and node.is_directory else None
            tar.addfile(_entry(name, stat.S_IFDIR | mode, owner))
        for name, target in sorted(links.items()):
            tar.addfile(_link_entry(name, target))
        for name in _ENGINE_FILES:
            tar.addfile(_entry(name, stat.S_IFREG | 0o644, None))
        for name in _ACCOUNTS:
            node = find(tree, name.encode())
            if node is not None and node.is_regular and node.content.size <= ACCOUNTS_LIMIT:
                _add_file(tar, name, node.content.pread(0, node.content.size), 0o644)
        for name, data in (
            ("bootstrap", files.bootstrap),
            ("chunk-index", files.chunk_index),
            ("config", config),
            ("origins", files.origins),
        ):
            _add_file(tar, f".bootfs/image/{name}", data, 0o644)
    return Layer.from_plain(buffer.getvalue())


def build_config(
    source: ImageView, layers: list[Layer], chunk_index_digest: bytes, level: int
) -> JsonObject:
    """Return the boot image's config: the source's, but for entrypoint, layers and history.

    What cannot be kept as it is (history, digests of the source) is kept in labels.

    Raises:
        ConvertError: the source's config has values that no engine takes.

    """
    checked = check_config(source.config)
    config = copy.deepcopy(source.config)
    settings = config["config"] = config.get("config") or {}
    settings["Entrypoint"] = [INIT]
    if not settings.get("Cmd"):
        # Without it engines take the entrypoint's absence of arguments for "no command".
        settings.pop("Cmd", None)
    settings["Volumes"] = {
        **checked.get("Volumes", {}),
        **{path: {} for path in OWN_VOLUMES},
    }
    settings["Labels"] = {
        **checked.get("Labels", {}),
        LABEL + "release": RELEASE,
        LABEL + "chunk-index": f"blake3:{chunk_index_digest.hex()}",
        LABEL + "level": str(level),
        LABEL + "source.reference": public_name(source.name),
        LABEL + "source.digest": source.manifest_digest,
        LABEL + "source.entrypoint": _canonical(checked.get("Entrypoint")),
        LABEL + "source.layers": _canonical([layer.diff_id for layer in source.layers]),
        LABEL + "source.history": _canonical(source.config.get("history") or []),
    }
    created = source.config.get("created") or "1970-01-01T00:00:00Z"
    config["created"] = created
    config["rootfs"] = {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]}
    # The last is the image's own; between the runtime and it there may be ssh.
    names = ["runtime", *["ssh"] * (len(layers) - 2), "image"]
    config["history"] = [
        {"created": created, "created_by": f"bootfs {RELEASE}: {name}"} for name in names
    ]
    # Docker's own traces of how the source was made; the engine makes new ones.
    was_built_by_docker = bool(config.get("container_config"))
    for name in ("container", "container_config", "id", "parent"):
        config.pop(name, None)
    if was_built_by_docker:
        # docker-compose 1 looks here for what it carries over when it makes a container anew:
        # as with the source, and not ours, which `down -v` would leave then.
        config["container_config"] = {"Volumes": checked.get("Volumes", {})}
    return config


def public_name(name: str) -> str:
    """Return a reference without the directories of a path.

    Where a file lay is this machine's business, and the same image from another
    place must give the same boot image.
    """
    transport, _, rest = name.partition(":")
    if transport in ROOT_ALONE:
        return f"{transport}:{os.path.basename(os.path.abspath(rest))}"
    if transport not in (DOCKER_ARCHIVE, OCI, OCI_ARCHIVE):
        return name
    path, colon, tag = rest.partition(":")
    return f"{transport}:{os.path.basename(os.path.abspath(path))}{colon}{tag}"


def find(tree: Node, path: bytes) -> Node | None:
    """Return the node at ``path``, links followed inside the tree, or None."""
    stack = [tree]
    todo = [part for part in reversed(path.split(b"/")) if part]
    links = 0
    while todo:
        part = todo.pop()
        if part == b".":
            continue
        if part == b"..":
            if len(stack) > 1:
                stack.pop()
            continue
        node = stack[-1].children.get(part) if stack[-1].is_directory else None
        if node is None:
            return None
        if not node.is_symlink:
            stack.append(node)
            continue
        links += 1
        if links > LINK_LIMIT:
            return None
        if node.target.startswith(b"/"):
            del stack[1:]
        todo.extend(p for p in reversed(node.target.split(b"/")) if p)
    return stack[-1]


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def resolve(tree: Node, path: bytes) -> list[bytes]:
    """Return where ``path`` leads in the tree, links followed, as names from the root.

    What does not exist follows as it stands; a loop of links ends where it is noticed.
    """
    stack: list[tuple[bytes, Node | None]] = []
    todo = [part for part in reversed(path.split(b"/")) if part]
    links = 0
    while todo:
        part = todo.pop()
        if part in (b".", b".."):
            if part == b"..":
                del stack[-1:]
            continue
        above = stack[-1][1] if stack else tree
        is_known = above is not None and above.is_directory
        node = above.children.get(part) if above is not None and is_known else None
        if node is None or not node.is_symlink or links == LINK_LIMIT:
            stack.append((part, node))
            continue
        links += 1
        if node.target.startswith(b"/"):
            stack.clear()
        todo.extend(p for p in reversed(node.target.split(b"/")) if p)
    return [name for name, _ in stack]


def _directory_links(tree: Node, known: dict[str, int]) -> dict[str, str]:
    """Return name and target of the links to directories that are not too deep in the tree.

    The engine makes the mount points that a user asks for before the tree is there: it
    is to follow the same links as in the source image.
    """
    found: dict[str, str] = {}
    todo: list[tuple[bytes, Node]] = [(b"", tree)]
    for depth in range(LINK_DEPTH):
        below = []
        for path, directory in todo:
            for name, node in sorted(directory.children.items()):
                place = path + b"/" + name if path else name
                shown = place.decode("utf-8", "surrogateescape")
                if shown in known:
                    continue
                if node.is_directory and depth + 1 < LINK_DEPTH:
                    below.append((place, node))
                elif node.is_symlink and len(found) < LINK_COUNT:
                    end = find(tree, place)
                    if end is not None and end.is_directory:
                        found[shown] = node.target.decode("utf-8", "surrogateescape")
        todo = below
    return found


def _engine_directories(ways: list[str], tree: Node, known: dict[str, int]) -> dict[str, int]:
    """Return the directories on the ways to what the engine mounts, with modes from the tree.

    Raises:
        ConvertError: no file system can have one of them.

    """
    found: dict[str, int] = {}
    for path in ways:
        parts = resolve(tree, encode_text(path))
        if len(b"/".join(parts)) > PATH_LIMIT or any(len(part) > NAME_LIMIT for part in parts):
            # An engine could not even unpack it.
            raise ConvertError(
                f"the source image's volume or working directory {path[:80]!r} is longer, with "
                "the links on its way, than any path can be; build the image with another"
            )
        for end in range(1, len(parts) + 1):
            place = b"/".join(parts[:end])
            name = place.decode("utf-8", "surrogateescape")
            if name in known or name in found:
                continue
            node = find(tree, place)
            is_known = node is not None and node.is_directory
            found[name] = stat.S_IMODE(node.mode) if node is not None and is_known else 0o755
    return found


def _top_directories(tree: Node) -> list[tuple[str, int]]:
    """Return name and mode of the root's directories: a tmpfs gets the mode of what it hides.

    No deeper ones, which might be many.
    """
    return [
        (name.decode("utf-8", "surrogateescape"), stat.S_IMODE(node.mode))
        for name, node in tree.children.items()
        if node.is_directory
    ]


def _link_entry(name: str, target: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type = tarfile.SYMTYPE
    entry.mode = 0o777
    entry.linkname = target
    return entry


def _entry(name: str, mode: int, owner: Node | None) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type = tarfile.DIRTYPE if stat.S_ISDIR(mode) else tarfile.REGTYPE
    entry.mode = stat.S_IMODE(mode)
    if owner is not None and not name.startswith(".bootfs"):
        entry.uid, entry.gid = owner.uid, owner.gid
    return entry


def _add_file(tar: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    entry = _entry(name, stat.S_IFREG | mode, None)
    entry.size = len(data)
    tar.addfile(entry, io.BytesIO(data))
