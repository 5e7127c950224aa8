"""Target: what is told of an image's start, from programs and scripts that may hold anything."""

from __future__ import annotations

from tests.fuzz.dressing import split_parts
from tests.fuzz.registry import target
from tests.support.analysed import BLOCK, Analysed, make_tree

FILES = ("/app", "/lib64/ld.so", "/usr/lib/lib.so", "/etc/ld.so.cache", "/usr/lib/python3.11/os.py")
_WORDS = (
    *(b"#!/bin/sh\n", b"#!/usr/bin/python3\n", b"#!/app\n", b"$ORIGIN", b"lib.so", b"import os\n"),
    *(b"from . import a", b'exec "$@"', b"/lib64/ld.so\0", b"def f():\n", b"glibc-ld.so.cache1.1"),
)


@target("analysis", words=_WORDS, longest=4096, steps=2_000_000, memory=24 << 20)
def check_analysis(data: bytes) -> bool:
    """Analyse hostile files: reads lie in the image, each page once, every time the same."""
    parts = split_parts(data)
    files: dict[str, bytes | str] = dict(zip(FILES, parts, strict=False))
    interpreters = {"/usr/bin/python3": "/lib64/ld.so", "/bin/sh": "/lib64/ld.so"}
    found = Analysed(
        make_tree({**files, **interpreters}), ["/app", "/app"], {"LD_PRELOAD": "lib.so"}
    )
    again = Analysed(
        make_tree({**files, **interpreters}), ["/app", "/app"], {"LD_PRELOAD": "lib.so"}
    )
    assert found.reads == again.reads
    pages = [page for first, count in found.reads for page in range(first, first + count)]
    assert len(pages) == len(set(pages))
    for path, touched in found.pages.items():
        assert max(touched) * BLOCK < len(files[path])
    return bool(found.pages)
