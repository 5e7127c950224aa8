"""The daemon is killed under eight readers, by hand, by the kernel, by a fault of its own."""

from __future__ import annotations

import importlib.util
import marshal
import os
import signal
import threading
import time
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.soak.extent import IMAGE_SIZE, IS_LONG
from tests.support.faultlog import FaultCase
from tests.system.test_daemon_death import container_init, daemon_of

if TYPE_CHECKING:
    from tests.support.converted import Converted
    from tests.support.engine import Container, Engine
    from tests.support.faultlog import FaultLog

pytestmark = pytest.mark.system

KILLS = 100 if IS_LONG else 5
READERS = 8
WAIT_S = 60

FAULT = """\
import sys

def _put_in(event, arguments):
    if event == "import" and arguments[0] == "boot.readahead":
        from boot.fuse import OneFile

        answer, left = OneFile._answer, [300]

        def answer_or_fail(self, request):
            left[0] -= 1
            if left[0] == 0:
                raise ValueError("a fault put in by a test")
            answer(self, request)

        OneFile._answer = answer_or_fail

sys.addaudithook(_put_in)
"""
"""Put before boot/start.py: each daemon fails at its 300th request, in the thread that answers."""


class Readers:
    """Threads that read a container's /big anywhere, and compare, until `stop`."""

    def __init__(self, container: Container, big: Path) -> None:
        self._path = Path(f"/proc/{container_init(container)}/root/big")
        self._big = big
        self._stopped = threading.Event()
        self.count = 0
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._read, args=(n,)) for n in range(READERS)]
        for thread in self._threads:
            thread.start()

    def _read(self, seed: int) -> None:
        random = Random(seed)
        fd, source = (os.open(path, os.O_RDONLY) for path in (self._path, self._big))
        try:
            while not self._stopped.is_set():
                at = random.randrange(IMAGE_SIZE)
                if os.pread(fd, 50_000, at) != os.pread(source, 50_000, at):
                    self.failures.append(f"wrong bytes at {at}")
                self.count += 1
        except OSError as error:
            self.failures.append(str(error))
        finally:
            os.close(fd)
            os.close(source)

    def wait_for_more(self) -> None:
        """Return when each reader may have had to ask the daemon."""
        # What the kernel keeps nobody asks the daemon for.
        Path("/proc/sys/vm/drop_caches").write_text("1")
        wanted, deadline = self.count + 4 * READERS, time.monotonic() + WAIT_S
        while self.count < wanted and not self.failures:
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def stop(self) -> list[str]:
        """End the threads and give what went wrong."""
        self._stopped.set()
        for thread in self._threads:
            thread.join(WAIT_S)
        assert not any(thread.is_alive() for thread in self._threads)
        return self.failures


def wait_for_other(container: Container, daemon: int) -> int:
    """Return the daemon that has followed one."""
    deadline = time.monotonic() + WAIT_S
    while (found := daemon_of(container)) in (0, daemon):
        assert time.monotonic() < deadline, container.logs()
        time.sleep(0.01)
    return found


def case(fault: str, injected: int, readers: Readers) -> FaultCase:
    """Give the case of readers that have all been answered rightly."""
    return FaultCase("daemon", fault, "erofs", "right bytes", injected, readers.count)


def test_killed_again_and_again_under_readers(
    engine: Engine, big_file: tuple[Converted, Path], fault_log: FaultLog
) -> None:
    image, big = big_file
    container = image.start(engine, "sleep", "1000")
    readers = Readers(container, big)
    random, daemon = Random(5), daemon_of(container)
    for _ in range(KILLS):
        readers.wait_for_more()
        Path("/proc/sys/vm/drop_caches").write_text("1")
        time.sleep(random.random() / 20)
        os.kill(daemon, signal.SIGKILL)
        daemon = wait_for_other(container, daemon)
    readers.wait_for_more()
    assert readers.stop() == []
    assert "bootfs:" not in container.logs()
    fault_log.record(case(f"killed under {READERS} readers", KILLS, readers))


def test_killed_by_the_kernel_for_want_of_memory(
    engine: Engine, big_file: tuple[Converted, Path], fault_log: FaultLog
) -> None:
    image, big = big_file
    options = ("--memory", "80m", "--memory-swap", "80m")
    container = image.start(engine, "sleep", "1000", options=options)
    readers = Readers(container, big)
    readers.wait_for_more()
    daemon = daemon_of(container)
    # Of those in the container, the kernel is to take this one.
    Path(f"/proc/{daemon}/oom_score_adj").write_text("1000")
    taken = container.run("tail", "/dev/zero", check=False)
    assert taken.returncode == 137
    wait_for_other(container, daemon)
    readers.wait_for_more()
    assert readers.stop() == []
    assert container.inspect()["State"]["Running"]
    fault_log.record(case("killed for want of memory", 1, readers))


def test_a_fault_in_the_thread_that_answers(
    engine: Engine, big_file: tuple[Converted, Path], tmp_path: Path, fault_log: FaultLog
) -> None:
    image, big = big_file
    code = compile(FAULT + Path("boot/start.py").read_text(), "<bootfs>/boot/start.py", "exec")
    compiled = importlib.util.MAGIC_NUMBER + bytes(12) + marshal.dumps(code)
    (tmp_path / "start.pyc").write_bytes(compiled)
    dockerfile = f"FROM {image.boot}\nCOPY start.pyc /.bootfs/runtime/start.pyc\n"
    boot = engine.build(dockerfile, tmp_path)
    options = image.options()
    container = engine.start(boot, "sleep", "1000", options=options)
    while Path(f"/proc/{container_init(container)}/root/.bootfs").exists():
        time.sleep(0.02)
    readers = Readers(container, big)
    daemon = daemon_of(container)
    for _ in range(3):
        while daemon_of(container) == daemon and not readers.failures:
            readers.wait_for_more()
        daemon = wait_for_other(container, daemon)
    assert readers.stop() == []
    assert "a fault put in by a test" in container.logs()
    assert "given up" not in container.logs()
    fault_log.record(case("an exception in the thread that answers", 3, readers))
