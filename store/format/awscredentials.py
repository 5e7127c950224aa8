"""The file of credentials that AWS's programs share: sections, and ``key = value``."""

from __future__ import annotations

from store.errors import AccessDenied
from store.format.sigv4 import Credentials

_FIELDS = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")


def parse_aws_credentials(text: str, path: str, profile: str) -> Credentials | None:
    """Return the credentials of section ``profile``; None where the file is empty.

    Sections and keys of other programs are passed over.

    Raises:
        AccessDenied: a line is malformed, the section or half of it is missing; the
            message has no value.

    """
    found: dict[str, str] = {}
    section = ""
    there: list[str] = []
    for number, untrimmed in enumerate(text.split("\n"), 1):
        line = untrimmed.strip()
        if not line or line[0] in "#;":
            continue
        where = f"{path}: line {number}"
        if line[0] == "[":
            if line[-1] != "]":
                raise AccessDenied(f"{where}: a section begins here and has no ']'")
            section = line[1:-1].strip()
            there.append(section)
            continue
        name, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not section:
            raise AccessDenied(f"{where}: neither [SECTION] nor NAME = VALUE below one")
        if section == profile and name.lower() in _FIELDS:
            if not value or any(c <= " " or c > "~" for c in value):
                raise AccessDenied(f"{where}: {name.lower()} has no value, or one with spaces")
            found[name.lower()] = value
    if not there:
        return None
    if profile not in there:
        raise AccessDenied(f"{path}: there is no section [{profile}]")
    for name in _FIELDS[:2]:
        if name not in found:
            raise AccessDenied(f"{path}: section [{profile}] has no {name}")
    return Credentials(found[_FIELDS[0]], found[_FIELDS[1]], found.get(_FIELDS[2], ""))
