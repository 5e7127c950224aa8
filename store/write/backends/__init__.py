"""One store kind a module; `open_backend` finds the one that a URL names."""

from __future__ import annotations

from collections.abc import Callable

from store.errors import UsageError
from store.format.shownurl import shown
from store.interfaces import Backend
from store.write.registry.endpoint import SCHEMES, parse_endpoint


def open_backend(url: str, log: Callable[[str], None] = lambda _: None) -> Backend:
    """Return read-write access to the store at ``url``, as its scheme says.

    A directory, ``file://``, ``docker://``, ``s3://``, ``ssh://``.  ``log`` is told when a
    server fails and is asked again for a while.

    Raises:
        UsageError: such a store cannot be written.
        AccessDenied: it names credentials that there are not.

    """
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    if scheme in ("ssh", "sftp"):
        from store.write.backends.sftp import SftpBackend

        return SftpBackend(url, log)
    if scheme in ("", "file") and url:
        from store.write.backends.directory import DirectoryBackend

        return DirectoryBackend(url[len("file://") :] if scheme else url)
    if is_in_registry(url):
        from store.write.backends.registry import RegistryBackend

        return RegistryBackend(url, log)
    if scheme == "s3":
        from store.write.backends.s3 import S3Backend

        return S3Backend(url, log)
    if scheme in ("http", "https"):
        raise UsageError(
            f"{shown(url)}: a web server cannot be written to; give the directory it serves"
        )
    raise UsageError(
        f"{shown(url)!r}: not a store that can be written; "
        "give a directory, docker://, s3:// or ssh://"
    )


def is_in_registry(url: str) -> bool:
    """Whether the store at ``url`` lies in a registry, which frees by itself what nothing names."""
    return "://" in url and url.partition("://")[0].lower() in SCHEMES


def is_on_this_machine(url: str) -> bool:
    """Whether the store at ``url`` is in a registry at a loopback address."""
    return is_in_registry(url) and parse_endpoint(url).is_loopback


def mount_from(backend: Backend, url: str) -> None:
    """Let ``backend`` use the packs of another repository of its registry.

    Raises:
        UsageError: it is in no registry, or ``url`` is not in the same.
        AccessDenied, RemoteError: that cannot be read.

    """
    if not is_in_registry(backend.location):
        raise UsageError(
            f"{shown(url)}: packs are mounted into a registry's store alone; leave it out"
        )
    from store.write.backends.registry import RegistryBackend

    assert isinstance(backend, RegistryBackend)
    backend.mount_from(url)
