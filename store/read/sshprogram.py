"""Which program ``ssh`` is started, and with which options.

In a container it is that of the boot image's second shared layer, with the credentials
that the user has mounted (docs/stores/ssh.md).  Elsewhere it is the user's own, with what
it finds by itself.  Host keys are checked strictly, always.
"""

from __future__ import annotations

import os

from store.errors import UsageError
from store.read.sshlogin import Login, read_login

HOME = "/.bootfs"
LAYER = f"{HOME}/ssh"
"""Where the second shared layer lies: converter/runtime/sshcontents.py."""
KEYS = f"{LAYER}/keys"
"""An empty directory there, for copies of keys; memory where the boot may mount."""
MEMORY = "/dev/shm"  # noqa: S108  # new files alone, of mode 0600 and unforeseeable names
"""For the same elsewhere."""
CONNECT_LIMIT_S = 10
ALIVE_S = 5
"""So long after the server's last word ssh asks for another; after three times that it ends."""

_OPTIONS = (
    *("-a", "-x", "-T", "-e", "none"),
    *("-o", "StrictHostKeyChecking=yes", "-o", "UpdateHostKeys=no"),
    *("-o", f"ConnectTimeout={CONNECT_LIMIT_S}"),
    *("-o", f"ServerAliveInterval={ALIVE_S}", "-o", "ServerAliveCountMax=2"),
    # What a user's own configuration may ask for, and a store does not want.
    *("-o", "ClearAllForwardings=yes", "-o", "PermitLocalCommand=no"),
    *("-o", "RemoteCommand=none", "-o", "ControlMaster=no", "-o", "LogLevel=INFO"),
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from store.format.sshurl import SshPlace


class SshProgram:
    """How ``ssh`` is started on this machine."""

    __slots__ = ("askpass", "command", "environment", "keys")

    def __init__(
        self, command: tuple[str, ...], environment: Mapping[str, str], keys: str, askpass: str
    ) -> None:
        self.command = command
        self.environment = environment
        self.keys = keys
        """A directory for copies of keys whose own mode ssh refuses."""
        self.askpass = askpass
        """A program that prints what is in the file that the variable `ASKS_FILE` names.

        Empty where there is none, and no password can be given.
        """

    def command_for(self, place: SshPlace, login: Login) -> list[str]:
        """Return the command that speaks SFTP with ``place``."""
        command = [*self.command, *_OPTIONS, *login.options]
        if place.port:
            command += ["-p", str(place.port)]
        if place.user:
            command += ["-l", place.user]
        return [*command, "-s", "--", place.host, "sftp"]

    def environment_for(self, login: Login) -> dict[str, str]:
        """Return the environment of that command."""
        asks = {"SSH_ASKPASS": self.askpass, "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": "none"}
        return {**self.environment, **login.environment, **(asks if login.has_password else {})}

    def read_login(self, auth: str) -> Login:
        """Return what to log in with: see `read_login` of store/read/sshlogin.py."""
        return read_login(auth, self.keys, bool(self.askpass))


def find_program(auth: str) -> SshProgram:
    """Return the ``ssh`` of this container, or of this machine.

    Raises:
        UsageError: there is none; the message says how to have one.

    """
    if os.path.exists(f"{LAYER}/ssh"):
        libraries = f"{HOME}/runtime/lib:{LAYER}/lib"
        loader = (f"{HOME}/runtime/ld.so", "--library-path", libraries)
        # It wants an account for the user that it runs as, and the image may have none.
        accounts = ("--preload", f"{LAYER}/lib/libnss_wrapper.so", f"{LAYER}/ssh")
        environment = {
            "HOME": LAYER,
            "LD_LIBRARY_PATH": libraries,  # of the program that it asks for a password
            "NSS_WRAPPER_GROUP": f"{LAYER}/group",
            "NSS_WRAPPER_PASSWD": f"{LAYER}/passwd",
            # The image's own must not be opened: in mode lease that might wait for ssh.
            "OPENSSL_CONF": "/dev/null",
        }
        return SshProgram((*loader, *accounts), environment, KEYS, f"{LAYER}/askpass")
    for directory in os.environ.get("PATH", "").split(":"):
        path = f"{directory}/ssh"
        if directory and os.access(path, os.X_OK):
            return SshProgram((path,), os.environ, MEMORY, "")
    if auth:
        raise UsageError(
            "this boot image has no ssh to reach its store with: convert it again with --with-ssh"
        )
    raise UsageError("no program ssh in PATH: install openssh-client")
