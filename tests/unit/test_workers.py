"""There is always one who answers, as long as there may be more, and never a second one."""

from __future__ import annotations

import threading

from boot.fuse import WORKER_LIMIT, Workers


class Working:
    """Threads that each take their turn, and say so, when let; each waits as often as told."""

    def __init__(self) -> None:
        self.has_turn = threading.Semaphore(0)
        self.may_wait = threading.Semaphore(0)
        self.is_back = threading.Semaphore(0)
        self.workers = Workers(self.work)

    def work(self) -> None:
        while True:
            self.workers.take_turn()
            self.has_turn.release()
            self.may_wait.acquire()
            self.workers.begin_wait()
            self.is_back.acquire()


def start(working: Working) -> None:
    threading.Thread(target=working.work, daemon=True).start()


def test_who_waits_leaves_another_to_answer() -> None:
    working = Working()
    start(working)
    assert working.has_turn.acquire(timeout=10)
    working.may_wait.release()
    assert working.has_turn.acquire(timeout=10)
    # The first one is back, and queues: there is one who answers.
    working.is_back.release()
    assert not working.has_turn.acquire(timeout=0.05)
    # It is the first one's turn again, and no third is started.
    working.may_wait.release()
    assert working.has_turn.acquire(timeout=10)
    assert not working.has_turn.acquire(timeout=0.05)
    assert working.workers.count == 2


def test_a_second_wait_of_one_answer_takes_nobodys_turn() -> None:
    ran = threading.Event()

    def work() -> None:
        workers.take_turn()
        ran.set()

    workers = Workers(work)
    workers.take_turn()
    workers.begin_wait()
    assert ran.wait(10)
    workers.begin_wait()
    assert workers.count == 2


def test_there_is_a_limit() -> None:
    working = Working()
    start(working)
    for _ in range(WORKER_LIMIT):
        assert working.has_turn.acquire(timeout=10)
        working.may_wait.release()
    # All wait.  Who is back first answers.
    assert not working.has_turn.acquire(timeout=0.05)
    assert working.workers.count == WORKER_LIMIT
    working.is_back.release()
    assert working.has_turn.acquire(timeout=10)


def test_who_leaves_lets_another_go_on() -> None:
    working = Working()
    working.workers.take_turn()
    start(working)
    assert not working.has_turn.acquire(timeout=0.05)
    working.workers.leave_turn()
    assert working.has_turn.acquire(timeout=10)
