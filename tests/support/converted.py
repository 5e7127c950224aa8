"""Source images converted once for many tests, booted from a store behind a real nginx."""

from __future__ import annotations

import fcntl
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from converter.convert import convert
from converter.progress import Silent
from converter.reference import parse_reference
from store.write.backends import open_backend
from tests.support.engine import BOOT_OPTIONS, Container, Engine, EngineError, docker
from tests.support.servers import Nginx

if TYPE_CHECKING:
    from collections.abc import Sequence

BOOT_LIMIT_S = 60.0
SET_BY_USER = "3"
"""NET_ADDR_SET of linux/netdevice.h."""
SIOCGIFADDR = 0x8915
LEVEL = 1
"""Of compression: tests wait for the converter, not for the network."""


def gateway() -> str:
    """Give the address under which containers reach this machine."""
    form = '{{index .Options "com.docker.network.bridge.name"}}'
    bridge = docker("network", "inspect", "bridge", "-f", form).stdout.strip()
    _keep_address(bridge)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        # linux/if.h: struct ifreq begins with the name; the address is in a sockaddr_in.
        answer = fcntl.ioctl(asking, SIOCGIFADDR, struct.pack("256s", bridge.encode()))
    return socket.inet_ntoa(answer[20:24])


def _keep_address(bridge: str) -> None:
    """See that the bridge's hardware address stays, as that of a bridge of Docker's own does.

    A bridge made by hand takes the lowest address of its ports: containers that
    come and go then cut all others off for seconds.
    """
    device = Path("/sys/class/net") / bridge
    if (device / "addr_assign_type").read_text().strip() != SET_BY_USER:
        address = (device / "address").read_text().strip()
        subprocess.run(["ip", "link", "set", "dev", bridge, "address", address], check=False)


def wait_until_booted(container: Container, *, mounts: bool) -> None:
    """Return when PID 1 of a container has made the root, or has ended.

    Raises:
        EngineError: it has done neither for too long.
    """
    deadline = time.monotonic() + BOOT_LIMIT_S
    while (pid := container.pid()) and not _has_booted(pid, mounts=mounts):
        if time.monotonic() > deadline:
            raise EngineError(f"{container.name} does not boot; logs:\n{container.logs()}")
        time.sleep(0.01)


def _has_booted(pid: int, *, mounts: bool) -> bool:
    root = Path(f"/proc/{pid}/root")
    if mounts:
        return not (root / ".bootfs").exists()
    try:
        # It has gone where only the runtime is.
        return root.readlink().name == ".bootfs"
    except FileNotFoundError:
        return False  # it has ended


@dataclass(frozen=True)
class Converted:
    """A source image, and the boot image made of it."""

    source: str
    boot: str
    store: str
    """BLOB_STORE, as containers see it."""
    mode: str = "erofs"

    @property
    def mounts(self) -> bool:
        """Whether this mode mounts, and the engine has to let it."""
        return self.mode not in ("lease", "eager")

    def options(self, *more: str) -> tuple[str, ...]:
        """Give the options of `docker run` that boot it."""
        return (
            *(BOOT_OPTIONS if self.mounts else ()),
            *("-e", f"BLOB_STORE={self.store}", "-e", f"BOOTFS_MODE={self.mode}"),
            *more,
        )

    def run(
        self, engine: Engine, *command: str, options: Sequence[str] = (), timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Boot it and wait for its end."""
        return engine.run(self.boot, *command, options=self.options(*options), timeout_s=timeout_s)

    def start(self, engine: Engine, *command: str, options: Sequence[str] = ()) -> Container:
        """Boot it in the background; return when its root is the image's."""
        container = engine.start(self.boot, *command, options=self.options(*options))
        wait_until_booted(container, mounts=self.mounts)
        return container

    def run_source(
        self, engine: Engine, *command: str, options: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run the source image the plain way."""
        return engine.run(self.source, *command, options=options)


class Conversions:
    """One store, its server, and the images converted into it; all removed at `close`."""

    def __init__(self) -> None:
        self.engine = Engine()
        self.directory = Path(tempfile.mkdtemp(prefix="bootfs-store-"))
        self.address = gateway()
        self.server = Nginx(self.directory, addresses=[self.address])
        self.url = f"http://{self.address}:{self.server.port}"
        self._converted: dict[str, Converted] = {}

    def convert(self, source: str) -> Converted:
        """Give the boot image of `source`, which the engine holds."""
        if source not in self._converted:
            boot = self.engine.image_name()
            convert(
                parse_reference(source),
                parse_reference(boot),
                open_backend(str(self.directory)),
                LEVEL,
                "",
                Silent(),
            )
            self._converted[source] = Converted(source, boot, self.url)
        return self._converted[source]

    def close(self) -> None:
        """Stop the server; remove images and store."""
        self.server.close()
        self.engine.close()
        shutil.rmtree(self.directory, ignore_errors=True)
