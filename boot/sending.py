"""Put a small object into a store from within a container: a trace (docs/profiles.md).

Imported when a recording is over.  A store that takes nothing from containers is the
ordinary case: what it answers is an error that says so.
"""

from __future__ import annotations

import os
from errno import EDQUOT, ENOSPC, EROFS
from time import monotonic

from store.errors import (
    AccessDenied,
    BootfsError,
    RemoteBusy,
    RemoteError,
    StorageFull,
    Unreachable,
    UsageError,
)
from store.format.http1 import parse_url
from store.format.names import STORE_MARK, STORE_MARK_TEXT
from store.format.shownurl import shown
from store.read.connection import open_connection
from store.read.retry import until_done

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from store.format.http1 import Endpoint, ResponseHead
    from store.format.sftpanswer import Answer
    from store.read.httpaccess import HttpAccess
    from store.read.s3 import S3Access


def send_object(
    urls: str, name: str, data: bytes, limit_s: float, authorities: str, auth: str
) -> str:
    """Write an object that is new to the store ``urls``, the first mirror that takes it.

    Return which that is.  ``limit_s`` is for all of them, ``authorities`` and ``auth`` are
    as for `open_source`.

    Raises:
        BootfsError: none takes it; the message has the reason of each.

    """
    deadline = monotonic() + limit_s
    problems: list[str] = []
    for url in urls.split("|"):
        try:
            _send(url, name, data, max(deadline - monotonic(), 0.0), authorities, auth)
        except BootfsError as error:
            problems.append(str(error))
        else:
            return shown(url)
    raise BootfsError("; ".join(problems))


def _send(url: str, name: str, data: bytes, limit_s: float, authorities: str, auth: str) -> None:
    scheme = url.partition("://")[0].lower() if "://" in url else ""
    if scheme in ("", "file"):
        write_file(url[len("file://") :] if scheme else url, name, data)
    elif scheme in ("http", "https"):
        access = _http_access(auth)
        _put_until_done(url, name, data, limit_s, authorities, access)
    elif scheme == "s3":
        _put_s3(url, name, data, limit_s, authorities, auth)
    elif scheme in ("ssh", "sftp"):
        _put_sftp(url, name, data, limit_s, auth)
    else:
        raise UsageError(
            f"{shown(url)}: containers write no traces to such a store; BOOTFS_RECORD_TO=URL "
            "names a directory, http://, https://, s3:// or ssh:// for them"
        )


def write_file(path: str, name: str, data: bytes) -> None:
    """Write an object into the store in a directory: whole, or not at all.

    Not through a link: the workload may be able to write there too.

    Raises:
        AccessDenied, StorageFull, Unreachable: it cannot be written.
        UsageError: it is no store.

    """
    *parents, last = name.split("/")
    opened: list[int] = []
    try:
        opened.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        _check_mark(opened[0], path)
        for parent in parents:
            _make_directory(parent, opened[-1])
            opened.append(os.open(parent, DIRECTORY, dir_fd=opened[-1]))
        _write_new(opened[-1], last, data)
    except OSError as error:
        where = f"{path}/{name}: {error.strerror}"
        if error.errno in (ENOSPC, EDQUOT):
            raise StorageFull(where) from None
        if isinstance(error, PermissionError) or error.errno == EROFS:
            raise AccessDenied(f"{where}; mount the store for writing") from None
        raise Unreachable(where) from None
    finally:
        for fd in opened:
            os.close(fd)


def _make_directory(name: str, parent: int) -> None:
    try:
        os.mkdir(name, 0o755, dir_fd=parent)
    except FileExistsError:
        return  # by whoever sent the first one


def _check_mark(directory: int, path: str) -> None:
    try:
        fd = os.open(STORE_MARK, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no bootfs store") from None
    try:
        if os.read(fd, len(STORE_MARK_TEXT) + 1) != STORE_MARK_TEXT:
            raise UsageError(f"{path}: a store of another version")
    finally:
        os.close(fd)


def _write_new(directory: int, name: str, data: bytes) -> None:
    part = f"{name}.part"
    fd = os.open(part, NEW, 0o644, dir_fd=directory)
    try:
        try:
            if os.write(fd, data) != len(data):
                raise OSError(ENOSPC, os.strerror(ENOSPC))
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(part, name, src_dir_fd=directory, dst_dir_fd=directory)
    except OSError:
        os.unlink(part, dir_fd=directory)
        raise
    os.fsync(directory)


def _http_access(auth: str) -> HttpAccess | None:
    if not os.path.lexists(auth):
        return None
    from store.read.httpaccess import HttpAccess

    return HttpAccess(auth)


def _put_s3(url: str, name: str, data: bytes, limit_s: float, authorities: str, auth: str) -> None:
    from _hashlib import openssl_sha256

    from store.format.s3place import parse_s3_url
    from store.read.s3 import S3Access

    place = parse_s3_url(url)
    access = S3Access(place, parse_url(place.url), auth)
    digest: str = openssl_sha256(data).hexdigest()

    def sign(endpoint: Endpoint, target: str) -> str:
        return access.signed(endpoint, target, "", "PUT", digest)

    _put_until_done(place.url, name, data, limit_s, authorities, access, sign)


def _put_until_done(
    url: str,
    name: str,
    data: bytes,
    limit_s: float,
    authorities: str,
    access: HttpAccess | S3Access | None,
    sign: Callable[[Endpoint, str], str] | None = None,
) -> None:
    """PUT an object below ``url``, again where that may help; close ``access``.

    ``sign`` returns the header fields that say who asks, where ``access`` does not.
    """
    endpoint = parse_url(url)
    where = f"{endpoint}/{name}"

    def put(left_s: float) -> None:
        connection = open_connection(endpoint, monotonic() + left_s, authorities, access)
        try:
            target = f"{endpoint.path}/{name}"
            fields = sign(endpoint, target) if sign else connection.own_fields(target)
            target, more = connection.route(target)
            head, begun = connection.request(
                (
                    f"PUT {target} HTTP/1.1\r\nHost: {endpoint.authority}\r\n"
                    f"Content-Length: {len(data)}\r\nContent-Type: application/octet-stream\r\n"
                    f"User-Agent: bootfs\r\nConnection: close\r\n{fields}{more}\r\n"
                ).encode("ascii")
                + data
            )
            _check_taken(head, where, access, lambda: connection.read_error(head, begun), endpoint)
        finally:
            connection.close()

    try:
        until_done(put, limit_s, where)
    finally:
        if access is not None:
            access.close()


def _check_taken(
    head: ResponseHead,
    where: str,
    access: HttpAccess | S3Access | None,
    body: Callable[[], bytes],
    endpoint: Endpoint,
) -> None:
    """Return when an object was written.

    Raises:
        AccessDenied, RemoteError: it was not; retryable where another try may help.

    """
    status = head.status
    if status in (200, 201, 204):
        return
    if status in (429, 503):
        raise RemoteBusy(f"{where}: {status}", None)
    if status == 408 or (status >= 500 and status != 501):
        raise Unreachable(f"{where}: {status} from the server")
    refusal = access.refusal(endpoint, head, where, body) if access is not None else None
    if refusal is not None:
        raise refusal
    if status in (401, 403):
        raise AccessDenied(f"{where}: {status}; the server does not let containers write")
    raise RemoteError(f"{where}: {status}; the server takes no files by PUT")


def _put_sftp(url: str, name: str, data: bytes, limit_s: float, auth: str) -> None:
    from store.format.sftp import (
        CLOSE,
        OPEN_CREATE,
        OPEN_EXCLUSIVE,
        OPEN_WRITE,
        READ_SIZE,
        STAT,
        encode_mkdir,
        encode_open,
        encode_path_request,
        encode_rename,
        encode_write,
    )
    from store.format.sftpanswer import parse_handle
    from store.read.ssh import SshSource

    source = SshSource(url, limit_s, auth)
    try:
        deadline = monotonic() + limit_s
        connection = source.session(deadline).connection

        def call(encode: Callable[[int], bytes], path: bytes) -> Answer:
            answer = connection.call(encode, deadline)
            connection.check(answer, path)
            return answer

        def make_directory(path: bytes) -> None:
            # One that is there is a failure like any other: opening the file says which.
            connection.call(lambda n: encode_mkdir(n, path, 0o755), deadline)

        def write(path: bytes, handle: bytes, at: int) -> None:
            piece = data[at : at + READ_SIZE]
            call(lambda n: encode_write(n, handle, at, piece), path)

        mark = source.path(STORE_MARK)
        call(lambda n: encode_path_request(STAT, n, mark), mark)
        parents = name.split("/")[:-1]
        for count in range(1, len(parents) + 1):
            make_directory(source.path("/".join(parents[:count])))
        path = source.path(name)
        part = path + b".part"
        flags = OPEN_WRITE | OPEN_CREATE | OPEN_EXCLUSIVE
        handle = parse_handle(call(lambda n: encode_open(n, part, flags, 0o644), part))
        for at in range(0, len(data), READ_SIZE):
            write(part, handle, at)
        call(lambda n: encode_path_request(CLOSE, n, handle), part)
        call(lambda n: encode_rename(n, part, path), path)
    finally:
        source.close()
