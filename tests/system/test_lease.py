"""Containers without any privilege: files filled when opened, and right whatever happens."""

from __future__ import annotations

import dataclasses
import importlib.util
import marshal
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.bootedtree import root_of
from tests.support.engine import docker
from tests.support.ownstore import OwnStore
from tests.support.require import require

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.converted import Conversions, Converted
    from tests.support.engine import Container, Engine

pytestmark = pytest.mark.system

BREAK_TIME = Path("/proc/sys/fs/lease-break-time")
SHORT_S = 6
"""A lease-break time that a test can wait for."""
ZERO_FREE = 1 << 20
"""Bytes of /big, which is random: so many zeros in a row are not in it."""

TINY = """
.globl _start
.text
_start: mov $60, %eax
        xor %edi, %edi
        syscall
"""
PROGRAMS = 10_000


@pytest.fixture
def lease(converted_workshop: Converted) -> Converted:
    """Give an image with all kinds of programs, to be booted without privileges."""
    return dataclasses.replace(converted_workshop, mode="lease")


@pytest.fixture
def own(conversions: Conversions, lease: Converted, tmp_path: Path) -> Iterator[OwnStore]:
    """Give the workshop in a store of its own."""
    own = OwnStore(conversions, lease, tmp_path / "store")
    own.serve()
    yield own
    own.close()


@pytest.fixture
def short_break_time() -> Iterator[None]:
    """Have the kernel take leases away soon."""
    before = BREAK_TIME.read_text()
    BREAK_TIME.write_text(f"{SHORT_S}\n")
    yield
    BREAK_TIME.write_text(before)


# What chooses the mode.


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ((), "/dev/fuse is not in the container"),
        (("--cap-add", "SYS_ADMIN"), "/dev/fuse is not in the container"),
        (("--device", "/dev/fuse"), "may not mount"),
    ],
)
def test_an_engine_that_was_asked_for_nothing(
    engine: Engine, lease: Converted, options: tuple[str, ...], why: str
) -> None:
    store = ("-e", f"BLOB_STORE={lease.store}")
    done = engine.run(lease.boot, "sha256sum", "-c", "/big.sum", options=(*store, *options))
    assert (done.returncode, done.stdout) == (0, "/big: OK\n")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"bootfs: mode lease: {why}")


def test_a_root_that_cannot_be_written(engine: Engine, lease: Converted) -> None:
    done = lease.run(engine, options=("--read-only",))
    assert done.returncode == 125
    (line,) = done.stderr.splitlines()
    assert "do without --read-only, or give --cap-add SYS_ADMIN" in line


@pytest.mark.parametrize("mode", ["lease", "eager"])
@pytest.mark.parametrize("name", ["CHOWN", "FOWNER", "DAC_OVERRIDE", "SYS_CHROOT"])
def test_a_missing_capability_is_named(
    engine: Engine, lease: Converted, mode: str, name: str
) -> None:
    image = dataclasses.replace(lease, mode=mode)
    done = image.run(engine, "true", options=("--cap-drop", name, "--tmpfs", "/content"))
    if name in ("FOWNER", "DAC_OVERRIDE") and done.returncode == 0:
        return  # root's own files need neither
    assert done.returncode == 125
    (line,) = done.stderr.splitlines()
    assert f"--cap-add {name}" in line


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--ulimit", "nofile=2000:2000"), ""),
        (("--memory", "64m"), ""),
        (
            ("--ulimit", "nofile=600:600"),
            "mode eager: only 600 files may be open (--ulimit nofile)",
        ),
    ],
)
def test_room_for_few_leases_or_none(
    engine: Engine, lease: Converted, options: tuple[str, ...], line: str
) -> None:
    script = "find /usr /big -xdev -type f | sort | xargs -n 500 cat | sha256sum"
    plain = lease.run_source(engine, "sh", "-c", script)
    done = lease.run(engine, "sh", "-c", script, options=options)
    assert (done.returncode, done.stdout) == (0, plain.stdout), done.stderr
    assert line in done.stderr
    assert bool(line) == bool(done.stderr)


# What is read is right.


READERS = """\
cd / && find /usr /content /big -xdev -type f >/tmp/all
for reader in 1 2 3 4 5 6 7 8; do
    (shuf /tmp/all | tr '\\n' '\\0' | xargs -0 sha256sum | sort >/tmp/sums$reader) &
done
wait
cat /tmp/sums1
for reader in 2 3 4 5 6 7 8; do cmp /tmp/sums1 /tmp/sums$reader || exit 1; done
"""


def test_many_readers_of_everything(engine: Engine, lease: Converted) -> None:
    plain = lease.run_source(engine, "sh", "-c", READERS)
    booted = lease.run(engine, "sh", "-c", READERS)
    assert (booted.returncode, booted.stderr) == (0, "")
    assert booted.stdout == plain.stdout
    assert len(plain.stdout.splitlines()) > 4000


def test_programs_executed_the_moment_they_are_filled(
    engine: Engine, conversions: Conversions, tmp_path: Path
) -> None:
    require("gcc")
    (tmp_path / "tiny.S").write_text(TINY)
    command = ["gcc", "-nostdlib", "-static", "-s", "-o", "tiny", "tiny.S"]
    subprocess.run(command, check=True, cwd=tmp_path)
    image = conversions.convert(
        conversions.engine.build(
            "FROM debian:bookworm-slim\nCOPY tiny /tiny\nRUN mkdir /programs"
            f" && for i in $(seq {PROGRAMS}); do cp /tiny /programs/$i; done\n",
            tmp_path,
        )
    )
    image = dataclasses.replace(image, mode="lease")
    each = 'for i; do "/programs/$i" || echo "failed $i"; done'
    script = f"seq {PROGRAMS} | shuf | xargs -P 8 -n 200 sh -c '{each}' sh; echo done"
    for _ in range(2):
        done = image.run(engine, "sh", "-c", script)
        assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


CHANGES = """\
set -e
n=0
cd /usr/share/doc
set -- $(find . -name copyright -type f | sort | head -60)
for file; do
    n=$((n + 1))
    case $((n % 10)) in
        0) echo appended >>$file ;;
        1) echo replaced >$file ;;
        2) mv $file $file.moved ;;
        3) rm $file ;;
        4) ln $file $file.linked; echo more >>$file.linked ;;
        5) truncate -s 100 $file ;;
        6) truncate -s +100 $file ;;
        7) chmod 600 $file; chown 4242:4343 $file ;;
        8) dd if=/bin/sh of=$file bs=10 count=1 seek=3 conv=notrunc status=none ;;
        9) touch -d 2001-01-01 $file; cp -p $file $file.copied ;;
    esac
done
find . -name 'copyright*' -type f | sort | xargs sha256sum
find . -name 'copyright*' -type f | sort | xargs stat -c '%n %s %a %u %g %h'
stat -c '%n %Y' $(find . -name '*.copied' | sort)
"""


@pytest.mark.parametrize("mode", ["lease", "eager"])
def test_files_changed_before_they_are_filled(engine: Engine, lease: Converted, mode: str) -> None:
    image = dataclasses.replace(lease, mode=mode)
    plain = image.run_source(engine, "sh", "-c", CHANGES)
    booted = image.run(engine, "sh", "-c", CHANGES)
    assert (booted.returncode, booted.stderr) == (0, "")
    assert booted.stdout == plain.stdout
    assert plain.stdout.count("\n") > 100


def test_from_outside_the_container(engine: Engine, own: OwnStore, tmp_path: Path) -> None:
    own.serve("limit_rate 500k;")
    container = own.image.start(engine, "sleep", "1000")
    docker("cp", f"{container.name}:/big", str(tmp_path / "big"))
    docker("cp", f"{container.name}:/big.sum", str(tmp_path / "big.sum"))
    digest = subprocess.run(
        ["sha256sum", str(tmp_path / "big")], capture_output=True, text=True, check=True
    ).stdout.split()[0]
    assert (tmp_path / "big.sum").read_text().split()[0] == digest


# A network that fails, a supervisor that stands still.


def workload_state(container: Container) -> str:
    """Give the state of a workload that is a shell, as proc(5) has it."""
    pid = container.pid()
    (workload,) = (
        child
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if Path(f"/proc/{child}/comm").read_text() == "sh\n"
    )
    return Path(f"/proc/{workload}/stat").read_text().rpartition(") ")[2][0]


@pytest.mark.usefixtures("short_break_time")
@pytest.mark.parametrize(
    "options", [(), ("--cap-drop", "KILL", "--user", "worker")], ids=["usual", "without KILL"]
)
def test_a_fetch_that_takes_longer_than_a_lease_may(
    engine: Engine, own: OwnStore, options: tuple[str, ...]
) -> None:
    container = own.image.start(engine, "sh", "-c", "echo up; sleep 1000", options=options)
    container.wait_for_line("up")
    own.close()
    begun = time.monotonic()
    command = ["docker", "exec", container.name, "sha256sum", "-c", "/big.sum"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
        container.wait_for_line("a file takes long", timeout_s=SHORT_S)
        assert workload_state(container) == "T"
        time.sleep(max(begun + SHORT_S + 2 - time.monotonic(), 0))
        own.serve()
        out, _ = reader.communicate(timeout=60)
        assert (reader.returncode, out) == (0, "/big: OK\n")
    time.sleep(1)
    assert workload_state(container) == "S"


@pytest.mark.usefixtures("short_break_time")
def test_who_fills_is_stopped(engine: Engine, own: OwnStore) -> None:
    container = own.image.start(engine, "sh", "-c", "echo up; sleep 1000")
    container.wait_for_line("up")
    docker("kill", "-s", "STOP", container.name)
    container.run("sha256sum", "-c", "/big.sum")
    assert workload_state(container) == "T"
    docker("kill", "-s", "CONT", container.name)
    time.sleep(1)
    assert workload_state(container) == "S"


EMPTY = ("--tmpfs", "/content")
"""So that the boot fills no volume first."""
COPIES = "for i in 1 2 3 4; do cp /big /out/$i & done; wait; echo survived"


def assert_no_zeros(directory: Path) -> None:
    """See that nobody was let in to read what was not there."""
    for path in directory.iterdir():
        data = path.read_bytes()
        assert data.count(0) * 100 < len(data) or not data, path


@pytest.mark.parametrize("what", ["gone", "404", "damaged"])
def test_a_file_that_cannot_be_filled_ends_the_container(
    engine: Engine, own: OwnStore, tmp_path: Path, what: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    options = own.image.options("-v", f"{out}:/out", "-e", "BOOTFS_READ_LIMIT=3", *EMPTY)
    script = f"echo up; while test ! -e /tmp/go; do sleep 0.1; done; {COPIES}"
    own.serve("limit_rate 400k;")
    container = engine.start(own.image.boot, "sh", "-c", script, options=options)
    container.wait_for_line("up")
    own.close()
    if what == "404":
        own.serve("location / { return 404; }")
    elif what == "damaged":
        for pack in own.root.glob("packs/*/*"):
            data = pack.read_bytes()
            pack.write_bytes(bytes(byte ^ 0x55 for byte in data[:100_000]) * (len(data) // 100_000))
        own.serve()
    container.run("touch", "/tmp/go", check=False)
    assert container.wait() == 125
    logs = container.logs()
    assert "survived" not in logs
    assert "bootfs: " in logs
    assert_no_zeros(out)


@pytest.mark.parametrize("how", ["kill", "stop", "rm"])
def test_the_end_of_a_container_lets_nobody_in(
    engine: Engine, own: OwnStore, tmp_path: Path, how: str
) -> None:
    own.serve("limit_rate 200k;")

    def attempt(container: Container) -> None:
        container.wait_for_line("up")
        time.sleep(0.5)
        if how == "stop":
            docker("stop", "-t", "1", container.name)
        elif how == "kill":
            container.signal("KILL")
        container.remove()

    outs = [tmp_path / f"out{number}" for number in range(3)]
    containers = []
    for out in outs:
        out.mkdir()
        options = own.image.options("-v", f"{out}:/out", *EMPTY)
        script = f"echo up; {COPIES}"
        containers.append(engine.start(own.image.boot, "sh", "-c", script, options=options))
    # Each waits for its own slow connections.
    with ThreadPoolExecutor(len(containers)) as pool:
        list(pool.map(attempt, containers))
    for out in outs:
        assert_no_zeros(out)


def test_a_signal_ends_a_container_that_fills(engine: Engine, own: OwnStore) -> None:
    # So slow that it is not whole after a second; but what is begun is fetched to its end.
    own.serve("limit_rate 500k;")
    image = dataclasses.replace(own.image, mode="eager")
    codes = {"TERM": 143, "INT": 130}
    containers = {
        name: engine.start(image.boot, "sleep", "1000", options=image.options(*EMPTY))
        for name in codes
    }
    time.sleep(1)
    for name, container in containers.items():
        container.signal(name)
    assert {name: container.wait() for name, container in containers.items()} == codes
    own.serve()
    for container in containers.values():
        docker("start", container.name)
        deadline = time.monotonic() + 60
        while container.run("sha256sum", "-c", "/big.sum", check=False).returncode:
            assert time.monotonic() < deadline, container.logs()
            time.sleep(0.1)


# Half filled.


def half_filled(engine: Engine, own: OwnStore, script: str) -> Container:
    """Give a container that was killed when it had run ``script``, and not got all its files."""
    own.serve("limit_rate 300k;")
    container = own.image.start(engine, "sh", "-c", f"{script}; echo ready; sleep 1000")
    container.wait_for_line("ready")
    container.signal("KILL")
    container.wait()
    own.serve()
    return container


def unfilled(container: Container) -> int:
    """Give how many files of a running container are not there yet."""
    count = 0
    for directory, _, files in os.walk(root_of(container) + "/usr"):
        for name in files:
            status = os.lstat(os.path.join(directory, name))
            count += bool(status.st_size > 4096 and not status.st_blocks)
    return count


def test_stopped_and_started_half_filled(engine: Engine, own: OwnStore) -> None:
    container = half_filled(
        engine,
        own,
        "mv /usr/share/doc /usr/share/moved; mv /big /elsewhere; rm -r /usr/share/perl5;"
        " echo mine >/usr/share/moved/bash/copyright; ln /usr/bin/perl /perl",
    )
    docker("start", container.name)
    deadline = time.monotonic() + 60
    while container.logs().count("ready") < 2:
        assert time.monotonic() < deadline, container.logs()
        time.sleep(0.05)
    script = (
        "sed s,/big,/elsewhere, /big.sum | sha256sum -c; cat /usr/share/moved/bash/copyright;"
        "cd /usr/share/moved; find . -type f | sort | grep -v bash | xargs sha256sum;"
        "sha256sum </perl; ls /usr/share/perl5"
    )
    found = container.run("sh", "-c", script, check=False).stdout
    assert found.startswith("/elsewhere: OK\nmine\n")
    expected = own.image.run_source(
        engine,
        "sh",
        "-c",
        "cd /usr/share/doc; find . -type f | sort | grep -v bash | xargs sha256sum;"
        "sha256sum </usr/bin/perl",
    ).stdout
    assert found.partition("mine\n")[2] == expected


def test_an_image_of_a_half_filled_container(engine: Engine, own: OwnStore) -> None:
    container = half_filled(engine, own, "echo mine >/mine; rm /usr/bin/who")
    committed = engine.image_name()
    docker("commit", container.name, committed)
    image = dataclasses.replace(own.image, boot=committed)
    script = "cat /mine; ls /usr/bin/who; sha256sum -c /big.sum; sha256sum /usr/bin/*"
    done = image.run(engine, "sh", "-c", script)
    expected = own.image.run_source(
        engine, "sh", "-c", "rm /usr/bin/who; sha256sum -c /big.sum; sha256sum /usr/bin/*"
    ).stdout
    assert done.stdout == "mine\n" + expected


def test_all_is_filled_in_the_end(engine: Engine, lease: Converted, own: OwnStore) -> None:
    container = own.image.start(engine, "sleep", "1000")
    deadline = time.monotonic() + 60
    while left := unfilled(container):
        assert time.monotonic() < deadline, (left, container.logs())
        time.sleep(0.2)
    own.close()
    assert container.run("sha256sum", "-c", "/big.sum").stdout == "/big: OK\n"


# Programs that do not wait.


def test_nginx_serves_what_is_not_there_yet(
    engine: Engine, conversions: Conversions, tmp_path: Path
) -> None:
    source = conversions.engine.build(
        "FROM debian:bookworm-slim\n"
        "RUN apt-get update -q && apt-get install -qy --no-install-recommends nginx-light"
        " && rm -rf /var/lib/apt/lists/* && cd /var/www/html && for i in $(seq 50);"
        " do head -c 300000 /dev/urandom >file$i; done && sha256sum file* >/sums\n"
        'CMD ["nginx", "-g", "daemon off;"]\n'
    )
    image = dataclasses.replace(conversions.convert(source), mode="lease")
    container = image.start(engine)
    ask = (
        "fetch() { exec 3<>/dev/tcp/127.0.0.1/80; printf 'GET /%s HTTP/1.0\\r\\n\\r\\n' $1 >&3;"
        " cat <&3; }; cd /tmp; until fetch file1 >/tmp/first 2>/dev/null; do sleep 0.1; done;"
        " head -1 /tmp/first; for i in $(seq 50); do fetch file$i | tail -c 300000 >file$i; done;"
        " sha256sum -c --quiet /sums && echo all right"
    )
    done = container.run("bash", "-c", ask)
    assert done.stdout == "HTTP/1.1 200 OK\nall right\n"


def test_programs_of_haskell_are_held_back(engine: Engine, conversions: Conversions) -> None:
    """GHC's run-time system opens all files with O_NONBLOCK, whatever the program is called."""
    source = conversions.engine.build(
        "FROM debian:bookworm-slim\n"
        "RUN apt-get update -q && apt-get install -qy --no-install-recommends hscolour"
        " && rm -rf /var/lib/apt/lists/* && mv /usr/bin/HsColour /usr/bin/shows"
        " && echo 'main = print 7' >/srv/Main.hs\n"
        'CMD ["shows", "-css", "-anchor", "/srv/Main.hs"]\n'
    )
    image = dataclasses.replace(conversions.convert(source), mode="lease")
    plain, booted = image.run_source(engine), image.run(engine)
    assert plain.returncode == 0 and "main" in plain.stdout
    assert (booted.returncode, booted.stdout, booted.stderr) == (0, plain.stdout, "")
    known = image.run(engine, options=("-e", "BOOTFS_GATES=grep"))
    assert known.returncode != 0
    assert "Resource temporarily unavailable" in known.stderr


def test_an_open_that_does_not_wait_fails(engine: Engine, own: OwnStore) -> None:
    own.serve("limit_rate 100k;")
    options = own.image.options("-e", "BOOTFS_GATES=", *EMPTY)
    script = "echo up; truncate -s 5 /big; sleep 1000"
    container = engine.start(own.image.boot, "sh", "-c", script, options=options)
    container.wait_for_line("cannot open '/big' for writing: Resource temporarily unavailable")


@pytest.mark.parametrize(
    "script",
    [
        "grep -rc . /usr/share/doc /etc/apt | sort",
        "cd /usr && tar -c share/doc share/perl5 | sha256sum",
        "gzip -kc /usr/share/doc/*/copyright | sha256sum",
    ],
)
def test_tools_that_do_not_wait_are_held_back(
    engine: Engine, lease: Converted, script: str
) -> None:
    plain = lease.run_source(engine, "sh", "-c", script)
    booted = lease.run(engine, "sh", "-c", script)
    assert (booted.returncode, booted.stdout, booted.stderr) == (0, plain.stdout, "")


# What is kept for others.


READ_ALL = "find /usr/bin /usr/lib -type f | sort | xargs sha256sum | sha256sum"
FAULT = """\
import sys

def _put_in(event, arguments):
    if event == "import" and arguments[0] == "boot.lease.keeper":
        from boot.lease import filler

        write = filler.write_contents

        def write_or_fail(*arguments, count=[0]):
            count[0] += 1
            if count[0] in FAIL:
                raise ValueError("a fault put in by a test")
            write(*arguments)

        filler.write_contents = write_or_fail

sys.addaudithook(_put_in)
"""
"""Put before boot/start.py: filling fails by the numbers in FAIL."""


@pytest.mark.parametrize(("fail", "code"), [("{3, 40, 60}", 0), ("range(3, 1000)", 125)])
def test_a_fault_while_a_file_is_filled_is_met_by_trying_again(
    engine: Engine, lease: Converted, tmp_path: Path, fail: str, code: int
) -> None:
    source = FAULT.replace("FAIL", fail) + Path("boot/start.py").read_text()
    compiled = marshal.dumps(compile(source, "<bootfs>/boot/start.py", "exec"))
    (tmp_path / "start.pyc").write_bytes(importlib.util.MAGIC_NUMBER + bytes(12) + compiled)
    boot = engine.build(f"FROM {lease.boot}\nCOPY start.pyc /.bootfs/runtime/start.pyc\n", tmp_path)
    image = dataclasses.replace(lease, boot=boot)
    done = image.run(engine, "sh", "-c", READ_ALL)
    assert done.returncode == code, done.stderr
    assert "a fault put in by a test" in done.stderr
    if not code:
        assert "once more" in done.stderr
        assert done.stdout == lease.run_source(engine, "sh", "-c", READ_ALL).stdout


def test_a_named_cache_serves_the_next_container(
    engine: Engine, conversions: Conversions, lease: Converted
) -> None:
    options = ("-v", f"{engine.volume()}:/.bootfs/cache")
    image = dataclasses.replace(lease, mode="eager")
    assert image.run(engine, "true", options=options).returncode == 0
    conversions.server.forget()
    done = lease.run(engine, "sha256sum", "-c", "/big.sum", options=options)
    assert (done.returncode, done.stdout) == (0, "/big: OK\n")
    assert conversions.server.requests() == []


def test_a_cache_of_one_container_is_not_written(engine: Engine, lease: Converted) -> None:
    container = lease.start(engine, "sleep", "1000")
    assert container.run("sha256sum", "-c", "/big.sum").stdout == "/big: OK\n"
    assert container.run("ls", "-A", "/.bootfs/cache").stdout == ""
