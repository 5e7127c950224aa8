"""The daemon is killed under its readers: right bytes in mode erofs, an error in mode fuse."""

from __future__ import annotations

import dataclasses
import errno
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from boot.supervise import IDLE_DEATHS
from store.format.chunkindex import HOLE, ChunkIndex, parse_chunk_index
from store.format.names import chunk_index_name
from tests.support.engine import docker

if TYPE_CHECKING:
    from tests.support.converted import Conversions, Converted
    from tests.support.engine import Container, Engine

pytestmark = pytest.mark.system

NEEDS_NO_MORE = "mkfifo /f; exec 3<>/f; echo >&3; read x <&3; echo up; read x <&3"
"""A script past whose "up" nothing is loaded: the builtin has run once by then."""


def daemon_of(container: Container) -> int:
    """Give the daemon's process id on this machine, 0 while there is none."""
    init = container_init(container)
    for entry in Path(f"/proc/{init}/task/{init}/children").read_text().split():
        try:
            if Path(f"/proc/{entry}/comm").read_text() == "bootfs-daemon\n":
                return int(entry)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return 0


_inits: dict[str, int] = {}


def container_init(container: Container) -> int:
    """Give the container's PID 1, asked for once."""
    if container.name not in _inits:
        _inits[container.name] = container.pid()
    return _inits[container.name]


@dataclasses.dataclass
class Errors:
    """What could not be read below a root: paths by errno."""

    names: dict[int, set[str]]
    """Directories and inodes."""
    contents: dict[int, set[str]]
    """Files whose inodes could be read."""


def errors_below(root: Path) -> Errors:
    """Read all that a container's root has; give what could not be."""
    found = Errors({}, {})
    device = os.stat(root).st_dev

    def note(kind: dict[int, set[str]], error: OSError, path: str) -> None:
        assert error.errno
        kind.setdefault(error.errno, set()).add(path.removeprefix(str(root)))

    def status(path: str) -> os.stat_result | None:
        try:
            return os.lstat(path)
        except OSError as error:
            note(found.names, error, path)
            return None

    def is_ours(path: str) -> bool:
        # os.path.ismount would follow /proc/PID/root to this machine's own root.
        known = status(path)
        return known is not None and known.st_dev == device

    def failed(error: OSError) -> None:
        note(found.names, error, str(error.filename))

    for top, directories, names in os.walk(root, onerror=failed):
        directories[:] = [d for d in directories if is_ours(os.path.join(top, d))]
        for name in names:
            path = os.path.join(top, name)
            known = status(path)
            if known is not None and stat.S_ISREG(known.st_mode):
                try:
                    with open(path, "rb", buffering=0) as file:
                        file.read(1 << 20)
                except OSError as error:
                    # A read does not know the name.
                    note(found.contents, error, path)
    return found


def test_killed_again_and_again_every_byte_is_right(
    engine: Engine, converted_workshop: Converted
) -> None:
    container = converted_workshop.start(
        engine,
        "sh",
        "-c",
        "for i in 1 2 3; do sha256sum -c /big.sum || exit 1; done & sha256sum -c /big.sum && wait"
        " && tar c --one-file-system / 2>/dev/null | wc -c >/dev/null"
        " && until test -e /enough; do sha256sum -c /big.sum || exit 1; done && echo all",
    )
    killed: set[int] = set()
    deadline = time.monotonic() + 60
    while len(killed) < 8 and time.monotonic() < deadline:
        daemon = daemon_of(container)
        if daemon and daemon not in killed:
            os.kill(daemon, signal.SIGKILL)
            killed.add(daemon)
        time.sleep(0.15)
    container.run("touch", "/enough")
    code = container.wait()
    logs = container.logs()
    assert code == 0, logs
    assert logs.count("/big: OK\n") >= 4
    assert "all" in logs
    assert "FAILED" not in logs
    assert len(killed) == 8


def test_replaced_and_signals_forwarded_without_the_right_to_send_them(
    engine: Engine, converted_workshop: Converted
) -> None:
    script = "trap 'sha256sum -c /big.sum' HUP; trap 'exit 3' USR1; echo ready;"
    command = ("bash", "-c", script + " while :; do sleep 0.05; done")
    options = ("--cap-drop", "KILL", "--user", "4242")
    container = converted_workshop.start(engine, *command, options=options)
    container.wait_for_line("ready")
    for turn in range(1, 4):
        daemon = daemon_of(container)
        assert daemon
        os.kill(daemon, signal.SIGKILL)
        container.signal("HUP")
        deadline = time.monotonic() + 20
        while container.logs().count("/big: OK") < turn:
            assert time.monotonic() < deadline, container.logs()
            time.sleep(0.02)
        assert daemon_of(container) != daemon
    assert container.stop() == 3


def test_a_daemon_that_never_answers_is_given_up(
    engine: Engine, converted_workshop: Converted
) -> None:
    container = converted_workshop.start(engine, "sh", "-c", NEEDS_NO_MORE)
    # Killed before, the daemon would take the shell itself with it.
    container.wait_for_line("up")
    root = Path(f"/proc/{container_init(container)}/root")
    killed: set[int] = set()
    deadline = time.monotonic() + 60
    while "given up" not in container.logs():
        assert time.monotonic() < deadline
        for _ in range(50):
            daemon = daemon_of(container)
            if daemon and daemon not in killed:
                os.kill(daemon, signal.SIGKILL)
                killed.add(daemon)
            time.sleep(0.002)
    assert len(killed) == IDLE_DEATHS + 1
    assert container.inspect()["State"]["Running"]
    assert container.logs().count("given up") == 1
    assert "(EIO for contents, else ENOTCONN)" in container.logs()
    found = errors_below(root)
    assert "/big" in found.contents[errno.EIO]
    assert found.contents.keys() == {errno.EIO}
    # Part of the directories and inodes is in memory.
    assert found.names.keys() <= {errno.EIO, errno.ENOTCONN}


def test_in_mode_fuse_the_reader_gets_an_error(
    engine: Engine, converted_workshop: Converted
) -> None:
    image = dataclasses.replace(converted_workshop, mode="fuse")
    container = image.start(engine, "sh", "-c", NEEDS_NO_MORE)
    container.wait_for_line("up", 60)
    root = Path(f"/proc/{container_init(container)}/root")
    big = os.open(root / "big", os.O_RDONLY)
    daemon = daemon_of(container)
    assert daemon
    os.kill(daemon, signal.SIGSTOP)
    read = (
        "import os, sys\n"
        "try: os.pread(int(sys.argv[1]), 1, 10_000_000)\n"
        "except OSError as error: sys.exit(error.errno)\n"
    )
    waiting = subprocess.Popen([sys.executable, "-I", "-c", read, str(big)], pass_fds=[big])
    time.sleep(1)
    os.kill(daemon, signal.SIGKILL)
    assert waiting.wait(10) == errno.ENOTCONN
    line = container.wait_for_line("bootfs: the daemon ended by signal 9", 10)
    assert line.endswith("what is not in memory fails from now on (ENOTCONN)")
    assert container.inspect()["State"]["Running"]
    with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
        os.pread(big, 4096, 20_000_000)
    os.close(big)
    found = errors_below(root)
    assert found.names.keys() | found.contents.keys() == {errno.ENOTCONN}


def test_a_container_whose_daemon_hangs_can_be_killed(
    engine: Engine, converted_workshop: Converted
) -> None:
    # Readers and the kernel's read-ahead wait for the daemon then, and nothing that
    # waits may keep the FUSE device open, or init, daemon and container never end.
    script = "while :; do find / -xdev -type f -exec cat {} + >/dev/null 2>&1; done"
    for delay_s in (0.0, 0.05, 0.2, 0.6):
        container = converted_workshop.start(engine, "sh", "-c", script)
        deadline = time.monotonic() + 20
        while not (daemon := daemon_of(container)):
            assert time.monotonic() < deadline
        time.sleep(delay_s)
        os.kill(daemon, signal.SIGSTOP)
        time.sleep(0.3)
        os.kill(container_init(container), signal.SIGKILL)
        assert container.wait() == 137


def test_killed_while_a_read_waits_for_the_store_it_is_replaced(
    engine: Engine, conversions: Conversions, converted_workshop: Converted
) -> None:
    # All is cached but one chunk of /big, so reading ahead runs into pages that wait for that one.
    volume = engine.volume()
    options = ("-v", f"{volume}:/.bootfs/cache")
    command = ("sh", "-c", "cat /big >/dev/null; dd --version; sleep 0")
    assert converted_workshop.run(engine, *command, options=options).returncode == 0
    place = docker("volume", "inspect", "-f", "{{.Mountpoint}}", volume).stdout.strip()
    (cache,) = (path for path in (Path(place) / "v2").iterdir() if path.is_dir())
    os.truncate(cache / "reads", 0)
    name = chunk_index_name(bytes.fromhex(cache.name))
    index = parse_chunk_index((conversions.directory / name).read_bytes())
    first = random_places(index)
    absent = next(
        p for p in range(first, len(index.starts)) if starts_at(index, first, p) > 600_000
    )
    with (cache / "present").open("r+b") as present:
        present.seek(index.place_chunks[absent])
        present.write(b"\0")

    script = "echo up; exec sleep 1000"
    container = converted_workshop.start(engine, "sh", "-c", script, options=options)
    container.wait_for_line("up", 60)
    block = starts_at(index, first, absent) // 4096
    read = ["docker", "exec", container.name, "dd", "if=/big", "of=/dev/null", "bs=4k"]
    with conversions.server.paused():
        daemon = daemon_of(container)
        assert daemon
        across = [*read, f"skip={block - 12}", "count=32"]
        waiting = subprocess.Popen(across, stderr=subprocess.DEVNULL)
        time.sleep(1)
        near = [*read, f"skip={block - 100}", "count=1"]
        subprocess.run(near, check=True, stderr=subprocess.DEVNULL, timeout=20)
        time.sleep(0.5)
        assert waiting.poll() is None
        os.kill(daemon, signal.SIGKILL)
    assert waiting.wait(20) == 0
    assert daemon_of(container) != daemon


def random_places(index: ChunkIndex) -> int:
    """Give the place where /big begins: the longest row of chunks that do not shrink."""
    best = length = run = 0
    for place, chunk in enumerate(index.place_chunks):
        is_random = chunk != HOLE and index.plain_sizes[chunk] == index.stored_sizes[chunk]
        run = run + 1 if is_random else 0
        if run > length:
            best, length = place + 1 - run, run
    return best


def starts_at(index: ChunkIndex, first: int, place: int) -> int:
    """Give where a place begins, in bytes after place ``first``."""
    return index.starts[place] - index.starts[first]
