"""What ssh logs in with: the files of a directory with credentials, as they are now."""

from __future__ import annotations

import os

from store.errors import AccessDenied

KNOWN_HOSTS, PASSWORD, AGENT = "known_hosts", "password", "agent.sock"
KEY, CERTIFICATE, PUBLIC = "id_", "-cert.pub", ".pub"
"""Beginning of the names of keys; ends of what belongs to them and is no key."""
ASKS_FILE = "BOOTFS_ASKPASS_FILE"
"""Variable that tells ssh's helper where the password is."""
_FORBIDDEN = 0o077
"""Bits of a key's mode with which ssh refuses it, as somebody else's to read."""

Stamp = tuple[tuple[str, int, int, int], ...]
"""Name, inode, size and time of each file: other credentials have another stamp."""


class Login:
    """Options and environment of ssh; what is copied goes when it is closed."""

    __slots__ = ("copies", "environment", "has_password", "options", "tried")

    def __init__(self, tried: str) -> None:
        self.tried = tried
        """What is tried, for messages."""
        self.options: list[str] = []
        self.environment: dict[str, str] = {}
        self.has_password = False
        self.copies: list[str] = []

    def close(self) -> None:
        """Remove the copies; ssh needs them until it has logged in."""
        while self.copies:
            os.unlink(self.copies.pop())


def stamp_of(auth: str) -> Stamp:
    """Return the stamp of the credentials that a directory holds now."""
    found = []
    for name in _names(auth):
        try:
            status = os.stat(f"{auth}/{name}")
        except OSError:
            continue
        found.append((name, status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)


def read_login(auth: str, keys: str, takes_password: bool) -> Login:
    """Return what to log in with, from directory ``auth``; empty for what ssh finds by itself.

    A key that others may read is copied into directory ``keys`` until the login is
    closed, since ssh refuses it where it is.  A password counts where ``takes_password``.

    Raises:
        AccessDenied: files are missing, or cannot be read.

    """
    if not auth:
        login = Login("the keys and the agent that ssh finds by itself")
        login.options += ["-o", "BatchMode=yes"]
        return login
    names = [name for name in _names(auth) if takes_password or name != PASSWORD]
    known_hosts = f"{auth}/{KNOWN_HOSTS}"
    if KNOWN_HOSTS not in names:
        raise AccessDenied(
            f"{known_hosts} is missing: mount a directory at {auth} that has the store's host key "
            "in it, as ssh-keyscan prints it, compared with the server's own"
        )
    certificates = [name for name in names if name.endswith(CERTIFICATE)]
    found = [n for n in names if n.startswith(KEY) and not n.endswith(PUBLIC)]
    used = [f"{auth}/{n}" for n in (*found, AGENT, PASSWORD) if n in names]
    if not used:
        raise AccessDenied(
            f"{auth} has neither a key ({KEY}…) nor {AGENT}"
            + (f" nor {PASSWORD}" if takes_password else f" ({PASSWORD} serves containers alone)")
            + ": put there what the store's server takes"
        )
    login = Login(", ".join(used))
    login.has_password = PASSWORD in names
    methods = "publickey,password,keyboard-interactive" if login.has_password else "publickey"
    options = [
        f"UserKnownHostsFile={_quoted(known_hosts)}",
        "GlobalKnownHostsFile=/dev/null",
        "CheckHostIP=no",
        f"BatchMode={'no' if login.has_password else 'yes'}",
        "NumberOfPasswordPrompts=1",
        f"PreferredAuthentications={methods}",
        f"IdentityAgent={_quoted(f'{auth}/{AGENT}') if AGENT in names else 'none'}",
        f"IdentitiesOnly={'no' if AGENT in names else 'yes'}",
    ]
    try:
        options += [f"IdentityFile={_quoted(_usable(auth, n, keys, login))}" for n in found]
    except OSError as error:
        login.close()
        raise AccessDenied(f"{error.filename}: {error.strerror}") from None
    options += [] if found else ["IdentityFile=none"]
    options += [f"CertificateFile={_quoted(f'{auth}/{name}')}" for name in certificates]
    # Nobody's own configuration counts.
    login.options += ["-F", "none"]
    for option in options:
        login.options += ["-o", option]
    if login.has_password:
        login.environment[ASKS_FILE] = f"{auth}/{PASSWORD}"
    return login


def _names(auth: str) -> list[str]:
    try:
        return sorted(os.listdir(auth)) if auth else []
    except OSError:
        return []


def _usable(auth: str, name: str, keys: str, login: Login) -> str:
    """Return the path of a key that ssh takes: its own, or that of a copy.

    Raises:
        OSError: it cannot be read, or not be copied.

    """
    path = f"{auth}/{name}"
    with open(path, "rb", buffering=0) as file:
        status = os.fstat(file.fileno())
        if not status.st_mode & _FORBIDDEN or status.st_uid != os.getuid():
            return path
        data = file.readall() or b""
    copy = f"{keys}/{os.getpid()}-{len(login.copies)}-{os.urandom(8).hex()}"
    fd = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    login.copies.append(copy)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
    return copy


def _quoted(path: str) -> str:
    """Return a path as ssh_config(5) wants it: words in quotes, ``%`` and ``${`` are special."""
    return '"' + path.replace("%", "%%") + '"'
