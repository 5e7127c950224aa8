"""The C half of `signal`, without its enums."""

from collections.abc import Callable, Iterable
from signal import NSIG as NSIG
from signal import struct_siginfo
from types import FrameType
from typing import Never

SIG_SETMASK: int
SIG_UNBLOCK: int
SIG_DFL: int
SIGCHLD: int
SIGCONT: int
SIGHUP: int
SIGINT: int
SIGIO: int
SIGKILL: int
SIGPIPE: int
SIGTERM: int
SIGQUIT: int
SIGSTOP: int
SIGUSR1: int
SIGUSR2: int
SIGXFSZ: int

def default_int_handler(signalnum: int, frame: FrameType | None, /) -> Never: ...
def getsignal(signalnum: int, /) -> object: ...
def pidfd_send_signal(pidfd: int, sig: int, /) -> None: ...
def pthread_sigmask(how: int, mask: Iterable[int], /) -> set[int]: ...
def sigtimedwait(sigset: Iterable[int], timeout: float, /) -> struct_siginfo | None: ...
def sigwaitinfo(sigset: Iterable[int], /) -> struct_siginfo: ...
def signal(signalnum: int, handler: int | Callable[[int, FrameType | None], None], /) -> object: ...
def sigpending() -> set[int]: ...
