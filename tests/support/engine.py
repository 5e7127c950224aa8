"""Drive a real Docker engine from a test, and leave nothing behind on it."""

from __future__ import annotations

import contextlib
import functools
import subprocess
import time
import uuid
from typing import TYPE_CHECKING, Any, BinaryIO

from docker import APIClient
from docker.errors import APIError
from docker.utils import kwargs_from_env

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

BASE_IMAGE = "debian:bookworm-slim"

BOOT_OPTIONS = (
    "--cap-add",
    "SYS_ADMIN",
    "--device",
    "/dev/fuse",
    "--security-opt",
    "apparmor=unconfined",
)
"""What `docker run` needs to boot a boot image."""
OWN_NETWORK = {
    *("--network", "--net", "--network-alias", "--ip", "--link", "--mac-address"),
    *("--hostname", "-h", "--domainname", "--uts", "--add-host", "--dns", "--dns-search"),
    *("--dns-option", "--publish", "-p", "--publish-all", "-P", "--expose", "--sysctl"),
}
"""Options of `docker run` that a container which shares another one's network cannot have."""


class EngineError(AssertionError):
    """A docker command failed that should not have; the message holds all it printed."""


def docker(
    *arguments: str, check: bool = True, timeout_s: float = 300, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run one docker command and give its output.

    Raises:
        EngineError: it exited non-zero although `check`.
    """
    done = subprocess.run(
        ["docker", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        errors="backslashreplace",
        timeout=timeout_s,
        check=False,
    )
    if check and done.returncode != 0:
        raise EngineError(
            f"docker {' '.join(arguments)}\nexited {done.returncode}\n{done.stdout}{done.stderr}"
        )
    return done


@contextlib.contextmanager
def asking() -> Iterator[APIClient]:
    """Give a connection to the engine: over it an answer takes a tenth of what a command takes.

    Raises:
        EngineError: the engine refused what was asked.
    """
    client = APIClient(version=_api_version(), timeout=300, **kwargs_from_env())
    with contextlib.closing(client):
        try:
            yield client
        except APIError as error:
            raise EngineError(str(error)) from error


@functools.cache
def _api_version() -> str:
    with contextlib.closing(APIClient(**kwargs_from_env())) as client:
        return str(client.api_version)


def compose_command() -> list[str]:
    """Give the command of the composer that is there: docker's plugin, or else a program."""
    plugin = ["docker", "compose"]
    asked = subprocess.run([*plugin, "version"], capture_output=True, check=False, timeout=30)
    return plugin if asked.returncode == 0 else ["docker-compose"]


class Container:
    """A container that a test has started, known by its name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def logs(self) -> str:
        """Give what the container has written so far, both streams together."""
        with asking() as client:
            shown = [
                client.logs(self.name, stdout=out, stderr=not out).decode(errors="backslashreplace")
                for out in (True, False)
            ]
        return "".join(shown).replace("\r\n", "\n")

    def wait(self, timeout_s: float = 120) -> int:
        """Wait until the container ends and give its exit code."""
        return int(docker("wait", self.name, timeout_s=timeout_s).stdout)

    def wait_for_line(self, text: str, timeout_s: float = 60) -> str:
        """Wait until a line of the logs holds `text`, and give that line.

        Raises:
            EngineError: the container ended, or the time was up, before it did.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            running = self.inspect()["State"]["Running"]
            logs = self.logs()
            for line in logs.splitlines():
                if text in line:
                    return line
            if not running or time.monotonic() > deadline:
                why = "within the time" if running else "before the container ended"
                raise EngineError(f"{self.name}: no line with {text!r} {why}; logs:\n{logs}")
            time.sleep(0.02)

    def run(
        self, *command: str, options: Sequence[str] = (), check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside (`docker exec`)."""
        return docker("exec", *options, self.name, *command, check=check)

    def stop(self, grace_s: int = 10) -> int:
        """Stop the container as `docker stop` does, and give its exit code."""
        docker("stop", "-t", str(grace_s), self.name)
        return int(self.inspect()["State"]["ExitCode"])

    def signal(self, name: str) -> None:
        """Send a signal to the container's first process."""
        with asking() as client:
            client.kill(self.name, name)

    def pid(self) -> int:
        """Give the process id, on the host, of the container's first process."""
        return int(self.inspect()["State"]["Pid"])

    def inspect(self) -> dict[str, Any]:
        """Give what `docker inspect` says."""
        with asking() as client:
            found: dict[str, Any] = client.inspect_container(self.name)
        return found

    def remove(self) -> None:
        """Remove the container with its anonymous volumes, whatever state it is in."""
        docker("rm", "-f", "-v", self.name)


class Engine:
    """Containers, images and volumes of one test: all named after one prefix, all removed."""

    def __init__(self, network: str = "") -> None:
        """With `network`, a container's name, all share its network that ask for none.

        To make a network takes the engine longer than to start the container, and as long again
        to remove it.
        """
        self._network = ("--network", f"container:{network}") if network else ()
        self.prefix = f"bootfs-test-{uuid.uuid4().hex[:10]}"
        self._count = 0
        self._containers: list[str] = []
        self._images: list[str] = []
        self._volumes: list[str] = []

    def name(self) -> str:
        """Give a name nothing else on this engine has."""
        self._count += 1
        return f"{self.prefix}-{self._count}"

    def image_name(self, tag: str = "latest") -> str:
        """Give a reference nothing else has; the image, if made, is removed with the rest."""
        reference = f"{self.name()}:{tag}"
        self._images.append(reference)
        return reference

    def volume(self) -> str:
        """Create a named volume."""
        name = self.name()
        docker("volume", "create", name)
        self._volumes.append(name)
        return name

    def build(self, dockerfile: str, context: Path | None = None) -> str:
        """Build an image and give its reference; without a context there is nothing to COPY."""
        reference = self.image_name()
        if context is None:
            docker("build", "--force-rm", "-t", reference, "-", stdin=dockerfile)
        else:
            (context / "Dockerfile").write_text(dockerfile)
            docker("build", "--force-rm", "-t", reference, str(context))
        return reference

    def pull(self, reference: str) -> None:
        """Pull an image from a registry; it is removed with the rest."""
        docker("pull", reference)
        self._images.append(reference)

    def options(self, given: Sequence[str]) -> tuple[str, ...]:
        """Give the options of a container: those given, and the shared network."""
        own = any(word.partition("=")[0] in OWN_NETWORK for word in given)
        return tuple(given) if own else (*self._network, *given)

    def run(
        self,
        image: str,
        *command: str,
        options: Sequence[str] = (),
        check: bool = False,
        timeout_s: float = 120,
    ) -> subprocess.CompletedProcess[str]:
        """Run a container to its end and give its output and exit code; it is removed."""
        name = self.name()
        self._containers.append(name)
        return docker(
            "run",
            "--rm",
            "--name",
            name,
            *self.options(options),
            image,
            *command,
            check=check,
            timeout_s=timeout_s,
        )

    def start(self, image: str, *command: str, options: Sequence[str] = ()) -> Container:
        """Start a container in the background; it is removed when the test ends."""
        name = self.name()
        self._containers.append(name)
        docker("run", "-d", "--name", name, *self.options(options), image, *command)
        return Container(name)

    def attach(
        self, image: str, *command: str, options: Sequence[str], errors: BinaryIO
    ) -> subprocess.Popen[bytes]:
        """Run a container with pipes as its standard input and output; it is removed.

        What it writes to standard error goes to `errors`, and is in no log.
        """
        name = self.name()
        self._containers.append(name)
        fixed = ("run", "-i", "--rm", "--log-driver", "none", "--name", name)
        return subprocess.Popen(
            ["docker", *fixed, *options, image, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            bufsize=0,
        )

    def create(self, image: str, *command: str, options: Sequence[str] = ()) -> Container:
        """Create a container without starting it, as for `--volumes-from`."""
        name = self.name()
        self._containers.append(name)
        docker("create", "--name", name, *self.options(options), image, *command)
        return Container(name)

    def close(self) -> None:
        """Remove all that this object has named, in the order that the engine allows."""
        commands = (
            (["rm", "-f", "-v"], self._containers),
            (["rmi", "-f"], self._images),
            (["volume", "rm", "-f"], self._volumes),
        )
        for command, names in commands:
            if names:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    docker(*command, *names, check=False)
            names.clear()


def has_image(reference: str) -> bool:
    """Say whether the engine holds an image of this reference."""
    return docker("image", "inspect", reference, check=False).returncode == 0
