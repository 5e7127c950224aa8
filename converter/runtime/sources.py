"""Our own files that the runtime layer carries, found wherever they are installed.

converter copies boot, it never imports it: only the places are looked up.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from converter.runtime.contents import EDITS, OF_ONE_ARCHITECTURE

# What runs in the container; the rest of store belongs to the converter alone.
_CARRIED = ("boot/", "store/__init__.py", "store/errors.py", "store/format/", "store/read/")


def read_own_sources(architecture: str = "x86_64") -> dict[str, bytes]:
    """Return each of our modules that runs in the container, and machine code, by its path.

    As it is to be there: numbers that differ among architectures are those of this one, and
    there is no machine code of another.
    """
    sources: dict[str, bytes] = {}
    for package in ("boot", "store"):
        root = _directory_of(package)
        for path in sorted((*root.rglob("*.py"), *root.rglob("*.so"))):
            name = f"{package}/{path.relative_to(root).as_posix()}"
            is_ours = OF_ONE_ARCHITECTURE.get(name, architecture) == architecture
            if name.startswith(_CARRIED) and is_ours:
                sources[name] = path.read_bytes()
    for name, (stated, wanted) in EDITS[architecture].items():
        sources[name] = _edited(name, sources[name], stated.encode(), wanted.encode())
    return sources


def _edited(name: str, text: bytes, stated: bytes, wanted: bytes) -> bytes:
    if text.count(stated) != 1:
        raise ValueError(f"{name} does not say {stated.decode()!r}, once; see contents.EDITS")
    return text.replace(stated, wanted)


def read_launcher(architecture: str) -> bytes:
    """Return the program that starts the interpreter in a container."""
    return (_directory_of("boot") / "launcher" / f"launcher.{architecture}").read_bytes()


def read_placeholder(architecture: str) -> bytes:
    """Return the program that stands at the names of an image's programs until those are there."""
    return (_directory_of("boot") / "launcher" / f"placeholder.{architecture}").read_bytes()


def read_builder_sources() -> dict[str, bytes]:
    """Return every file that decides how the layer is made from its inputs, by its path."""
    root = Path(__file__).parent
    return {
        f"builder/{path.relative_to(root).as_posix()}": path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.suffix in {".in", ".lock", ".py", ".txt"}
    }


def _directory_of(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"the package {package} of bootfs is not installed")
    return Path(spec.submodule_search_locations[0])
