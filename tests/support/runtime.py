"""The runtime layer unpacked on this machine, and its interpreter run outside a container."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from converter.runtime import contents, open_runtime

if TYPE_CHECKING:
    from converter.runtime import RuntimeLayer


def import_from(runtime: str, start: str = contents.START) -> str:
    """Return code that has modules imported as a boot does, from the bundle at ``runtime``."""
    return f"""
def _start():
    import marshal, sys
    with open({runtime + "/" + start!r}, "rb") as file:
        code = marshal.loads(file.read()[16:])
    names = {{"__name__": "start"}}
    exec(code, names)
    names["install"]({runtime!r})
_start()
"""


class Bundle:
    """The files of the layer below a directory of the test."""

    def __init__(
        self, directory: Path, architecture: str = "x86_64", emulator: tuple[str, ...] = ()
    ) -> None:
        self.layer: RuntimeLayer = open_runtime(architecture)
        with tarfile.open(self.layer.plain_path) as tar:
            tar.extractall(directory, filter="tar")
        self.root = directory / ".bootfs"
        self.runtime = self.root / "runtime"
        self.command: list[str | Path] = [
            *emulator,
            *(self.runtime / "ld.so", "--library-path", self.runtime / "lib"),
            *(self.runtime / "python", "-I", "-S", "-B"),
        ]

    def run(self, code: str) -> str:
        """Run Python code where the init would run, our modules at hand; return what it prints."""
        command = [*self.command, "-c", import_from(str(self.runtime)) + code]
        done = subprocess.run(command, env={}, capture_output=True, text=True, check=False)
        if done.returncode:
            raise AssertionError(f"exited {done.returncode}:\n{done.stderr}")
        return done.stdout
