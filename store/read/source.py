"""Sources: read-only access to the objects of a store, by ranges."""

from __future__ import annotations

from store.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from store.interfaces import Mirror, Source


def open_source(
    url: str,
    read_limit_s: float,
    authorities: str = "",
    log: Callable[[str], None] = lambda _: None,
    auth: str = "",
) -> Source:
    """Return the source that ``url`` names: one store, or several mirrors with ``|`` between.

    ``read_limit_s`` bounds what one fetch may take, retries included.
    ``authorities`` is a file of the certificates that HTTPS trusts, empty for the
    machine's own.  ``log`` is told which mirror is left and returned to.  ``auth`` is
    a directory of files with credentials, read when a store asks for some; empty for none.

    Raises:
        UsageError: no such kind of store.
        AccessDenied, Unreachable: a directory that cannot be opened; of mirrors, all.

    """
    if "|" in url:
        from store.read.mirrors import Mirrors

        return Mirrors(url, read_limit_s, authorities, log, auth)
    return open_one(url, read_limit_s, authorities, auth)


def open_one(url: str, read_limit_s: float, authorities: str, auth: str) -> Mirror:
    """Return a single store: a directory, ``file://``, ``http(s)://``, ``docker://``.

    Each kind is imported when it is named: a boot pays for one.

    Raises:
        UsageError, AccessDenied, Unreachable: as `open_source`.

    """
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    if scheme in ("http", "https"):
        from store.read.remote import HttpSource

        return HttpSource(url, read_limit_s, authorities)
    if scheme in ("docker", "docker+http", "docker+https"):
        from store.read.registry import RegistrySource

        return RegistrySource(url, read_limit_s, authorities, auth)
    if scheme in ("", "file") and url:
        from store.read.local import DirectorySource

        return DirectorySource(url[len("file://") :] if scheme else url)
    raise UsageError(f"{url!r}: not a store; give a directory, http://, https:// or docker://")
