import pytest

from boot import repeats
from boot.repeats import RepeatedReads
from store.errors import IntegrityError, TimedOut

Asked = list[tuple[int, int]]


class Store:
    """Fails as it is told, and notes what it was asked for."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.asked: Asked = []

    def read(self, offset: int, size: int) -> list[bytes | memoryview]:
        self.asked.append((offset, size))
        if self.error is not None:
            raise self.error
        return [bytes(size)]


def fail(reads: RepeatedReads, offset: int, size: int) -> None:
    with pytest.raises(TimedOut, match="gone"):
        reads.read(offset, size)


def test_what_a_kernel_repeats_fails_at_once() -> None:
    store = Store(TimedOut("gone"))
    reads = RepeatedReads(store.read)
    # As seen under EROFS over FUSE.
    for offset, size in ((0, 65536), (0, 4096), (65536, 65536), (65536, 4096), (0, 4096)):
        fail(reads, offset, size)
    assert store.asked == [(0, 65536)]


@pytest.mark.parametrize("read", [(0, 65536), (4096, 131072), (131072, 4096), (135168, 4096)])
def test_what_another_reads_has_its_own_limit(read: tuple[int, int]) -> None:
    store = Store(TimedOut("gone"))
    reads = RepeatedReads(store.read)
    fail(reads, 0, 65536)
    fail(reads, *read)
    assert store.asked == [(0, 65536), read]


def test_a_failure_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "KEPT_S", 0.0)
    store = Store(TimedOut("gone"))
    reads = RepeatedReads(store.read)
    fail(reads, 0, 65536)
    store.error = None
    assert reads.read(0, 4096) == [bytes(4096)]


def test_a_chain_of_reads_does_not_keep_a_failure_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(repeats, "monotonic", lambda: now)
    store = Store(TimedOut("gone"))
    reads = RepeatedReads(store.read)
    for number in range(5):
        fail(reads, number * 65536, 65536)
        now += 0.4
    assert store.asked == [(0, 65536), (3 * 65536, 65536)]


def test_one_that_failed_while_another_was_waited_for_is_still_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(repeats, "monotonic", lambda: now)
    asked: Asked = []

    def read(offset: int, size: int) -> list[bytes | memoryview]:
        """The read behind 1 MiB is under way when those before it are asked for, and ends last."""
        nonlocal now
        asked.append((offset, size))
        if offset == 1 << 20:
            fail(reads, 0, 65536)
            now += 20
            fail(reads, 2 << 20, 65536)
            now += 5
        raise TimedOut("gone")

    reads = RepeatedReads(read)
    fail(reads, 4 << 20, 65536)
    now += 2
    fail(reads, 1 << 20, 65536)
    now += 0.5
    done = list(asked)
    for offset in (1 << 20, 0, 2 << 20):
        fail(reads, offset, 4096)
    assert asked == done
    # Over before that began.
    fail(reads, 4 << 20, 4096)
    assert asked[-1] == (4 << 20, 4096)


def test_what_fails_at_once_may_be_asked_again() -> None:
    store = Store(IntegrityError("wrong"))
    reads = RepeatedReads(store.read)
    for _ in range(2):
        with pytest.raises(IntegrityError):
            reads.read(0, 4096)
    assert len(store.asked) == 2


def test_only_so_many_failures_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "KEPT", 2)
    store = Store(TimedOut("gone"))
    reads = RepeatedReads(store.read)
    for at in (0, 1 << 20, 2 << 20):
        fail(reads, at, 65536)
    fail(reads, 0, 4096)
    fail(reads, 2 << 20, 4096)
    assert store.asked[3:] == [(0, 4096)]
