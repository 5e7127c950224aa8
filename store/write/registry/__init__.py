"""Registries, as the OCI distribution specification has them: manifests, blobs, tags.

`open_repository` gives the client of one repository; what it needs is beside it, a noun a
module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from store.write.registry.accounts import Accounts
    from store.write.registry.client import Repository

LIMIT_S = 60.0
"""How long nothing may get on until a repository gives up."""


def open_repository(
    url: str,
    accounts: Accounts | None = None,
    limit_s: float = LIMIT_S,
    log: Callable[[str], None] = lambda _: None,
) -> Repository:
    """Return a client of the repository at ``docker://HOST[:PORT]/REPOSITORY``.

    Nothing is asked of the registry yet.  ``accounts`` are those of the user where none
    are given; ``limit_s`` bounds how long nothing may get on, of which ``log`` is told.  The
    caller closes it.

    Raises:
        UsageError: it is no such URL.

    """
    from store.write.contact import Contact
    from store.write.registry.accounts import Accounts
    from store.write.registry.client import Repository
    from store.write.registry.endpoint import parse_endpoint
    from store.write.registry.session import Session

    endpoint = parse_endpoint(url)
    return Repository(Session(endpoint, accounts or Accounts.of_user(), limit_s, Contact(log)))
