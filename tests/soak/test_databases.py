"""Databases under load while the daemon is killed and the network cut: the same data as without."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest

from bench.images import IMAGES, build_image
from tests.support.engine import docker
from tests.support.faultlog import FaultCase, FaultLog, is_soak
from tests.system.test_daemon_death import daemon_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.converted import Conversions, Converted
    from tests.support.engine import Container, Engine

pytestmark = pytest.mark.system

ROUNDS = 20 if is_soak() else 1
KILL_EVERY_S = 1.0
LONGEST_CUT_S = 1.5

REDIS = """\
FROM debian:bookworm-slim
RUN apt-get update -q && apt-get install -qy --no-install-recommends redis-server redis-tools \\
 && rm -rf /var/lib/apt/lists/*
"""
POSTGRES_LOAD = r"""
set -e
bin=$(echo /usr/lib/postgresql/*/bin); PATH=$PATH:$bin
data=/tmp/data
initdb -D $data >/dev/null 2>&1
pg_ctl -D $data -w -o "-k /tmp -h ''" -l /tmp/log start >/dev/null
pgbench -h /tmp -q -i -s 2 postgres 2>/dev/null
for round in $(seq ROUNDS); do
  pgbench -h /tmp -n -c 4 -j 2 -t 400 --random-seed=$round postgres >/tmp/out 2>&1 || cat /tmp/out
  for table in accounts:aid:abalance tellers:tid:tbalance branches:bid:bbalance; do
    IFS=: read name key value <<EOF
$table
EOF
    psql -h /tmp -At postgres -c \
      "SELECT md5(string_agg($key || ' ' || $value, ',' ORDER BY $key)) FROM pgbench_$name"
  done
  find /usr/lib /usr/share -type f | sort | xargs sha256sum | sha256sum
done
psql -h /tmp -At postgres -c 'SELECT count(*) FROM pgbench_history'
pg_ctl -D $data -m fast stop >/dev/null
grep -cE 'PANIC|FATAL|corrupt|could not read' /tmp/log || true
"""
"""Prints what does not depend on the order in which clients come to their turn."""
REDIS_LOAD = r"""
set -e
redis-server --enable-debug-command local --save '' --daemonize yes --dir /tmp \
  --logfile /tmp/log >/dev/null
until redis-cli ping 2>/dev/null | grep -q PONG; do sleep 0.1; done
for round in $(seq ROUNDS); do
  redis-benchmark -q -n 20000 -c 20 -t set,get,lpush,incr >/dev/null
  redis-cli flushall >/dev/null
  seq 1 20000 | sed "s/.*/SET key:& value-$round-&/" | redis-cli --pipe | tail -1
  redis-cli save
  redis-cli debug reload
  redis-cli dbsize
  redis-cli get key:777
  redis-cli debug digest
  find /usr/bin /usr/lib -type f | sort | xargs sha256sum | sha256sum
done
grep -ciE 'error|fail|corrupt' /tmp/log || true
"""


class Trouble:
    """Kills a container's daemon each second, cuts the store off at random, empties page caches.

    A context manager; the container may end meanwhile.
    """

    def __init__(
        self, container: Container, cut: Callable[[], contextlib.AbstractContextManager[None]]
    ) -> None:
        self.kills = self.cuts = 0
        self._container = container
        self._cut = cut
        self._over = threading.Event()
        self._threads = [threading.Thread(target=t) for t in (self._kill, self._cut_off)]

    def __enter__(self) -> Trouble:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _kill(self) -> None:
        while not self._over.wait(KILL_EVERY_S):
            # Programs that nobody runs just now are read again.
            Path("/proc/sys/vm/drop_caches").write_text("1")
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                daemon = daemon_of(self._container)
                if daemon:
                    os.kill(daemon, signal.SIGKILL)
                    self.kills += 1

    def _cut_off(self) -> None:
        random = Random(1)
        while not self._over.wait(random.uniform(0, LONGEST_CUT_S)):
            with self._cut():
                self._over.wait(random.uniform(0, LONGEST_CUT_S))
            self.cuts += 1


def run_undisturbed(engine: Engine, image: Converted, load: str, user: str) -> str:
    """Give what the load prints in the source image under plain Docker."""
    return image.run_source(engine, "sh", "-c", load, options=("--user", user)).stdout


def run_in_trouble(
    engine: Engine, conversions: Conversions, image: Converted, load: str, user: str
) -> FaultCase:
    """Run the load in trouble, and compare what it prints; its log says nothing but deaths."""
    load = load.replace("ROUNDS", str(ROUNDS))
    right = run_undisturbed(engine, image, load, user)
    container = engine.start(image.boot, "sh", "-c", load, options=image.options("--user", user))
    with Trouble(container, conversions.server.paused) as trouble:
        deadline = time.monotonic() + 60 + 60 * ROUNDS
        while container.pid() and time.monotonic() < deadline:
            time.sleep(0.2)
    lines = container.logs().splitlines()
    printed = [line for line in lines if not line.startswith("bootfs: ")]
    assert "\n".join(printed) + "\n" == right
    assert docker("wait", container.name).stdout == "0\n"
    ours = [line for line in lines if line.startswith("bootfs: ")]
    assert all("the daemon ended by signal 9" in line for line in ours), ours
    assert trouble.kills and trouble.cuts
    return FaultCase(
        area="databases",
        fault=f"{user}: daemon killed each second, network cut at random",
        mode="erofs",
        outcome="the data of an undisturbed run",
        injected=trouble.kills + trouble.cuts,
        reads=len(printed),
    )


def test_postgres_under_pgbench(
    engine: Engine, conversions: Conversions, fault_log: FaultLog
) -> None:
    image = conversions.convert(build_image(IMAGES["pg"]))
    fault_log.record(run_in_trouble(engine, conversions, image, POSTGRES_LOAD, "postgres"))


def test_redis_under_redis_benchmark(
    engine: Engine, conversions: Conversions, fault_log: FaultLog
) -> None:
    image = conversions.convert(conversions.engine.build(REDIS))
    fault_log.record(run_in_trouble(engine, conversions, image, REDIS_LOAD, "redis"))
