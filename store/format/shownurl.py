"""URLs as messages show them: without what may be a secret in them.

Refused URLs reach here too, so nothing is taken to be well-formed: what cannot be told
from a secret is hidden.
"""

from __future__ import annotations

HIDDEN = "…"
READABLE = ("endpoint", "profile", "region", "style")
"""Keys of a query whose values are none."""

_SAFE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
_SAFE_URL = _SAFE | frozenset(":/[]")
_DIGEST = "@sha256:"


def shown(url: str) -> str:
    """Return ``url``, or several with ``|`` between, with `HIDDEN` for what may be secret.

    User and password, values of a query but those of `READABLE`, and a fragment.  The
    user of ``ssh`` stays, who is no secret.  Also for references to images.
    """
    parts: list[str] = []
    for part in url.split("|"):
        # Without a scheme it may as well be the rest of a password.
        if parts and "://" not in part:
            parts[-1] += f"|{part}"
        else:
            parts.append(part)
    return "|".join(map(_shown_one, parts))


def _shown_one(url: str) -> str:
    url, hash_mark, fragment = url.partition("#")
    place, question_mark, query = url.partition("?")
    scheme, separator, rest = place.partition("://")
    pairs = query.split("&")
    if separator and ("@" in fragment or any(map(_has_user, pairs))):
        # These marks may be a password's, and nothing before the "@" is what it seems.
        return f"{scheme}://{HIDDEN}"
    if separator:
        place = f"{scheme}://{_shown_place(scheme.lower(), rest)}"
    else:
        place = _without_password(place)
    query = "&".join(map(_shown_pair, pairs)) if query else ""
    return f"{place}{question_mark}{query}{hash_mark}{HIDDEN if hash_mark else ''}"


def _has_user(pair: str) -> bool:
    """Whether there is an ``@`` where none belongs in a query."""
    return "@" in pair and not pair.startswith("endpoint=")


def _shown_place(scheme: str, place: str) -> str:
    """Return what follows ``SCHEME://``, up to a query."""
    place, mark, digest = place.partition(_DIGEST)
    user, at, address = place.rpartition("@")
    if at and ("@" in _first(place) or ":" in user):
        is_plain = scheme in ("ssh", "sftp") and "/" not in user
        place = f"{user.partition(':')[0] if is_plain else HIDDEN}@{address}"
    elif not _may_be_host(_first(place)):
        # The path may be the password's too.
        place = HIDDEN
    return f"{place}{mark}{digest}"


def _without_password(text: str) -> str:
    """Return a text without a scheme, and without ``USER:PASSWORD@`` at its beginning."""
    text, mark, digest = text.partition(_DIGEST)
    user, at, address = text.rpartition("@")
    # A path after a transport, oci:/…, is none.
    if at and _first(user).partition(":")[2]:
        text = f"{HIDDEN}@{address}"
    return f"{text}{mark}{digest}"


def _first(place: str) -> str:
    """Return what stands before a slash, or the next mirror."""
    return place.partition("/")[0].partition("|")[0]


def _may_be_host(authority: str) -> bool:
    """Whether this is no ``USER:PASSWORD`` whose ``@`` is behind a mark in the password."""
    host, colon, port = authority.rpartition(":")
    if not colon or (authority.startswith("[") and port.endswith("]")):
        return True
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        return False
    return not port or (port.isdigit() and len(port) <= 5)


def _shown_pair(pair: str) -> str:
    """Return a ``KEY=VALUE`` of a query."""
    key, equals, value = pair.partition("=")
    if key in READABLE:
        return f"{key}{equals}{_shown_value(value)}"
    # Without a value the key may be a token, at whose end some have an "=".
    is_key = value.strip("=") and _SAFE.issuperset(key)
    return f"{key}={HIDDEN}" if is_key else HIDDEN


def _shown_value(value: str) -> str:
    """Return the value of a key that is `READABLE`, as far as it looks like one."""
    if _SAFE.issuperset(value):
        return value
    scheme, separator, place = value.partition("://")
    _, at, address = place.rpartition("@")
    if not separator or not _SAFE.issuperset(scheme) or not _SAFE_URL.issuperset(address):
        return HIDDEN
    return f"{scheme}://{HIDDEN}@{address}" if at else f"{scheme}://{_shown_place(scheme, place)}"
