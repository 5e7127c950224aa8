"""Names of the objects in a store (docs/format.md, "Store").

The only place that turns a digest into a name, so that nothing taken from an
image or a server can become a path.
"""

from __future__ import annotations

STORE_MARK = "bootfs-store"
"""Object that says "this is a store" and of which version."""
STORE_MARK_TEXT = b"bootfs store 1\n"
CACHE_LAYOUT = "v2"
"""Directory of this layout in a cache volume; another layout takes another name."""


def pack_name(digest: bytes) -> str:
    """Return the name of the pack with this raw SHA-256 digest."""
    text = digest.hex()
    return f"packs/{text[:2]}/{text}"


def chunk_index_name(digest: bytes) -> str:
    """Return the name of the chunk index with this raw BLAKE3 digest."""
    return f"indexes/{digest.hex()}"


def bootstrap_name(digest: bytes) -> str:
    """Return the name of the bootstrap that the chunk index of this raw digest describes."""
    return f"bootstraps/{digest.hex()}"


def manifest_name(digest: bytes) -> str:
    """Return the name of the manifest of the image with the chunk index of this raw digest."""
    return f"manifests/{digest.hex()}"


def profiles_name(digest: bytes) -> str:
    """Return the name of the profiles of the image with the chunk index of this raw digest.

    The only name whose object may change: profiles are added, and nobody can list a plain
    web server.
    """
    return f"profiles/{digest.hex()}"


def hot_pack_name(digest: bytes) -> str:
    """Return the name of the hot pack with this raw SHA-256 digest."""
    return f"hot/{digest.hex()}"
