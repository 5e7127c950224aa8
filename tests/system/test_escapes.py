"""The workload tries to get at what serves it, and gets no further than under plain Docker.

The attempts themselves are in escapes/escapes.c, each in a line of its table.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import uuid
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.engine import docker
from tests.support.require import require
from tests.support.servers import Nginx
from tests.system.test_daemon_death import container_init, daemon_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.converted import Conversions, Converted
    from tests.support.engine import Container, Engine

pytestmark = pytest.mark.system

SOURCES = Path(__file__).with_name("escapes")
MODES = pytest.mark.parametrize("mode", ["erofs", "fuse"])
FURTHER = {
    # Nobody can mount with it, and it leads to no connection that there is.
    "/dev/fuse": ("ENOENT", "EPERM"),
    # There is one that can be tried, the daemon's to the store.
    "break connections": ("nothing", "EPERM"),
}
"""Attempts whose answers may be others than under plain Docker, none of them reaching anything."""
OPEN_TO_OUR_EXEC = {
    *("/proc/PID/root", "/proc/PID/fd", "/proc/PID names", "/proc/PID/ns", "ptrace"),
    *("/proc/PID/mem", "pidfd_getfd", "search files", "mount", "mount FUSE", "namespaces"),
    *("fsopen, open_tree, move_mount", "i386 and x32", "SYS_ADMIN"),
}
"""Attempts that reach something from `docker exec` with SYS_PTRACE, so they can."""
BIG = 6_000_000
"""Bytes of the file that is read while something is short."""


@dataclasses.dataclass(frozen=True)
class Trials:
    """The image whose workload tries to escape, and what it is not to find."""

    image: Converted
    secret: str
    """A part of the URL of the store."""
    crc: str
    """CRC-32 of its /big."""

    def booted(self, mode: str) -> Converted:
        """Give the image, to be booted in a mode."""
        return dataclasses.replace(self.image, mode=mode)

    @property
    def command(self) -> tuple[str, ...]:
        """Give the program that tries everything."""
        return ("/escapes", self.secret.encode().hex())


def read_answers(text: str) -> dict[str, str]:
    """Give what came of each attempt, by its name."""
    answers = dict(line.split(": ", 1) for line in text.splitlines())
    assert answers.pop("all") == "done", text
    return answers


def compile_program(name: str, directory: Path, *flags: str) -> None:
    """Make a program of one of the sources."""
    wanted = ("-O1", "-Wall", "-Wextra", "-Werror", *flags)
    source, program = SOURCES / f"{name}.c", directory / name
    subprocess.run(["gcc", *wanted, "-o", str(program), str(source), "-lpthread"], check=True)


@pytest.fixture(scope="module")
def trials(
    conversions: Conversions, base_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Trials]:
    """Give the image, converted, and a server that has the store below a name nobody knows."""
    require("gcc")
    context = tmp_path_factory.mktemp("escapes")
    compile_program("escapes", context, "-static", "-no-pie")
    compile_program("hog", context, "-static")
    compile_program("preload", context, "-shared", "-fPIC")
    big = os.urandom(BIG)
    (context / "big").write_bytes(big)
    dockerfile = f"FROM {base_image}\nCOPY escapes hog preload big /\nENV OF_THE_IMAGE=x\n"
    image = conversions.convert(conversions.engine.build(dockerfile, context))
    secret = uuid.uuid4().hex
    place = f"location /{secret}/ {{ alias {conversions.directory}/; }}"
    with Nginx(conversions.directory, addresses=[conversions.address], extra=place) as server:
        url = f"http://{conversions.address}:{server.port}/{secret}"
        image = dataclasses.replace(image, store=url)
        yield Trials(image, secret, f"{zlib.crc32(big):08x}")


@dataclasses.dataclass(frozen=True)
class Condition:
    """How a process is doing, as far as others can hinder it."""

    nice: str
    policy: str
    limits: str
    oom_score: str
    is_stopped: bool
    traced_by: str

    @classmethod
    def of(cls, pid: int) -> Condition:
        """Look at a process."""
        own = Path(f"/proc/{pid}")
        fields = (own / "stat").read_text().rpartition(") ")[2].split()
        status = dict(line.split(":\t", 1) for line in (own / "status").read_text().splitlines())
        return cls(
            nice=fields[16],
            policy=fields[38],
            limits=(own / "limits").read_text(),
            oom_score=(own / "oom_score_adj").read_text(),
            is_stopped=fields[0] in "tT",
            traced_by=status["TracerPid"],
        )


def conditions(container: Container) -> list[Condition]:
    """Look at what is ours of a container."""
    return [Condition.of(container_init(container)), Condition.of(daemon_of(container))]


@MODES
@pytest.mark.parametrize("rights", [(), ("--cap-add", "SYS_PTRACE")], ids=["plain", "ptrace"])
def test_nothing_is_reached_that_plain_docker_does_not_let_reach(
    engine: Engine, trials: Trials, mode: str, rights: tuple[str, ...]
) -> None:
    image = trials.booted(mode)
    options = (*rights, "-v", f"{engine.volume()}:/.bootfs/cache")
    plain = read_answers(image.run_source(engine, *trials.command, options=rights).stdout)
    container = image.start(engine, *trials.command, "stay", options=options)
    before = conditions(container)
    container.wait_for_line("all: done")
    logs = container.logs()
    booted = read_answers(logs)
    assert booted.keys() == plain.keys()
    further = {n: (plain[n], booted[n]) for n in plain if booted[n] != plain[n]}
    assert further.items() <= FURTHER.items(), logs
    assert not any("reached" in booted for _, booted in FURTHER.values())
    assert conditions(container) == before
    assert "bootfs:" not in logs


def test_the_attempts_reach_what_they_may(engine: Engine, trials: Trials) -> None:
    """Where SYS_ADMIN and SYS_PTRACE are left, which `docker exec` has, they do get through."""
    image = trials.booted("erofs")
    container = image.start(engine, "sleep", "1000", options=("--cap-add", "SYS_PTRACE"))
    command = ("exec", container.name, *trials.command, "spare")
    done = docker(*command, check=False, timeout_s=60)
    answers = read_answers(done.stdout)
    reached = {name for name, answer in answers.items() if answer.startswith("reached")}
    assert reached >= OPEN_TO_OUR_EXEC, done.stdout


def test_libraries_of_the_user_s_variables_are_the_workload_s_alone(
    engine: Engine, trials: Trials, tmp_path: Path
) -> None:
    compile_program("preload", tmp_path, "-shared", "-fPIC")
    (tmp_path / "sitecustomize.py").write_text("raise SystemExit('loaded by Python')\n")
    (tmp_path / "encodings").mkdir()
    (tmp_path / "encodings/__init__.py").write_text("raise SystemExit('loaded by Python')\n")
    variables = {
        "LD_PRELOAD": "/evil/preload",
        "LD_AUDIT": "/evil/preload",
        "LD_LIBRARY_PATH": "/evil",
        "PYTHONPATH": "/evil",
        "PYTHONHOME": "/evil",
        "PYTHONSTARTUP": "/evil/sitecustomize.py",
        "PYTHONINSPECT": "1",
        "GCONV_PATH": "/evil",
        "OPENSSL_CONF": "/evil/openssl.cnf",
        "SSL_CERT_FILE": "/evil/none",
        "GLIBC_TUNABLES": "glibc.malloc.check=3",
    }
    given = [word for item in variables.items() for word in ("-e", "=".join(item))]
    options = ("-v", f"{tmp_path}:/evil:ro", *given)
    for mode in ("erofs", "fuse"):
        plain = trials.image.run_source(engine, "cat", "/etc/hostname", options=options)
        booted = trials.booted(mode).run(engine, "cat", "/etc/hostname", options=options)
        assert "loaded, CapEff:" in plain.stderr
        assert (booted.returncode, booted.stderr) == (plain.returncode, plain.stderr)


def test_inspect_shows_what_the_user_gave_and_nothing_else(engine: Engine, trials: Trials) -> None:
    image = trials.booted("erofs")
    container = image.start(engine, "sleep", "1000", options=("-e", "MINE=1"))
    container.run("cat", "/big")
    found = container.inspect()
    (source,) = json.loads(docker("inspect", image.source).stdout)
    given = {f"BLOB_STORE={image.store}", "BOOTFS_MODE=erofs", "MINE=1"}
    assert set(found["Config"]["Env"]) == {*source["Config"]["Env"], *given}
    (boot,) = json.loads(docker("inspect", image.boot).stdout)
    assert set(boot["Config"]["Env"]) == set(source["Config"]["Env"])
    assert trials.secret not in json.dumps(boot)
    del found["Config"]["Env"]
    assert trials.secret not in json.dumps(found)
    assert {mount["Destination"] for mount in found["Mounts"]} == {"/.bootfs/cache", "/.bootfs/rw"}


@pytest.mark.parametrize("mode", ["erofs", "lease"])
def test_a_workload_that_is_traced_by_its_parent(engine: Engine, trials: Trials, mode: str) -> None:
    """It asks for that itself and stops at its next signal; the container is none the worse."""
    container = trials.booted(mode).start(engine, "/escapes", "traced")
    container.wait_for_line("traced: 0")
    container.signal("WINCH")
    assert container.run("cat", "/etc/hostname").returncode == 0
    assert container.stop(grace_s=0) == 137
    assert "bootfs:" not in container.logs()


LIMITS = {
    "processes": ("--pids-limit", "60"),
    "memory": ("--memory", "64m", "--memory-swap", "64m"),
    "files": ("--ulimit", "nofile=4096:4096"),
    "time": (),
    "leases": (),
}
"""What there may be too little of, and options that make it scarce."""


@MODES
@pytest.mark.parametrize("kind", LIMITS)
def test_who_takes_everything_makes_readers_wait_and_no_more(
    engine: Engine, trials: Trials, mode: str, kind: str
) -> None:
    image = trials.booted(mode)
    done = image.run(engine, "/hog", kind, "/big", options=LIMITS[kind])
    taken, beside, after = done.stdout.splitlines()
    assert (done.returncode, taken) == (0, f"taken: {kind}")
    assert beside == f"beside: {trials.crc}"
    assert after == f"after: {trials.crc}"
