"""The file that a boot imports from: the byte code of its modules, one after the other.

`boot.start` reads it and describes its layout.
"""

from __future__ import annotations

from collections.abc import Mapping

_PYC_HEADER = 16  # magic, flags, and eight bytes of a hash that nobody checks (PEP 552)


def encode_module_file(compiled: Mapping[str, bytes]) -> bytes:
    """Return the file of ``compiled``: ``.pyc`` files by path, and of ``.so`` files the paths."""
    lines: list[str] = []
    bodies: list[bytes] = []
    for path in sorted(compiled):
        stem = path.partition(".")[0]
        name = stem.removesuffix("/__init__").replace("/", ".")
        if path.endswith(".so"):
            lines.append(f"{name} x {path}")
            continue
        body = compiled[path][_PYC_HEADER:]
        lines.append(f"{name} {'p' if stem.endswith('/__init__') else 'm'} {len(body)}")
        bodies.append(body)
    return "\n".join(lines).encode() + b"\n\n" + b"".join(bodies)
