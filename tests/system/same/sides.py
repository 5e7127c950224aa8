"""The two ways to run an image, plain and converted, behind one set of methods."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.converted import wait_until_booted
from tests.support.engine import Container, Engine, docker
from tests.system.same.modes import MODES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PROBE = Path(__file__).with_name("image")


class Images:
    """The suite's source images, each built once, and converted once where that is wanted."""

    def __init__(self, base: str, build: Callable[[str], str], convert: Callable[[str], str]):
        self._base = base
        self._build = build
        self._convert = convert
        self._built = {"": base}
        self._building = threading.Lock()
        self._converting = threading.Lock()

    def source(self, instructions: str) -> str:
        """Give the probe's image, changed by some instructions of a Dockerfile."""
        with self._building:
            if instructions not in self._built:
                self._built[instructions] = self._build(f"FROM {self._base}\n{instructions}\n")
            return self._built[instructions]

    def boot(self, instructions: str) -> str:
        """Give the same image, converted."""
        source = self.source(instructions)
        with self._converting:
            return self._convert(source)


class Side:
    """One of the two ways, for one case; what it makes on the engine is removed at its `close`."""

    def __init__(
        self, images: Images, mode: str | None, store: str, store_directory: Path, network: str
    ) -> None:
        self._images = images
        self.mode = mode
        """None: the source image, run the plain way."""
        self._store = store
        self.store_directory = store_directory
        self.engine = Engine(network)
        self.directory = Path(tempfile.mkdtemp(prefix="bootfs-same-"))
        """A directory of the host, for what a case mounts."""
        self.directory.chmod(0o755)

    def close(self) -> None:
        """Remove all that the case has made."""
        self.engine.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def image(self, instructions: str = "") -> str:
        """Give the reference of the image, changed by some instructions of a Dockerfile."""
        if self.mode is None:
            return self._images.source(instructions)
        return self._images.boot(instructions)

    def options(self, more: Sequence[str] = ()) -> list[str]:
        """Give the options of `docker run`, with what booting takes where this is booted.

        ``DIRECTORY`` stands for `directory`.
        """
        given = [word.replace("DIRECTORY", str(self.directory)) for word in more]
        if self.mode is None:
            return given
        ours = [*MODES[self.mode].options, "-e", f"BOOTFS_MODE={self.mode}"]
        if not any(word.startswith("BLOB_STORE=") for word in given):
            ours += ["-e", f"BLOB_STORE={self._store}"]
        return ours + given

    def run(self, *command: str, options: Sequence[str] = (), image: str = "") -> str:
        """Run a container to its end; give its exit code and what it printed."""
        done = self.engine.run(self.image(image), *command, options=self.options(options))
        return self.shown(done)

    def run_on_terminal(
        self, *command: str, options: Sequence[str] = (), image: str = "", typed: bytes = b""
    ) -> str:
        """Run a container on a terminal of 77 columns and 33 rows; type something at once."""
        name = self.engine.name()
        given = self.engine.options(self.options(options))
        words = ["docker", "run", "--rm", "-it", "--name", name, *given]
        ours, theirs = pty.openpty()
        subprocess.run(["stty", "rows", "33", "cols", "77"], stdin=theirs, check=True)
        os.write(ours, typed)
        process = subprocess.Popen(
            [*words, self.image(image), *command],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        output = b""
        try:
            while piece := _read(ours):
                output += piece
            code = process.wait(60)
        finally:
            process.kill()
            process.wait()
            os.close(ours)
        return f"== exit code\n{code}\n== output\n{output.decode(errors='backslashreplace')}"

    def start(self, *command: str, options: Sequence[str] = (), image: str = "") -> Container:
        """Start a container in the background; return when its workload may have begun."""
        container = self.engine.start(self.image(image), *command, options=self.options(options))
        self.wait_until_booted(container)
        return container

    def wait_until_booted(self, container: Container) -> None:
        """Return when `docker exec` lands in the workload's root."""
        if self.mode is not None:
            wait_until_booted(container, mounts=self.mode not in ("lease", "eager"))

    def docker(self, *arguments: str) -> str:
        """Run a docker command; give its exit code and what it printed."""
        return self.shown(docker(*arguments, check=False))

    def shown(self, done: subprocess.CompletedProcess[str]) -> str:
        """Give exit code and output of a command as sections."""
        sections = [f"== exit code\n{done.returncode}\n"]
        # A program's own sections stay.
        sections.append(f"== output\n{_ended(done.stdout)}")
        sections.append(f"== errors\n{_ended(done.stderr)}")
        return "".join(sections).replace(str(self.directory), "DIRECTORY")


def _ended(text: str) -> str:
    return text if not text or text.endswith("\n") else text + "\n"


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:
        # EIO: nobody has the other end any more.
        return b""
