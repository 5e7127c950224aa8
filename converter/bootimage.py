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
from converter.enginenames import names_for_engine
from converter.images.view import ImageView, JsonObject, Layer
from converter.reference import DOCKER_ARCHIVE, OCI, OCI_ARCHIVE, ROOT_ALONE
from converter.runtime.contents import ARCHITECTURES
from converter.runtime.sources import read_placeholder
from converter.sourceconfig import (
    PATH_LIMIT,
    architecture_of,
    check_config,
    check_platform,
    encode_text,
)
from converter.tree import Node
from converter.treepaths import find, resolve
from store.errors import ConvertError, UsageError
from store.format.bootconfig import BootConfig, encode_boot_config

INIT = "/.bootfs/init"
LABEL = "io.bootfs."
OWN_VOLUMES = ("/.bootfs/cache", "/.bootfs/rw")
NAME_LIMIT = 255
"""The longest name of an entry that a file system takes, in bytes."""

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
_MACHINES = {its: name for name, its in ARCHITECTURES.items()}
_OURS = frozenset(
    name.encode() for name in (".bootfs", "dev", "proc", "sys", *_ENGINE_FILES, *_ACCOUNTS)
)
"""Of these, and what is in them, the layer says itself what is there."""
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
        names = names_for_engine(tree, settings, _OURS)
        directories = dict(_DIRECTORIES)
        ways = [*settings.get("Volumes", {}), settings.get("WorkingDir", "")]
        directories.update(_engine_directories(ways, tree, directories))
        for place, node in (*names.directories.items(), *tree.children.items()):
            if node.is_directory:
                # Of the root all: a tmpfs gets the mode of what it hides.
                directories.setdefault(_shown(place), stat.S_IMODE(node.mode))
        for name, mode in sorted(directories.items()):
            there = find(tree, name.encode("utf-8", "surrogateescape"))
            owner = there if there is not None and there.is_directory else None
            tar.addfile(_entry(name, stat.S_IFDIR | mode, owner))
        for place, node in sorted(names.links.items()):
            if _shown(place) not in directories:
                tar.addfile(_link_entry(_shown(place), node))
        for name in _ENGINE_FILES:
            tar.addfile(_entry(name, stat.S_IFREG | 0o644, None))
        for name in _ACCOUNTS:
            file = find(tree, name.encode())
            if file is not None and file.is_regular and file.content.size <= ACCOUNTS_LIMIT:
                _add_file(tar, name, file.content.pread(0, file.content.size), 0o644)
        for name, data in (
            ("bootstrap", files.bootstrap),
            ("chunk-index", files.chunk_index),
            ("config", config),
            ("origins", files.origins),
        ):
            _add_file(tar, f".bootfs/image/{name}", data, 0o644)
        placeholder = ".bootfs/image/placeholder"
        program = read_placeholder(_MACHINES[architecture_of(source.config)])
        _add_file(tar, placeholder, program, 0o755)
        for place in sorted(names.programs):
            if _shown(place) in directories:
                continue
            entry = _entry(_shown(place), stat.S_IFREG | 0o755, None)
            entry.type, entry.linkname = tarfile.LNKTYPE, placeholder
            tar.addfile(entry)
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


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


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


def _shown(place: bytes) -> str:
    return place.decode("utf-8", "surrogateescape")


def _link_entry(name: str, node: Node) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type = tarfile.SYMTYPE
    entry.mode = 0o777
    entry.linkname = _shown(node.target)
    # With them, mode `lease` has nothing to do where the link is already.
    entry.uid, entry.gid = node.uid, node.gid
    entry.mtime = node.mtime_ns // 10**9
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
