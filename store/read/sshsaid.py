"""What ssh writes to standard error, as an error of ours."""

from __future__ import annotations

from store.errors import AccessDenied, BootfsError, NotReached, RemoteProtocolError, Unreachable

SHOWN = 200
"""Characters of ssh's own words that a message holds at most."""
NOBODY = ("Could not resolve hostname", "Connection refused", "No route to host")
"""What ssh says where there is nobody."""


def explain(said: str, where: str, known_hosts: str, tried: str) -> BootfsError:
    """Return why there is no connection to ``where``.

    ``said`` is what ssh wrote, ``known_hosts`` where host keys are looked up, ``tried`` what
    it was to log in with.
    """
    reason = _last_line(said)
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in said:
        return AccessDenied(
            f"{where}: the server's host key is not the one in {known_hosts}: somebody else may "
            "answer there. If the server has a new key, compare it and replace the line"
        )
    if "host key is known for" in said or "Host key verification failed" in said:
        return AccessDenied(
            f"{where}: the server's host key is unknown: compare what ssh-keyscan prints with the "
            f"server's own key, and add it to {known_hosts}"
        )
    if "Permission denied (" in said or "Too many authentication failures" in said:
        detail = next((line for line in said.splitlines() if line.startswith("Load key")), reason)
        return AccessDenied(
            f"{where}: the server lets nobody in with {tried} ({_short(detail)}); "
            "give a key or password that it takes"
        )
    if "subsystem request failed" in said:
        return RemoteProtocolError(
            f"{where}: the server has no SFTP: its sshd_config lacks 'Subsystem sftp internal-sftp'"
        )
    if "Unable to negotiate" in said or "Bad configuration option" in said:
        return RemoteProtocolError(f"{where}: {_short(reason)}")
    if any(words in said for words in NOBODY):
        return NotReached(f"{where}: {_short(reason)}; is the address right, and does sshd run?")
    if reason:
        return Unreachable(f"{where}: {_short(reason)}")
    return Unreachable(f"{where}: the server closed the connection before SFTP began")


def _last_line(said: str) -> str:
    lines = [line.strip() for line in said.replace("\r", "\n").splitlines()]
    return next((line for line in reversed(lines) if line), "")


def _short(line: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in line[:SHOWN])
