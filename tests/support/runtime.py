"""The runtime layer unpacked on this machine, and its interpreter run outside a container."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from converter.runtime import open_runtime

if TYPE_CHECKING:
    from converter.runtime import RuntimeLayer


class Bundle:
    """The files of the layer below a directory of the test."""

    def __init__(self, directory: Path) -> None:
        self.layer: RuntimeLayer = open_runtime()
        with tarfile.open(self.layer.plain_path) as tar:
            tar.extractall(directory, filter="tar")
        self.root = directory / ".bootfs"
        self.runtime = self.root / "runtime"
        self.command: list[str | Path] = [
            *(self.runtime / "ld.so", "--library-path", self.runtime / "lib"),
            *(self.runtime / "python", "-I", "-S", "-B"),
        ]

    def run(self, code: str) -> str:
        """Run Python code as the launcher runs the init; return its standard output."""
        command = [*self.command, "-c", code]
        done = subprocess.run(command, env={}, capture_output=True, text=True, check=False)
        if done.returncode:
            raise AssertionError(f"exited {done.returncode}:\n{done.stderr}")
        return done.stdout
