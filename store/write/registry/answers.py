"""What a registry's answers mean: statuses and error codes as errors of ours."""

from __future__ import annotations

import json
from email.utils import parsedate_to_datetime
from time import time

import httpx

from store.errors import (
    AccessDenied,
    BootfsError,
    NotFound,
    RemoteBusy,
    RemoteProtocolError,
    SizeMismatch,
    StorageFull,
)

ERROR_LIMIT = 64 << 10
"""Bytes of an error's body that are read."""
_SHOWN = 200


class Refused(RemoteProtocolError):
    """An answer that is wrong for whoever asked; ``status`` and ``codes`` say which.

    The codes are those of the distribution specification, ``BLOB_UPLOAD_INVALID``.
    """

    def __init__(self, message: str, status: int, codes: list[str]) -> None:
        super().__init__(message)
        self.status = status
        self.codes = codes


class AskedTooOften(RemoteBusy):
    """The answer 429: the registry did nothing of what it was asked for."""


def error_of(answer: httpx.Response, body: bytes, where: str) -> BootfsError:
    """Return the error that an answer with a status of 400 or more is.

    ``where`` names what was asked for.  An answer 401 is not for here.
    """
    codes, said = _explained(body)
    status = answer.status_code
    told = f"HTTP status {status}" + (f": {said}" if said else "")
    if status in (404, 410):
        return NotFound(f"{where}: the registry does not have it ({told}); check the name")
    if status == 507 or "quota" in said.lower():
        return StorageFull(
            f"{where}: the registry has no room for it ({told}); free some, or have its quota "
            "raised"
        )
    if status == 413:
        return StorageFull(
            f"{where}: too large for the registry or a proxy before it ({told}); "
            "raise its limit (nginx: client_max_body_size 0)"
        )
    later_s = retry_after_s(answer.headers.get("retry-after", ""))
    if status == 429 or "TOOMANYREQUESTS" in codes:
        return AskedTooOften(f"{where}: the registry asks to come later ({told})", later_s)
    if status in (500, 502, 503, 504):
        return RemoteBusy(f"{where}: the registry failed ({told}); see its log", later_s)
    if status == 405:
        is_removal = answer.request.method == "DELETE"
        why = "removing is switched off there" if is_removal else "it is read-only"
        return AccessDenied(
            f"{where}: the registry does not allow {answer.request.method} ({told}): {why}; "
            "use another repository or have that changed"
        )
    if status == 416:
        return SizeMismatch(where, _asked_end(answer.request), _stated_size(answer))
    return Refused(f"{where}: the registry refuses ({told}); see its log", status, codes)


def retry_after_s(value: str) -> float | None:
    """Return the seconds that a Retry-After header asks for (RFC 9110, 10.2.3); None if none."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time())
    except (ValueError, TypeError, OverflowError):
        return None


def _explained(body: bytes) -> tuple[list[str], str]:
    """Return codes and messages of an error's body, nothing where it has another form."""
    try:
        listed = json.loads(body)["errors"]
        entries = [entry for entry in listed if isinstance(entry, dict)]
    except (ValueError, KeyError, TypeError, RecursionError):
        return [], ""
    codes = [str(entry.get("code", "")) for entry in entries]
    said = "; ".join(f"{entry.get('code', '')} {entry.get('message', '')}" for entry in entries)
    return codes, "".join(c if c.isprintable() else " " for c in said).strip()[:_SHOWN]


def _asked_end(request: httpx.Request) -> int:
    end = request.headers.get("range", "").rpartition("-")[2]
    return int(end) + 1 if end.isdigit() else 0


def _stated_size(answer: httpx.Response) -> int:
    size = answer.headers.get("content-range", "").rpartition("/")[2]
    return int(size) if size.isdigit() else 0
