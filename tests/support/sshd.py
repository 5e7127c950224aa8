"""A real OpenSSH server on loopback, and what its clients need to log in."""

from __future__ import annotations

import contextlib
import getpass
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.require import SSHD
from tests.support.servers import Server, free_port

if TYPE_CHECKING:
    from collections.abc import Sequence

PASSWORD = "correct horse"
SFTP = "Subsystem sftp internal-sftp"

_CONFIG = """\
Port {port}
{listen}
HostKey {run}/host_key
PidFile none
StrictModes no
UsePAM no
LogLevel VERBOSE
AuthorizedKeysFile {run}/authorized_keys
PasswordAuthentication {password}
KbdInteractiveAuthentication no
PermitRootLogin yes
MaxStartups 100
{extra}
"""
_USER_CONFIG = """\
IdentityFile {run}/auth/id_ed25519
IdentitiesOnly yes
UserKnownHostsFile {run}/auth/known_hosts
"""


def make_key(path: Path) -> str:
    """Make a pair of keys at `path` and `path`.pub; give the public one."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", path]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path.with_name(f"{path.name}.pub").read_text()


def children(process: int) -> list[int]:
    """Give the processes below one, whose parents come first."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{process}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return [p for child in found for p in (child, *children(child))]


class Sshd(Server):
    """sshd that lets in this user with the key in `auth`, a directory as containers get it."""

    def __init__(
        self,
        *,
        addresses: Sequence[str] = (),
        port: int = 0,
        extra: str = SFTP,
        password: str = "",
    ) -> None:
        """Start it; where `password` is given (needs root) it is one to log in with."""
        run = Path(tempfile.mkdtemp(prefix="bootfs-sshd-"))
        port = port or free_port()
        self.run = run
        self.auth = run / "auth"
        self.auth.mkdir()
        self.user = getpass.getuser()
        public = make_key(self.auth / "id_ed25519")
        (run / "authorized_keys").write_text(public)
        self.host_key = make_key(run / "host_key")
        self.addresses = ("127.0.0.1", *addresses)
        self.know(self.host_key, port)
        listen = "\n".join(f"ListenAddress {address}" for address in self.addresses)
        (run / "sshd_config").write_text(
            _CONFIG.format(
                run=run,
                port=port,
                listen=listen,
                extra=extra,
                password="yes" if password else "no",
            )
        )
        # A program ssh as users have it, with another home than this machine's user.
        (run / "config").write_text(_USER_CONFIG.format(run=run))
        self.path = run / "bin"
        self.path.mkdir()
        ssh = shutil.which("ssh")
        wrapper = self.path / "ssh"
        wrapper.write_text(f'#!/bin/sh\nexec {ssh} -F {run}/config "$@"\n')
        wrapper.chmod(0o755)
        self.askpass = run / "askpass"
        self.askpass.write_text('#!/bin/sh\nexec cat "$BOOTFS_ASKPASS_FILE"\n')
        self.askpass.chmod(0o755)
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        command = [SSHD, "-D", "-e", "-f", str(run / "sshd_config")]
        if password:
            command = self._with_password(command, password)
        super().__init__("sshd", command, port, run)
        self.authority = f"{self.user}@127.0.0.1:{port}"

    def url_of(self, path: Path | str, *, address: str = "127.0.0.1") -> str:
        """Give the URL of a directory at this server."""
        return f"ssh://{self.user}@{address}:{self.port}{path}"

    def know(self, host_key: str, port: int = 0) -> None:
        """Have clients expect this host key."""
        lines = [f"[{a}]:{port or self.port} {host_key}" for a in self.addresses]
        (self.auth / "known_hosts").write_text("".join(lines))

    def sessions(self) -> list[int]:
        """Give the processes that serve somebody now."""
        return children(self._process.pid)

    def break_sessions(self) -> None:
        """Kill whoever serves somebody; new ones may come."""
        for process in self.sessions():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def stop(self) -> None:
        """End the server and all its sessions."""
        sessions = self.sessions()
        super().stop()
        for process in sessions:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def _with_password(self, command: list[str], password: str) -> list[str]:
        """Give a command that runs `command` where this user has `password`, and there alone."""
        hashed = subprocess.run(
            ["openssl", "passwd", "-6", "-stdin"],
            input=password,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        lines = Path("/etc/shadow").read_text().splitlines()
        shadow = self.run / "shadow"
        shadow.touch(0o600)
        fields = [line.split(":") for line in lines]
        for entry in fields:
            if entry[0] == self.user:
                entry[1] = hashed
        shadow.write_text("".join(":".join(entry) + "\n" for entry in fields))
        mount = f"mount --bind {shlex.quote(str(shadow))} /etc/shadow"
        return ["unshare", "-m", "sh", "-c", f"{mount} && exec {shlex.join(command)}"]
