"""Every error of bootfs, and the exit code each of them ends a command with.

A code belongs to a class and is inherited; docs/exit-codes.md is generated from
the subclasses.  Catchers ask two questions only: is it a `NotFound`, and is it
``retryable``.  Imported on the boot path: nothing heavier than a class statement.
"""


class BootfsError(Exception):
    """Something failed and the message says what, where and what to do."""

    exit_code = 1
    retryable = False


class UsageError(BootfsError):
    """The command line asks for something impossible or contradictory."""

    exit_code = 2


class NotFound(BootfsError):
    """A named thing does not exist where it was looked for."""

    exit_code = 10


class ImageNotFound(NotFound):
    """No image has this reference."""


class PackNotFound(NotFound):
    """The store does not hold this pack."""


class IntegrityError(BootfsError):
    """Bytes are not what their digest or size promises."""

    exit_code = 11


class DigestMismatch(IntegrityError):
    """Bytes do not have the digest they are named by.

    ``expected`` and ``actual`` are printable digests, ``where`` names the object.
    """

    def __init__(self, where: str, expected: str, actual: str) -> None:
        super().__init__(
            f"{where}: digest is {actual}, expected {expected}; the copy is damaged, fetch it again"
        )
        self.where = where
        self.expected = expected
        self.actual = actual


class SizeMismatch(IntegrityError):
    """Bytes are more or fewer than promised; ``where`` names the object."""

    def __init__(self, where: str, expected: int, actual: int) -> None:
        super().__init__(
            f"{where}: {actual} bytes, expected {expected}; the copy is damaged, fetch it again"
        )
        self.where = where
        self.expected = expected
        self.actual = actual


class FormatError(BootfsError):
    """Bytes are not what the format allows.

    ``what`` names the object, ``offset`` is the byte in it where reading stopped,
    ``problem`` says what is wrong there.
    """

    exit_code = 12

    def __init__(self, what: str, offset: int, problem: str) -> None:
        super().__init__(f"{what}: at byte {offset}: {problem}")
        self.what = what
        self.offset = offset
        self.problem = problem


class UnsupportedVersion(FormatError):
    """The object was written by a version of bootfs this one does not read."""


class AccessDenied(BootfsError):
    """Permission or credentials are missing; asking again will not help."""

    exit_code = 13


class RemoteError(BootfsError):
    """A store, registry or engine did not give what was asked of it."""

    exit_code = 14


class Unreachable(RemoteError):
    """No connection could be made or kept."""

    retryable = True


class NotReached(Unreachable):
    """Nobody answers there at all: no such name, no one who listens, or no one who speaks TLS."""


class TimedOut(RemoteError):
    """No answer came within the limit."""

    retryable = True


class RemoteBusy(RemoteError):
    """The other side asks to come back later, after ``retry_after_s`` seconds if it said so."""

    retryable = True

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RemoteProtocolError(RemoteError):
    """The answer is not what the protocol allows."""


class ConvertError(BootfsError):
    """The source image cannot be converted."""

    exit_code = 15


class UnsafePath(ConvertError):
    """A layer names a path that leaves the root of the image."""


class UnsupportedEntry(ConvertError):
    """A layer holds an entry that bootfs cannot represent."""


class StorageFull(ConvertError):
    """The disk written to is full."""


class BootError(BootfsError):
    """The container cannot be started, for a reason of bootfs's own."""

    exit_code = 125


class MountFailed(BootError):
    """The kernel or the engine refused a mount that the mode needs."""


class WorkloadNotExecutable(BootError):
    """The workload's program exists and cannot be executed."""

    exit_code = 126


class WorkloadNotFound(BootError):
    """The workload's program does not exist."""

    exit_code = 127
