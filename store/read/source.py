"""Sources: read-only access to the objects of a store, by ranges."""

from __future__ import annotations

import os
from _thread import allocate_lock

from store.errors import UsageError
from store.format.shownurl import shown

lookups = allocate_lock()
"""Held while no name may be looked up, which opens files of /etc and waits for them."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from store.interfaces import Access, Mirror, Streaming


def open_source(
    url: str,
    read_limit_s: float,
    authorities: str = "",
    log: Callable[[str], None] = lambda _: None,
    auth: str = "",
) -> Streaming:
    """Return the source that ``url`` names: one store, or several mirrors with ``|`` between.

    ``read_limit_s`` bounds what one fetch may take, retries included.
    ``authorities`` is a file of the certificates that HTTPS trusts, empty for the
    machine's own.  ``log`` is told which mirror is left and returned to, and of a single
    store that it fails and is asked again.  ``auth`` is a directory of files with
    credentials, read when a store asks for some; empty for none.

    Raises:
        UsageError: no such kind of store.
        AccessDenied, Unreachable: a directory or credentials that cannot be read; of
            mirrors, all.

    """
    if "|" in url:
        from store.read.mirrors import Mirrors

        return Mirrors(
            url, read_limit_s, log, lambda one: open_one(one, read_limit_s, authorities, auth)
        )
    return open_one(url, read_limit_s, authorities, auth, log)


def open_one(
    url: str,
    read_limit_s: float,
    authorities: str,
    auth: str,
    log: Callable[[str], None] = lambda _: None,
) -> Mirror:
    """Return a single store, as the scheme of its URL says; without one it is a directory.

    ``file://``, ``http://``, ``https://``, ``s3://``, ``docker://``, ``ssh://``.

    Each kind is imported when it is named: a boot pays for one.

    Raises:
        UsageError, AccessDenied, Unreachable: as `open_source`.

    """
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    if scheme in ("", "file") and url:
        from store.read.local import DirectorySource

        return DirectorySource(url[len("file://") :] if scheme else url)
    from store.read.retry import Outage

    outage = Outage(log)
    if scheme in ("http", "https"):
        from store.read.remote import HttpSource

        return HttpSource(url, read_limit_s, authorities, _open_access(auth), outage)
    if scheme == "s3":
        from store.read.s3 import S3Source

        return S3Source(url, read_limit_s, authorities, auth, outage)
    if scheme in ("ssh", "sftp"):
        from store.read.ssh import SshSource

        return SshSource(url, read_limit_s, auth, outage=outage)
    if scheme in ("docker", "docker+http", "docker+https"):
        from store.read.registry import RegistrySource

        return RegistrySource(url, read_limit_s, authorities, auth, _open_access(auth), outage)
    raise UsageError(
        f"{shown(url)!r}: not a store; give a directory, http://, https://, s3://, docker:// or ssh://"
    )


def _open_access(auth: str) -> Access | None:
    """Return what the files of directory ``auth`` say, also those that come later.

    None where nobody has mounted one.
    """
    if not os.path.lexists(auth):
        return None
    from store.read.httpaccess import HttpAccess

    return HttpAccess(auth)
