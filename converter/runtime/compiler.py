"""Compile modules to sourceless ``.pyc``; run by the bundle's own interpreter, never imported.

Usage: ``python compiler.py SOURCE TARGET VIRTUAL``: each ``.py`` below SOURCE becomes a
``.pyc`` below TARGET, in sorted order, in this one process.  What is compiled says that it
lies below VIRTUAL, not where it lay when it was compiled.

marshal writes a reference instead of a second copy for every object that something else
refers to as well, interned names of the running interpreter included.  So what is imported
here is part of the output: nothing but what an interpreter always has at hand.
"""

import posix
import sys
from importlib._bootstrap_external import _code_to_hash_pyc  # type: ignore[attr-defined]  # not in stubs

_OPTIMIZE = 2
_HEADER_HASH = bytes(8)


def _compile_tree(source: str, target: str, virtual: str) -> None:
    for name in sorted(posix.listdir(source)):
        path = f"{source}/{name}"
        if name.endswith(".py"):
            with open(path, "rb") as file:
                text = file.read()
            code = compile(text, f"{virtual}/{name}", "exec", dont_inherit=True, optimize=_OPTIMIZE)
            with open(f"{target}/{name}c", "wb") as file:
                # An unchecked hash is never compared with anything.
                file.write(_code_to_hash_pyc(code, _HEADER_HASH, False))
        else:
            posix.mkdir(f"{target}/{name}")
            _compile_tree(path, f"{target}/{name}", f"{virtual}/{name}")


_compile_tree(*sys.argv[1:])
