"""A tiny language for layers and images of tests.

    tar_of(directory("bin/"), file("bin/sh", b"...", mode=0o755), symlink("sh", "bin/sh"),
           whiteout("etc/passwd"), opaque("var/"))

makes the bytes of a plain layer; ``docker_archive`` and ``oci_layout`` wrap
layers into images, each in the shapes that the tools of the field write.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import posixpath
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import zstandard

Config = dict[str, Any]


class Member:
    """One entry: a header and its data."""

    def __init__(self, info: tarfile.TarInfo, data: bytes = b"") -> None:
        info.size = len(data)
        self.info = info
        self.data = data

    def tobytes(self, tar_format: Literal[0, 1, 2]) -> bytes:
        """Return header, data and padding."""
        head = self.info.tobuf(tar_format, "utf-8", "surrogateescape")
        return head + self.data + bytes(-len(self.data) % 512)


def _text(name: bytes | str) -> str:
    return name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else name


def _member(
    kind: bytes,
    name: bytes | str,
    data: bytes = b"",
    *,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime: int = 1_000_000_000,
    link: bytes | str = "",
    device: tuple[int, int] = (0, 0),
    pax: Mapping[str, str] | None = None,
    xattrs: Mapping[str, bytes] | None = None,
) -> Member:
    info = tarfile.TarInfo(_text(name))
    info.type = kind
    info.mode = mode
    info.uid = uid
    info.gid = gid
    info.mtime = mtime
    info.linkname = _text(link)
    info.devmajor, info.devminor = device
    records = dict(pax or {})
    for key, value in (xattrs or {}).items():
        records[f"SCHILY.xattr.{key}"] = value.decode("utf-8", "surrogateescape")
    info.pax_headers = records
    return Member(info, data)


def file(name: bytes | str, data: bytes = b"", **fields: Any) -> Member:
    """A regular file."""
    return _member(tarfile.REGTYPE, name, data, **fields)


def directory(name: bytes | str, **fields: Any) -> Member:
    """A directory."""
    return _member(tarfile.DIRTYPE, name, **{"mode": 0o755, **fields})


def symlink(name: bytes | str, target: bytes | str, **fields: Any) -> Member:
    """A symbolic link."""
    return _member(tarfile.SYMTYPE, name, link=target, **{"mode": 0o777, **fields})


def hardlink(name: bytes | str, target: bytes | str, **fields: Any) -> Member:
    """A hard link to another path of the archive."""
    return _member(tarfile.LNKTYPE, name, link=target, **fields)


def char_device(name: bytes | str, major: int, minor: int, **fields: Any) -> Member:
    """A character device."""
    return _member(tarfile.CHRTYPE, name, device=(major, minor), **fields)


def block_device(name: bytes | str, major: int, minor: int, **fields: Any) -> Member:
    """A block device."""
    return _member(tarfile.BLKTYPE, name, device=(major, minor), **fields)


def fifo(name: bytes | str, **fields: Any) -> Member:
    """A named pipe."""
    return _member(tarfile.FIFOTYPE, name, **fields)


def whiteout(path: str) -> Member:
    """What hides ``path`` of the lower layers."""
    head, name = posixpath.split(path.rstrip("/"))
    return file(posixpath.join(head, f".wh.{name}"))


def opaque(directory: str) -> Member:
    """What hides everything that lower layers have in ``directory``."""
    return file(posixpath.join(directory, ".wh..wh..opq"))


def tar_of(*members: Member, tar_format: Literal[0, 1, 2] = tarfile.PAX_FORMAT) -> bytes:
    """Return a plain tar."""
    return b"".join(member.tobytes(tar_format) for member in members) + bytes(1024)


def digest(data: bytes) -> str:
    """Return a digest as OCI writes it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def config_of(layers: Sequence[bytes], **fields: Any) -> Config:
    """Return the config of an image with these plain layers."""
    return {
        "architecture": "amd64",
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
        **fields,
    }


def compressed(data: bytes, how: str) -> bytes:
    """Return ``data`` compressed with ``gzip`` or ``zstd``, or as it is (``none``)."""
    if how == "gzip":
        return gzip.compress(data, 1, mtime=0)
    return zstandard.compress(data, 1) if how == "zstd" else data


def files_tar(files: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> bytes:
    """Return a tar of files and symbolic links, in the order given."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type = tarfile.SYMTYPE
            info.linkname = target
            tar.addfile(info)
    return out.getvalue()


def docker_archive(
    *layers: bytes,
    tags: Sequence[str] = ("bootfs-test:latest",),
    style: str = "docker20",
    config: Config | bytes | None = None,
) -> bytes:
    """Return the bytes of ``docker save``: ``docker20``, ``docker25`` or ``skopeo`` style.

    In the style of Docker 20.10 a repeated layer is a symbolic link to its first file.  A
    config given as bytes is written as it is.
    """
    if isinstance(config, bytes):
        raw = config
    else:
        raw = json.dumps(config_of(layers) if config is None else config).encode()
    config_hex = hashlib.sha256(raw).hexdigest()
    files: dict[str, bytes] = {}
    links: dict[str, str] = {}
    names = []
    first: dict[bytes, str] = {}
    for number, layer in enumerate(layers):
        layer_hex = hashlib.sha256(layer).hexdigest()
        if style == "docker20":
            name = f"{hashlib.sha256(b'%d' % number).hexdigest()}/layer.tar"
            if layer in first:
                links[name] = f"../{first[layer]}"
            else:
                files[name] = layer
                first[layer] = name
        elif style == "docker25":
            name = f"blobs/sha256/{layer_hex}"
            files[name] = layer
        else:
            name = f"{layer_hex}.tar"
            files[name] = layer
        names.append(name)
    config_name = f"blobs/sha256/{config_hex}" if style == "docker25" else f"{config_hex}.json"
    files[config_name] = raw
    if style == "docker25":
        files["oci-layout"] = b'{"imageLayoutVersion":"1.0.0"}'
        files["index.json"] = b'{"schemaVersion":2,"manifests":[]}'
    manifest = [{"Config": config_name, "RepoTags": list(tags) or None, "Layers": names}]
    files["manifest.json"] = json.dumps(manifest).encode()
    return files_tar(files, links)


def oci_files(
    *layers: bytes,
    tag: str = "",
    compression: str = "gzip",
    nested: bool = False,
    config: Config | None = None,
) -> dict[str, bytes]:
    """Return the files of an OCI layout with one image; ``nested`` puts it below an index.

    The nested index has another platform's entry before this one's, which is amd64.
    """
    files = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}

    def put(data: bytes, media_type: str) -> dict[str, Any]:
        files[f"blobs/sha256/{hashlib.sha256(data).hexdigest()}"] = data
        return {"mediaType": media_type, "digest": digest(data), "size": len(data)}

    kind = "application/vnd.oci.image"
    raw = json.dumps(config_of(layers) if config is None else config).encode()
    suffix = "" if compression == "none" else f"+{compression}"
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{kind}.manifest.v1+json",
        "config": put(raw, f"{kind}.config.v1+json"),
        "layers": [
            put(compressed(layer, compression), f"{kind}.layer.v1.tar{suffix}") for layer in layers
        ],
    }
    entry = put(json.dumps(manifest).encode(), f"{kind}.manifest.v1+json")
    if nested:
        other = {
            **put(b'{"config":{},"layers":[]}', f"{kind}.manifest.v1+json"),
            "platform": {"os": "linux", "architecture": "s390x"},
        }
        entry["platform"] = {"os": "linux", "architecture": "amd64"}
        index = {
            "schemaVersion": 2,
            "mediaType": f"{kind}.index.v1+json",
            "manifests": [other, entry],
        }
        entry = put(json.dumps(index).encode(), f"{kind}.index.v1+json")
    if tag:
        entry["annotations"] = {"org.opencontainers.image.ref.name": tag}
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    return files


def oci_layout(path: Path, *layers: bytes, **options: Any) -> Path:
    """Write an OCI layout directory and return its path; options as of `oci_files`."""
    for name, data in oci_files(*layers, **options).items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path
