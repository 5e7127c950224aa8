"""One connection to an SFTP server: many requests of many threads in flight at once.

A thread of its own takes the answers and hands each to whom it is for, so nobody who waits
keeps another from going on.
"""

from __future__ import annotations

import os
from _queue import Empty, SimpleQueue
from _signal import SIGKILL, SIGTERM
from _thread import allocate_lock, start_new_thread
from time import monotonic

from store.errors import (
    AccessDenied,
    BootfsError,
    PackNotFound,
    RemoteError,
    RemoteProtocolError,
    TimedOut,
    Unreachable,
)
from store.format.sftp import (
    ANSWER_STATUS,
    CLOSE,
    NO_SUCH_FILE,
    OK,
    OPEN_READ,
    PERMISSION_DENIED,
    encode_init,
    encode_open,
    encode_path_request,
)
from store.format.sftpanswer import (
    Answer,
    parse_answer,
    parse_handle,
    parse_length,
    parse_status,
    parse_version,
)

STALL_LIMIT_S = 10.0
"""A connection that is asked and says nothing for so long is given up."""
_LARGEST_NUMBER = 0xFFFFFFFF

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from store.read.sshchild import SshChild

    Answers = SimpleQueue[Answer | None]
    """Where somebody waits for answers; None when none will come any more."""


class SftpConnection:
    """SFTP over a running ssh, which becomes this object's."""

    def __init__(self, child: SshChild, where: str, explain: Callable[[str], BootfsError]) -> None:
        """Begin; `begin` is to follow.  ``explain`` makes an error of what ssh said.

        Raises:
            Unreachable: there is no thread to be had; ssh has ended.

        """
        self.where = where
        self.extensions: dict[bytes, bytes] = {}
        """The server's, with their versions."""
        self._child = child
        self._explain = explain
        self._sending = allocate_lock()
        self._pending: dict[int, Answers] = {}
        self._number = 0
        self._heard_s = monotonic()
        self._begun = False
        self._problem: BootfsError | None = None
        self._first: Answers = SimpleQueue()
        self._known = allocate_lock()
        """Held until `_problem` is there, or the connection goes on."""
        self._known.acquire()
        self._done = allocate_lock()
        """Held until nothing is left."""
        self._done.acquire()
        try:
            start_new_thread(self._take_answers, ())
        except RuntimeError:
            # The container may have no more threads (--pids-limit).
            os.close(child.fd_in)
            child.signal(SIGKILL)
            child.end()
            raise Unreachable(f"{where}: no thread to be had") from None

    def begin(self, limit_s: float) -> None:
        """Return when the server is ready.

        Raises:
            AccessDenied, RemoteError: it does not become so.

        """
        self._write(encode_init())
        try:
            answer = self._first.get(timeout=limit_s)
        except Empty:
            self.kill()
            raise TimedOut(f"{self.where}: no login within {limit_s:g} s") from None
        if answer is None:
            raise self._failure()
        self.extensions = parse_version(answer)

    @property
    def is_broken(self) -> bool:
        """Whether nothing can be asked any more."""
        return self._problem is not None

    def kill(self) -> None:
        """End the connection, whatever is under way."""
        self._child.signal(SIGKILL)

    def close(self) -> None:
        """End the connection and return when nothing of it is left."""
        self._child.signal(SIGTERM)
        if not self._done.acquire(timeout=1.0):
            self.kill()
            self._done.acquire()
        self._done.release()

    def ask(self, encode: Callable[[int], bytes], answers: Answers, limit_s: float) -> int:
        """Send the request that ``encode`` makes of a number; return the number.

        Its answer comes to ``answers``.

        Raises:
            Unreachable, TimedOut: the connection is broken.

        """
        if not self._sending.acquire(timeout=max(limit_s, 0.001)):
            self.kill()
            raise TimedOut(f"{self.where}: ssh takes no requests")
        try:
            if self._problem is not None:
                raise self._failure()
            self._number = number = self._number % _LARGEST_NUMBER + 1
            if not self._pending:
                # Nobody expected to hear anything until now.
                self._heard_s = monotonic()
            self._pending[number] = answers
            self._write(encode(number))
        finally:
            self._sending.release()
        return number

    def wait(self, answers: Answers, deadline: float, stall_s: float) -> Answer:
        """Return the next of ``answers``.

        Raises:
            TimedOut: there is none by ``deadline``, or the server says nothing at all for
                ``stall_s``.
            AccessDenied, RemoteError: the connection failed.

        """
        while True:
            now = monotonic()
            left_s = min(deadline, self._heard_s + stall_s) - now
            try:
                answer = answers.get(timeout=max(left_s, 0.0))
            except Empty:
                now = monotonic()
                if now - self._heard_s >= min(stall_s, STALL_LIMIT_S):
                    # Others who wait see it at once; who comes next gets another connection.
                    self.kill()
                    raise TimedOut(
                        f"{self.where}: silent for {now - self._heard_s:.1f} s"
                    ) from None
                if now >= deadline:
                    raise TimedOut(f"{self.where}: no answer in time") from None
                continue
            if answer is None:
                raise self._failure()
            return answer

    def call(
        self, encode: Callable[[int], bytes], deadline: float, stall_s: float = STALL_LIMIT_S
    ) -> Answer:
        """Return the answer to one request.

        Raises:
            as `ask` and `wait`.

        """
        answers: Answers = SimpleQueue()
        self.ask(encode, answers, deadline - monotonic())
        return self.wait(answers, deadline, stall_s)

    def open(self, path: bytes, deadline: float, stall_s: float = STALL_LIMIT_S) -> bytes:
        """Return the handle of a file to be read.

        Raises:
            PackNotFound, AccessDenied, RemoteError: it cannot be opened.

        """
        answer = self.call(lambda n: encode_open(n, path, OPEN_READ), deadline, stall_s)
        self.check(answer, path)
        return parse_handle(answer)

    def forget(self, handle: bytes) -> None:
        """Close a handle and do not wait for it."""
        if self._problem is None:
            try:
                self.ask(lambda n: encode_path_request(CLOSE, n, handle), SimpleQueue(), 1.0)
            except RemoteError:
                return  # with the connection all handles are closed

    def check(self, answer: Answer, path: bytes) -> None:
        """Return when an answer about ``path`` is no failure.

        Raises:
            PackNotFound, AccessDenied, RemoteError: it is one.

        """
        if answer.kind != ANSWER_STATUS:
            return
        code, text = parse_status(answer)
        if code == OK:
            return
        shown = path.decode("utf-8", "replace")
        if code == NO_SUCH_FILE:
            raise PackNotFound(f"{self.where}{shown}: {text or 'no such file'}")
        if code == PERMISSION_DENIED:
            raise AccessDenied(f"{self.where}{shown}: {text or 'permission denied'}")
        raise RemoteError(f"{self.where}{shown}: the server says: {text or f'status {code}'}")

    def _failure(self) -> BootfsError:
        """Return why the connection is broken, as an error of its own to raise."""
        problem = self._problem
        if problem is None:
            return Unreachable(f"{self.where}: the connection broke off")
        return type(problem)(str(problem))

    def _write(self, message: bytes) -> None:
        try:
            view = memoryview(message)
            while view:
                view = view[os.write(self._child.fd_in, view) :]
        except OSError:
            # It has ended, or is about to: who takes the answers knows why.
            with self._known:
                raise self._failure() from None

    def _take_answers(self) -> None:
        try:
            problem = self._answers_until_end()
        except BaseException as error:
            # Whatever it was: who waits is told, and who closes comes to an end.
            problem = Unreachable(f"{self.where}: {error!r}")
        self._problem = problem
        self._known.release()
        # Whoever asks from now on sees that; who has asked is told.
        with self._sending:
            os.close(self._child.fd_in)
            waiting = [self._first, *self._pending.values()]
            self._pending.clear()
        for answers in waiting:
            answers.put(None)
        self._done.release()

    def _answers_until_end(self) -> BootfsError:
        """Give each answer to who waits for it; return why there are no more."""
        problem: BootfsError | None = None
        try:
            while message := self._receive():
                answer = parse_answer(message)
                self._heard_s = monotonic()
                if not self._begun:
                    self._begun = True
                    self._first.put(answer)
                    continue
                answers = self._pending.pop(answer.number, None)
                if answers is None:
                    raise RemoteProtocolError(f"SFTP: an answer to {answer.number}, never asked")
                answers.put(answer)
        except RemoteProtocolError as error:
            problem = RemoteProtocolError(f"{self.where}: {error}")
            self.kill()
        except (OSError, MemoryError) as error:
            problem = Unreachable(f"{self.where}: {error!r}")
            self.kill()
        said = self._child.end()
        if problem is None:
            problem = self._explain(said)
            if self._begun and not isinstance(problem, Unreachable):
                problem = Unreachable(str(problem))
        return problem

    def _receive(self) -> memoryview | None:
        """Return the next message, after its length; None at the end.

        Raises:
            RemoteProtocolError: its length is none.

        """
        head = self._read(4)
        return None if head is None else self._read(parse_length(head))

    def _read(self, size: int) -> memoryview | None:
        view = memoryview(bytearray(size))
        filled = 0
        while filled < size:
            count = os.readv(self._child.fd_out, [view[filled:]])
            if not count:
                return None
            filled += count
        return view
