"""One of all who share a cache fetches a chunk, and nobody waits long for one who is gone."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path

import pytest

from store.read import claims as claims_module
from store.read.claims import BUCKETS, CLAIM_S, LINE, WAYS, Claims

DIGEST = bytes(range(32))


def opened(path: Path) -> int:
    """Open a directory for the rest of the session."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock, to be set."""
    clock = [5000.0]
    monkeypatch.setattr(claims_module, "monotonic", lambda: clock[0])
    return clock


@pytest.fixture
def both(tmp_path: Path) -> Iterator[tuple[Claims, Claims]]:
    """The same table, as two containers have it."""
    both = Claims(opened(tmp_path), 1), Claims(opened(tmp_path), 2)
    yield both
    for one in both:
        one.close()


Both = tuple[Claims, Claims]


def test_what_is_claimed_others_leave_until_it_is_released(both: Both) -> None:
    one, other = both
    assert one.take(DIGEST) and not other.is_free(DIGEST) and not other.take(DIGEST)
    other.release(DIGEST)
    assert not other.is_free(DIGEST)
    one.release(DIGEST)
    assert other.is_free(DIGEST) and other.take(DIGEST) and not one.take(DIGEST)


def test_a_claim_runs_out_unless_it_is_renewed(both: Both, now: list[float]) -> None:
    one, other = both
    assert one.take(DIGEST)
    now[0] += CLAIM_S * 0.75
    one.renew(DIGEST)
    now[0] += CLAIM_S * 0.75
    assert not other.is_free(DIGEST)
    now[0] += CLAIM_S * 0.5
    assert other.take(DIGEST)
    # It is the other's now: who comes back late changes nothing.
    one.renew(DIGEST)
    one.release(DIGEST)
    assert not one.is_free(DIGEST)


def test_a_daemon_goes_on_with_the_claims_of_the_one_before_it(tmp_path: Path) -> None:
    died, next_one, other = (Claims(opened(tmp_path), owner) for owner in (0, 0, 7))
    assert died.take(DIGEST) and not other.take(DIGEST)
    assert next_one.is_free(DIGEST) and next_one.take(DIGEST) and not other.is_free(DIGEST)
    next_one.release(DIGEST)
    assert other.take(DIGEST)
    for one in (died, next_one, other):
        one.close()


def test_a_claim_of_before_the_machine_was_started_is_none(both: Both, now: list[float]) -> None:
    one, other = both
    assert one.take(DIGEST)
    now[0] = 12.0
    assert other.take(DIGEST)


def test_where_no_line_is_left_one_fetches_without_a_claim(both: Both) -> None:
    one, other = both
    same_bucket = [DIGEST[:4] + bytes([n]) * 28 for n in range(WAYS + 1)]
    assert all(one.take(digest) for digest in same_bucket)
    assert [other.take(digest) for digest in same_bucket] == [False] * WAYS + [True]


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, os.urandom(BUCKETS * WAYS * LINE.size)])
def test_a_table_of_anything_at_all_is_one(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "claims").write_bytes(content)
    one, other = Claims(opened(tmp_path), 1), Claims(opened(tmp_path), 2)
    # Noise may be a claim of somebody's, which runs out; a NaN or an end far away is none.
    if one.take(DIGEST):
        assert not other.take(DIGEST)
    os.truncate(tmp_path / "claims", 3)
    assert other.is_free(DIGEST) and other.take(DIGEST)
    one.close()
    other.close()


def test_of_many_at_once_one_has_it(tmp_path: Path) -> None:
    digests = [blake2b(bytes([n >> 8, n & 255]), digest_size=32).digest() for n in range(400)]
    barrier = threading.Barrier(8)
    tables = [Claims(opened(tmp_path), n + 1) for n in range(8)]

    def take(table: Claims) -> list[bytes]:
        barrier.wait()
        return [digest for digest in digests if table.take(digest)]

    with ThreadPoolExecutor(8) as pool:
        taken = Counter(digest for found in pool.map(take, tables) for digest in found)
    for table in tables:
        table.close()
    assert taken.total() == len(taken)
    assert set(taken) == set(digests)


def test_a_container_stopped_in_the_moment_of_claiming_stops_nobody(tmp_path: Path) -> None:
    place = claims_module._bucket(DIGEST)
    code = (
        "import os, sys\nfrom store.read.claims import Claims\n"
        "claims = Claims(os.open(sys.argv[1], os.O_RDONLY), 1)\n"
        "assert claims._lock(int(sys.argv[2]))\n"
        "print(flush=True)\nsys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path), str(place)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as stopped:
        assert stopped.stdin and stopped.stdout and stopped.stdout.readline()
        claims = Claims(opened(tmp_path), 2)
        assert not claims.take(DIGEST) and claims.is_free(DIGEST)
        stopped.kill()
    assert claims.take(DIGEST)
    claims.close()
