"""There is always one who answers, as long as there may be more."""

from __future__ import annotations

import threading

from boot.fuse import WORKER_LIMIT, Workers


class Started:
    """Counts the threads that were started, each of which ends when told."""

    def __init__(self) -> None:
        self.count = threading.Semaphore(0)
        self.end = threading.Event()

    def __call__(self) -> None:
        self.count.release()
        self.end.wait()


def test_who_waits_leaves_another_to_answer() -> None:
    started = Started()
    workers = Workers(started)
    workers.begin_wait()
    assert started.count.acquire(timeout=10)
    workers.end_wait()
    # Two are free now: the next one that waits needs no third.
    workers.begin_wait()
    assert not started.count.acquire(timeout=0.05)
    workers.begin_wait()
    assert started.count.acquire(timeout=10)
    started.end.set()


def test_there_is_a_limit() -> None:
    started = Started()
    workers = Workers(started)
    for _ in range(WORKER_LIMIT * 2):
        workers.begin_wait()
    for _ in range(WORKER_LIMIT - 1):
        assert started.count.acquire(timeout=10)
    assert not started.count.acquire(timeout=0.05)
    started.end.set()
