"""One store kind a module; `open_backend` finds the one that a URL names."""

from __future__ import annotations

from store.errors import UsageError
from store.interfaces import Backend


def open_backend(url: str) -> Backend:
    """Return read-write access to the store at ``url``: a directory, ``file://``, ``s3://``.

    Raises:
        UsageError: such a store cannot be written.
        AccessDenied: it names credentials that there are not.

    """
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    if scheme in ("", "file") and url:
        from store.write.backends.directory import DirectoryBackend

        return DirectoryBackend(url[len("file://") :] if scheme else url)
    if scheme == "s3":
        from store.write.backends.s3 import S3Backend

        return S3Backend(url)
    if scheme in ("http", "https"):
        raise UsageError(f"{url}: a web server cannot be written to; give the directory it serves")
    raise UsageError(f"{url!r}: not a store that can be written; give a directory or s3://")
