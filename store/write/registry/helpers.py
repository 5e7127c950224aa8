"""Credential helpers: programs that hold accounts for docker (docker-credential-helpers)."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass, field

from store.errors import AccessDenied

HUB_SERVER = "https://index.docker.io/v1/"
"""How helpers know Docker Hub."""
_NAME = re.compile(r"[A-Za-z0-9._-]+\Z")
_TOKEN_USER = "<token>"  # noqa: S105  what stands for "no user, the secret is a token"
_NOT_FOUND = "credentials not found"
_LIMIT_S = 60.0
"""Those of clouds ask a server in turn."""


@dataclass(frozen=True, slots=True)
class HelperAnswer:
    """What a helper gave for a registry."""

    username: str = field(repr=False)
    secret: str = field(repr=False)

    @property
    def is_token(self) -> bool:
        """Whether the secret is an identity token instead of a password."""
        return self.username == _TOKEN_USER


def ask_helper(helper: str, server: str, named_in: str) -> HelperAnswer | None:
    """Return what ``docker-credential-HELPER get`` has for ``server``; None if it has nothing.

    Raises:
        AccessDenied: it cannot be run, fails, or answers what is no answer.

    """
    program = f"docker-credential-{helper}"
    what = f"{program}, named in {named_in}"
    if not _NAME.match(helper):
        raise AccessDenied(f"{named_in}: {helper[:80]!r} is not the name of a credential helper")
    try:
        done = subprocess.run(
            [program, "get"], input=server.encode(), capture_output=True, check=False,
            timeout=_LIMIT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        # Without the cause: it holds what was printed so far.
        raise AccessDenied(
            f"{what}: no answer for {server} in {_LIMIT_S:g} s; run it by hand"
        ) from None
    except OSError as error:
        raise AccessDenied(
            f"{what}: cannot be run: {error.strerror}; install it, or log in again"
        ) from error
    if done.returncode:
        said = (done.stdout or done.stderr).decode("utf-8", "replace").strip()
        if _NOT_FOUND in said.lower():
            return None
        raise AccessDenied(
            f"{what}: failed for {server} with status {done.returncode}; "
            f"run `echo {server} | {program} get` to see why"
        )
    try:
        answer = json.loads(done.stdout)
        return HelperAnswer(str(answer["Username"]), str(answer["Secret"]))
    except (ValueError, KeyError, TypeError):
        raise AccessDenied(
            f"{what}: answered for {server} with something else than credentials; "
            f"run `echo {server} | {program} get` to see it"
        ) from None
