"""Our modules and the packages' as byte code, by the interpreter that will run it.

The host's own Python has another version and writes other bytes, so the bundle's is
started on the host, through the bundle's loader and libraries.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from store.errors import ConvertError

_VIRTUAL_ROOT = "<bootfs>"


def compile_modules(bundle: Mapping[str, bytes], sources: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return the byte code of each source, by its path with ``.pyc`` for ``.py``.

    The same sources give the same bytes wherever this runs.  ``bundle`` holds loader,
    interpreter and libraries; the sources include ``encodings``.

    Raises:
        ConvertError: the interpreter does not run on this machine, or refuses a source.

    """
    with tempfile.TemporaryDirectory(prefix="bootfs-runtime-") as scratch:
        root = Path(scratch)
        for path, body in bundle.items():
            _write(root / "bundle" / path, body)
        for path, text in sources.items():
            _write(root / "source" / path, text)
        for name in ("ld.so", "python"):
            (root / "bundle" / name).chmod(0o755)
        (root / "home/lib").mkdir(parents=True)
        (root / "home/lib/python3.11").symlink_to(root / "source")
        (root / "target").mkdir()
        _write(root / "compiler.py", (files(__package__) / "compiler.py").read_bytes())
        _run(root)
        return {
            path.relative_to(root / "target").as_posix(): path.read_bytes()
            for path in (root / "target").rglob("*.pyc")
        }


def _write(path: Path, body: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)


def _run(root: Path) -> None:
    command: list[str | Path] = [
        *(root / "bundle/ld.so", "--library-path", root / "bundle/lib", root / "bundle/python"),
        # Columns of errors are of no use without the source, and 3 % of the layer.
        *("-P", "-s", "-S", "-B", "-X", "utf8", "-X", "no_debug_ranges"),
        *(root / "compiler.py", root / "source", root / "target", _VIRTUAL_ROOT),
    ]
    # Hash seed and home can only be given by environment, which -I would ignore.
    environment = {"PYTHONHOME": str(root / "home"), "PYTHONHASHSEED": "0", "LC_ALL": "C"}
    try:
        subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    except OSError as error:
        raise ConvertError(
            f"cannot run the interpreter of the runtime layer in {root.parent}"
            f" ({error.strerror}); convert on an x86-64 or AArch64 machine, or set TMPDIR to a"
            " directory that programs may be run from"
        ) from error
    except subprocess.CalledProcessError as error:
        raise ConvertError(
            "the interpreter of the runtime layer cannot compile its modules:"
            f" {error.stderr.strip()}"
        ) from error
