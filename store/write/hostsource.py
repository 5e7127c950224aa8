"""Sources as commands of this machine read them: with its user's credentials and proxies."""

from __future__ import annotations

from collections.abc import Callable

from store.format.sshurl import is_ssh_url
from store.interfaces import Mirror, Source
from store.read.httpaccess import HttpAccess
from store.read.mirrors import Mirrors
from store.read.remote import HttpSource
from store.read.source import open_one
from store.read.ssh import SshSource
from store.write.backends import is_in_registry
from store.write.contact import Contact
from store.write.hostaccess import auth_directory, environment_proxy

READ_LIMIT_S = 60.0
"""What one read of a command may take, tries after failures included."""


def open_host_source(
    url: str, read_limit_s: float, log: Callable[[str], None] = lambda _: None
) -> Source:
    """Return the source that ``url`` names, one store or several mirrors, as `open_source` does.

    It is read by the same requests as in a container.  A store in S3 is read with the
    credentials that AWS's programs find, one in a registry with those of docker's, one over
    SSH as ssh finds them, one of a web server with the files in `auth_directory`; a mirror
    no differently from a store alone.  ``log`` is told what fails and is asked again.  A
    store alone whose server was never reached is given up after some seconds.

    Raises:
        UsageError, AccessDenied, Unreachable: as `open_source`.

    """
    if "|" in url:
        return Mirrors(url, read_limit_s, log, lambda one: _open_one(one, read_limit_s))
    return _open_one(url, read_limit_s, log)


def _open_one(url: str, read_limit_s: float, log: Callable[[str], None] = lambda _: None) -> Mirror:
    contact = Contact(log)
    scheme = url.partition("://")[0].lower()
    if is_in_registry(url):
        from store.write.hostregistry import HostRegistrySource

        return HostRegistrySource(url, read_limit_s, contact)
    if scheme == "s3":
        from store.write.hosts3 import HostS3Source

        return HostS3Source(url, read_limit_s, contact)
    if scheme in ("http", "https"):
        access = HttpAccess(auth_directory(), environment_proxy)
        return HttpSource(url, read_limit_s, "", access, contact)
    if is_ssh_url(url):
        # ssh is started as the user would start it.
        return SshSource(url, read_limit_s, outage=contact)
    return open_one(url, read_limit_s, "", "")
