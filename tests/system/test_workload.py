"""The workload behaves as under plain `docker run`: what is run, as whom, and how it ends."""

from __future__ import annotations

import dataclasses
import os
import pty
import select
import subprocess
import time

import pytest

from tests.support.bootedtree import MODES
from tests.support.converted import Conversions, Converted
from tests.support.engine import Engine, docker

pytestmark = pytest.mark.system


@pytest.fixture(params=MODES)
def workshop(converted_workshop: Converted, request: pytest.FixtureRequest) -> Converted:
    """Give an image with all kinds of programs, in each mode."""
    return dataclasses.replace(converted_workshop, mode=request.param)


def same(
    engine: Engine, image: Converted, *command: str, options: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run `command` both ways; give the plain run after comparing the two."""
    plain = image.run_source(engine, *command, options=options)
    booted = image.run(engine, *command, options=options)
    assert (booted.returncode, booted.stdout, booted.stderr) == (
        plain.returncode,
        plain.stdout,
        plain.stderr,
    )
    return plain


@pytest.mark.parametrize(
    "command",
    [
        (),
        ("sh", "-c", 'echo "$@"; pwd; echo err >&2', "zero", "one two", ""),
        ("script", "an argument"),
        ("/usr/local/bin/static",),
        ("sh", "-c", "cd /usr/local && bin/script relative"),
    ],
    ids=["cmd", "arguments", "script by PATH", "static", "relative"],
)
def test_commands_run(engine: Engine, workshop: Converted, command: tuple[str, ...]) -> None:
    assert same(engine, workshop, *command).returncode == 0


def test_a_setuid_program_is_one(engine: Engine, workshop: Converted) -> None:
    plain = same(engine, workshop, "setuid", options=("--user", "4242"))
    assert plain.stdout == "uid 4242 euid 0\n"


@pytest.mark.parametrize(
    ("entrypoint", "arguments"),
    [
        ('ENTRYPOINT ["script", "fixed"]', ()),
        ('ENTRYPOINT ["script", "fixed"]', ("given",)),
        ('ENTRYPOINT ["script", "fixed"]\nCMD ["usual"]', ()),
        ("ENTRYPOINT echo $GIVEN", ()),
        ("CMD echo $GIVEN in a shell", ()),
        ('WORKDIR /usr/local/bin\nENTRYPOINT ["./script"]', ()),
    ],
)
def test_entrypoint_and_cmd(
    engine: Engine,
    conversions: Conversions,
    converted_workshop: Converted,
    entrypoint: str,
    arguments: tuple[str, ...],
) -> None:
    source = converted_workshop.source
    image = conversions.convert(conversions.engine.build(f"FROM {source}\n{entrypoint}\n"))
    assert same(engine, image, *arguments).returncode == 0


@pytest.mark.parametrize(
    "user", ["worker", "worker:others", "4242", "12345", "12345:54321", "0:4343"]
)
def test_user(engine: Engine, workshop: Converted, user: str) -> None:
    script = "id; echo $HOME; touch /tmp/made; stat -c '%u %g %a' /tmp/made / /etc/mtab /.dockerenv"
    same(engine, workshop, "sh", "-c", script, options=("--user", user))


def test_supplementary_groups(engine: Engine, workshop: Converted) -> None:
    same(
        engine, workshop, "id", options=("--user", "4242", "--group-add", "44", "--group-add", "9")
    )


@pytest.mark.parametrize("directory", ["/content", "/made/when/missing", "/var/run/below"])
def test_working_directory(engine: Engine, workshop: Converted, directory: str) -> None:
    script = "pwd; stat -c '%n %u %g %a' ."
    same(engine, workshop, "sh", "-c", script, options=("-w", directory, "--user", "4242"))


def test_environment_without_what_was_ours(engine: Engine, workshop: Converted) -> None:
    mine = ("-e", "MINE=1", "-e", "EMPTY=", "-e", "LD_PRELOAD_NOT=x", "--hostname", "h")
    plain = workshop.run_source(engine, "env", options=mine)
    booted = workshop.run(engine, "env", options=(*mine, "-e", "BOOTFS_READ_LIMIT=9"))
    assert sorted(booted.stdout.splitlines()) == sorted(plain.stdout.splitlines())


@pytest.mark.parametrize("code", [0, 1, 7, 125, 126, 127, 128, 137, 143, 255])
def test_exit_codes(engine: Engine, converted_workshop: Converted, code: int) -> None:
    assert converted_workshop.run(engine, "sh", "-c", f"exit {code}").returncode == code


@pytest.mark.parametrize(("number", "code"), [(9, 137), (15, 143), (6, 134)])
def test_death_by_signal_is_128_and_the_signal(
    engine: Engine, workshop: Converted, number: int, code: int
) -> None:
    # PID 1 does not die of its own signals; what it runs does, and it says so.
    done = workshop.run(engine, "sh", "-c", f"sh -c 'kill -{number} $$'; exit $?")
    assert done.returncode == code


@pytest.mark.parametrize(
    ("command", "code"),
    [("nonesuch", 127), ("/nonesuch", 127), ("/etc", 126), ("/usr/local/bin/garbage", 126)],
)
def test_what_cannot_be_executed(
    engine: Engine, workshop: Converted, command: str, code: int
) -> None:
    plain = workshop.run_source(engine, command)
    booted = workshop.run(engine, command)
    assert booted.returncode == plain.returncode == code
    assert booted.stderr.startswith(f"bootfs: cannot execute {command}: ")
    assert booted.stderr.count("\n") == 1


TRAPS = """
for s in HUP INT QUIT USR1 USR2 ALRM TERM CONT WINCH URG IO PWR; do trap "echo got $s" $s; done
trap 'echo got EXIT; exit 5' RTMIN
echo ready
while :; do sleep 0.05; done
"""


def test_signals_reach_the_workload(engine: Engine, workshop: Converted) -> None:
    container = workshop.start(engine, "bash", "-c", TRAPS)
    container.wait_for_line("ready")
    for name in [
        "HUP",
        "INT",
        "QUIT",
        "USR1",
        "USR2",
        "ALRM",
        "TERM",
        "CONT",
        "WINCH",
        "URG",
        "IO",
        "PWR",
    ]:
        container.signal(name)
        container.wait_for_line(f"got {name}", 10)
    container.signal("RTMIN")
    assert container.wait(20) == 5


def test_stop_sends_the_image_s_stopsignal(engine: Engine, workshop: Converted) -> None:
    script = "trap 'echo asked; exit 3' USR1; echo ready; while :; do sleep 0.05; done"
    container = workshop.start(engine, "bash", "-c", script)
    container.wait_for_line("ready")
    assert container.stop() == 3
    assert "asked" in container.logs()


@pytest.mark.parametrize(
    ("options", "command"),
    [
        (("--user", "4242"), ()),
        ((), ("setpriv", "--reuid", "4242", "--clear-groups")),
    ],
    ids=["user", "becomes another"],
)
def test_signals_need_no_right_to_send_them(
    engine: Engine, workshop: Converted, options: tuple[str, ...], command: tuple[str, ...]
) -> None:
    script = "trap 'echo got HUP' HUP; trap 'exit 3' USR1; echo ready; while :; do sleep 0.05; done"
    container = workshop.start(
        engine, *command, "bash", "-c", script, options=("--cap-drop", "KILL", *options)
    )
    container.wait_for_line("ready")
    container.signal("HUP")
    container.wait_for_line("got HUP", 10)
    assert container.stop() == 3
    assert container.logs() == "ready\ngot HUP\n"


def test_stop_kills_what_ignores_it(engine: Engine, workshop: Converted) -> None:
    container = workshop.start(engine, "sh", "-c", "trap '' USR1; echo ready; sleep 100")
    container.wait_for_line("ready")
    assert container.stop(grace_s=1) == 137


def test_orphans_are_the_workload_s_as_without_us(engine: Engine, workshop: Converted) -> None:
    # Counted by the shell itself: of the processes of a pipeline some may not have begun.
    script = "(sleep 0.2 & echo) >/dev/null; sleep 0.5; set -- /proc/[0-9]*; echo $#"
    plain = workshop.run_source(engine, "bash", "-c", script)
    booted = workshop.run(engine, "bash", "-c", script)
    # Where nothing is mounted, PID 1 and its keeper are there too.
    assert plain.stdout == "1\n"
    assert booted.stdout == ("1\n" if workshop.mounts else "3\n")


def test_processes_of_exec_leave_no_zombies(engine: Engine, workshop: Converted) -> None:
    container = workshop.start(engine, "sleep", "100")
    container.run("sh", "-c", "(sleep 0.1 &) ; (sleep 0.1 &)")
    time.sleep(0.5)
    states = container.run("bash", "-c", "grep -h ^State: /proc/[0-9]*/status").stdout
    assert "zombie" not in states


def test_kill_all_does_not_reach_us(engine: Engine, workshop: Converted) -> None:
    script = "sleep 50 & kill -9 -1; echo after; sha256sum -c /big.sum"
    done = workshop.run(engine, "bash", "-c", script)
    assert (done.returncode, done.stdout, done.stderr) == (0, "after\n/big: OK\n", "")


def test_broken_pipes_end_a_program(engine: Engine, workshop: Converted) -> None:
    done = same(engine, workshop, "bash", "-c", "yes | head -1; echo ${PIPESTATUS[0]}")
    assert done.stdout == "y\n141\n"


def test_standard_input(engine: Engine, workshop: Converted) -> None:
    name = engine.name()
    command = ["docker", "run", "--rm", "-i", "--name", name, *workshop.options(), workshop.boot]
    done = subprocess.run(
        [*command, "wc", "-c"],
        input=b"x" * 1_000_000,
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == b"1000000\n"


class Terminal:
    """Our end of a pseudo-terminal."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._seen = b""

    def wait_for(self, text: bytes, limit_s: float = 30) -> None:
        """Read until `text` has come."""
        deadline = time.monotonic() + limit_s
        while text not in self._seen:
            left = deadline - time.monotonic()
            assert left > 0, self._seen
            if select.select([self.fd], [], [], left)[0]:
                self._seen += os.read(self.fd, 65536)
        self._seen = self._seen.partition(text)[2]


def test_terminal(engine: Engine, workshop: Converted) -> None:
    name = engine.name()
    command = ["docker", "run", "--rm", "-it", "--name", name, *workshop.options(), workshop.boot]
    script = (
        "trap 'stty size; echo size' WINCH; trap 'echo interrupted; exit 9' INT; tty;"
        " read line; echo line=$line; echo ready; while :; do sleep 0.05; done"
    )
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*command, "bash", "-c", script],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    terminal = Terminal(ours)
    try:
        terminal.wait_for(b"/dev/pts/0")
        os.write(ours, b"typed\n")
        terminal.wait_for(b"line=typed")
        terminal.wait_for(b"ready")
        subprocess.run(["stty", "rows", "33", "cols", "77"], stdin=ours, check=True)
        process.send_signal(28)  # SIGWINCH, as a terminal emulator's resize gives it
        terminal.wait_for(b"33 77")
        os.write(ours, b"\x03")
        terminal.wait_for(b"interrupted")
        assert process.wait(30) == 9
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_exec_lands_in_the_real_root(engine: Engine, workshop: Converted) -> None:
    container = workshop.start(engine, "sleep", "100", options=("-w", "/content"))
    assert container.run("sh", "-c", "pwd; cat below/file").stdout == "/content\nkept\n"
    found = container.run("setuid", options=("-u", "worker")).stdout
    assert found == "uid 4242 euid 0\n"
    names = container.run("ls", "-A", "/").stdout.split()
    expected = workshop.run_source(engine, "ls", "-A", "/").stdout.split()
    assert names == expected if workshop.mounts else sorted({*expected, ".bootfs"})


def test_healthcheck_runs_in_the_real_root(engine: Engine, workshop: Converted) -> None:
    options = ("--health-cmd", "script && test -e /big", "--health-interval", "200ms")
    container = workshop.start(engine, "sleep", "100", options=options)
    deadline = time.monotonic() + 20
    while container.inspect()["State"]["Health"]["Status"] != "healthy":
        assert time.monotonic() < deadline, container.inspect()["State"]["Health"]
        time.sleep(0.1)


def test_stop_and_start_keep_what_was_written(engine: Engine, workshop: Converted) -> None:
    script = "cat /state; echo more >>/state; rm -f /big.sum; ls /big.sum; echo done"
    container = workshop.start(engine, "sh", "-c", script)
    container.wait()
    docker("start", container.name)
    container.wait()
    shown = docker("logs", container.name)
    assert shown.stdout == "done\nmore\ndone\n"
    assert shown.stderr.count("/big.sum") == 2
