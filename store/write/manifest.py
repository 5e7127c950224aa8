"""The store manifest: what one image needs of a store, for tools that keep stores.

Implements docs/format.md, "Store manifest, version 1".  Canonical JSON, because
people and other tools read it; never read at boot.  Nothing in it but what its name, the
chunk index's digest, decides: equal images of two sources share one manifest.
"""

from __future__ import annotations

import json
import re

from store.errors import FormatError, UnsupportedVersion

VERSION = 1
KIND = "bootfs store manifest"
_HEX = re.compile(r"[0-9a-f]{64}")


def encode_manifest(chunk_index: bytes, packs: list[tuple[bytes, int]]) -> bytes:
    """Return the manifest of the image whose chunk index has this raw digest."""
    document = {
        "kind": KIND,
        "version": VERSION,
        "chunkIndex": f"blake3:{chunk_index.hex()}",
        "packs": [{"digest": f"sha256:{digest.hex()}", "size": size} for digest, size in packs],
    }
    return (json.dumps(document, indent=1, sort_keys=True, ensure_ascii=True) + "\n").encode()


def parse_manifest(data: bytes) -> tuple[bytes, list[tuple[bytes, int]]]:
    """Return chunk index digest and packs (raw digest, size) of a manifest.

    Raises:
        UnsupportedVersion: a version this release does not read.
        FormatError: not a manifest, or a value in it is none.

    """
    try:
        document = json.loads(data)
        if not isinstance(document, dict) or document.get("kind") != KIND:
            raise FormatError("store manifest", 0, "not a store manifest")
        version = document.get("version")
        if type(version) is not int or version != VERSION:
            raise UnsupportedVersion("store manifest", 0, f"version {version!r}")
        packs = [(_raw(p["digest"], "sha256:"), _size(p["size"])) for p in document["packs"]]
        return _raw(document["chunkIndex"], "blake3:"), packs
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError("store manifest", 0, f"{type(error).__name__}: {error}") from None


def _raw(text: object, prefix: str) -> bytes:
    head, hexadecimal = (
        (text[: len(prefix)], text[len(prefix) :]) if isinstance(text, str) else ("", "")
    )
    if head != prefix or not _HEX.fullmatch(hexadecimal):
        raise FormatError("store manifest", 0, f"{text!r:.100} is not a {prefix[:-1]} digest")
    return bytes.fromhex(hexadecimal)


def _size(value: object) -> int:
    if type(value) is not int or not 0 < value < 1 << 63:
        raise FormatError("store manifest", 0, f"{value!r:.100} is not the size of a pack")
    return value
