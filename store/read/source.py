"""Sources: read-only access to the objects of a store, by ranges."""

from __future__ import annotations

from store.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from store.interfaces import Source


def open_source(url: str, read_limit_s: float, authorities: str = "") -> Source:
    """Return the source that ``url`` names: a directory, ``file://``, ``http://``, ``https://``.

    ``read_limit_s`` bounds what one fetch may take, retries included.
    ``authorities`` is a file of the certificates that HTTPS trusts, empty for the
    machine's own.  Each kind is imported when it is named: a boot pays for one.

    Raises:
        UsageError: no such kind of store.
        AccessDenied, Unreachable: a directory that cannot be opened.

    """
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    if scheme in ("http", "https"):
        from store.read.remote import HttpSource

        return HttpSource(url, read_limit_s, authorities)
    if scheme in ("", "file") and url:
        from store.read.local import DirectorySource

        return DirectorySource(url[len("file://") :] if scheme else url)
    raise UsageError(f"{url!r}: not a store; give a directory, http:// or https://")
