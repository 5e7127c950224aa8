"""Rootless Podman starts boot images: with two options, and with none (docs/engines.md)."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from converter.convert import convert
from converter.progress import Silent
from converter.reference import parse_reference
from store.write.backends import open_backend
from tests.support.converted import LEVEL
from tests.support.engine import docker
from tests.support.require import require

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.converted import Conversions

pytestmark = [
    pytest.mark.system,
    pytest.mark.requires("docker", "fuse", "root", "nginx", "podman", "newuidmap", "runc"),
]

DOCKERFILE = """\
FROM debian:bookworm-slim
RUN useradd -u 4242 -m worker && mkdir -p /content/below && echo kept >/content/below/file \\
 && chown -R worker:worker /content && chmod 1770 /content/below
VOLUME /content
WORKDIR /srv
CMD ["sh", "-c", "echo from CMD; exit 4"]
"""
LOOK = """\
id; pwd; grep -E 'Cap|NoNewPrivs' /proc/self/status
stat -c '%U %G %a' /content /content/below /content/below/file; cat /content/below/file
echo x >/var/tmp/own && echo x >/content/own; ls /var/tmp /content
rm -r /etc/apt && mkdir /etc/apt && ls -A /etc/apt; mv /usr/share/doc /var/doc && ls -d /var/doc/tar
chown worker /etc/motd && stat -c %U /etc/motd; rm /etc/issue; ls /etc/issue 2>&1; exit 7
"""
"""What a workload sees and changes, all kinds of changes an overlay makes marks for among them."""
WHO = """\
id; pwd; echo $HOME; cat /etc/passwd /etc/group; stat -c '%U %a' /etc/passwd /etc/group
touch /etc/own 2>&1; cat /content/below/file 2>&1; echo >/var/tmp/own && rm /etc/passwd 2>&1
"""

UID, SUBORDINATES = 61042, 7_000_000
"""A user of no machine's: he is in the engine's mount namespace alone."""
USER = f"bootfstest:x:{UID}:{UID}::/:/bin/sh"
MACHINE = f"""\
mount -t tmpfs -o mode=755 tmpfs "$0" && cd "$0" && mkdir etc work home run
mount -t overlay -o lowerdir=/etc,upperdir=etc,workdir=work overlay /etc
echo {USER} >>/etc/passwd && echo bootfstest:x:{UID}: >>/etc/group
echo bootfstest:{SUBORDINATES}:65536 | tee -a /etc/subuid >>/etc/subgid
mknod -m 666 fuse c 10 229 && mount --bind fuse /dev/fuse
chown {UID}:{UID} home run && chmod 700 home run
echo ready && exec sleep infinity
"""
"""A mount namespace where that user exists, and may open /dev/fuse as udev lets everybody."""
RIGHTS = ("--cap-add=SYS_ADMIN", "--device=/dev/fuse", "--security-opt=apparmor=unconfined")


class Rootless:
    """Podman of an ordinary user, whose storage is in memory and gone at `close`."""

    def __init__(self, url: str) -> None:
        self._directory = tempfile.mkdtemp(prefix="bootfs-rootless-")
        os.chmod(self._directory, 0o755)
        self._url = url
        self._machine = subprocess.Popen(
            ["unshare", "--mount", "sh", "-e", "-c", MACHINE, self._directory],
            stdout=subprocess.PIPE,
        )
        assert self._machine.stdout
        assert self._machine.stdout.readline() == b"ready\n"
        self.source = self.boot = ""

    def __call__(
        self, *arguments: str, stdin: int = subprocess.DEVNULL
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of podman."""
        home, run = f"{self._directory}/home", f"{self._directory}/run"
        variables = (f"PATH={os.environ['PATH']}:/usr/sbin", f"HOME={home}")
        command = [
            *("nsenter", f"--mount=/proc/{self._machine.pid}/ns/mnt"),
            *("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"),
            *("env", "-i", f"--chdir={home}", *variables, f"XDG_RUNTIME_DIR={run}"),
            *("podman", f"--tmpdir={run}/tmp", "--cgroup-manager=cgroupfs", "--runtime=runc"),
            # The driver vfs, which it may take by itself, copies every layer for each container.
            *("--storage-driver=overlay", "--log-level=error"),
        ]
        return subprocess.run(
            [*command, *arguments],
            stdin=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def load(self, source: Path, boot: Path) -> None:
        """Take in a source image and its boot image."""
        self.source, self.boot = self._load(source), self._load(boot)

    def _load(self, archive: Path) -> str:
        with open(archive, "rb") as file:
            done = self("load", "-q", stdin=file.fileno())
        assert done.returncode == 0, done.stderr
        return done.stdout.strip().partition(": ")[2]

    def run(self, image: str, *command: str, options: tuple[str, ...] = ()) -> tuple[int, str, str]:
        """Run a container to its end; return exit code and both streams."""
        store = ("-e", f"BLOB_STORE={self._url}") if image == self.boot else ()
        own = ("--network=host", "--ulimit=nofile=16384:16384", *store)
        done = self("run", "--rm", *own, *options, image, *command)
        return done.returncode, done.stdout, done.stderr

    def close(self) -> None:
        """End what podman left running for later commands, and remove everything."""
        kept = Path(f"/proc/{self._machine.pid}/root{self._directory}/run/tmp/pause.pid")
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int(kept.read_text()), signal.SIGKILL)
        self._machine.kill()
        self._machine.communicate()
        shutil.rmtree(self._directory, ignore_errors=True)


@pytest.fixture(scope="module")
def rootless(
    conversions: Conversions, base_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rootless]:
    """Give a Podman that holds a source image and its boot image."""
    require("podman", "newuidmap", "runc")
    directory = tmp_path_factory.mktemp("rootless")
    source = conversions.engine.build(DOCKERFILE)
    docker("save", "-o", str(directory / "source.tar"), source)
    convert(
        parse_reference(source),
        parse_reference(f"docker-archive:{directory}/boot.tar:test/boot:1"),
        open_backend(str(conversions.directory)),
        LEVEL,
        "",
        Silent(),
    )
    with contextlib.closing(Rootless(conversions.url)) as rootless:
        rootless.load(directory / "source.tar", directory / "boot.tar")
        yield rootless


@pytest.mark.parametrize(
    ("mode", "rights", "said"),
    [
        ("auto", RIGHTS, "bootfs: mode fuse: the kernel refuses to mount EROFS from a file: "),
        ("fuse", RIGHTS, ""),
        ("auto", (), "bootfs: mode lease: "),
        ("eager", (), ""),
    ],
)
def test_rootless_podman_runs_a_boot_image_as_its_source(
    rootless: Rootless, mode: str, rights: tuple[str, ...], said: str
) -> None:
    options = (*rights, "-e", f"BOOTFS_MODE={mode}")
    code, out, errors = rootless.run(rootless.source, "sh", "-c", LOOK)
    assert (code, errors) == (7, "")
    assert "\nkept\n" in out
    booted = rootless.run(rootless.boot, "sh", "-c", LOOK, options=options)
    assert booted[:2] == (code, out), booted[2]
    assert booted[2].startswith(said)
    assert len(booted[2].splitlines()) == bool(said)


@pytest.mark.parametrize("option", ["--user=worker", "--user=1234:77", "--userns=keep-id"])
def test_rootless_podman_with_another_user(rootless: Rootless, option: str) -> None:
    """One whom the image does not know gets a line in /etc/passwd from Podman."""
    plain = rootless.run(rootless.source, "sh", "-c", WHO, options=(option,))
    assert plain[0] == 1
    for rights in ((*RIGHTS,), (), ("-e", "BOOTFS_MODE=eager")):
        booted = rootless.run(rootless.boot, "sh", "-c", WHO, options=(option, *rights))
        assert booted[:2] == plain[:2]


def test_rootless_podman_without_arguments(rootless: Rootless) -> None:
    code, out, _ = rootless.run(rootless.boot, options=RIGHTS)
    assert (code, out) == (4, "from CMD\n")
