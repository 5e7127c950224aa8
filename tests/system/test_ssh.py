"""Boot images whose store is behind a real sshd, in every mode, with credentials by file."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from converter.cli import main
from converter.convert import convert
from converter.progress import Silent
from converter.reference import parse_reference
from store.write.backends import open_backend
from tests.support.converted import LEVEL, Conversions, Converted, gateway
from tests.support.engine import Engine
from tests.support.require import require
from tests.support.sshd import PASSWORD, Sshd, children

pytestmark = [
    pytest.mark.system,
    pytest.mark.requires("docker", "erofs", "fuse", "root", "sshd"),
]
MODES = ("erofs", "fuse", "lease", "eager")
DOCKERFILE = """\
FROM {base}
RUN for n in $(seq 400); do head -c 30000 /dev/urandom > /srv/$n; done; \
    (cd /srv && sha256sum * > /sums)
"""
PROGRAM = """
#include <stdio.h>
int main(void) {
    int c;
    FILE *file = fopen("/data", "r");
    if (!file) return 1;
    while ((c = getc(file)) != EOF) putchar(c);
    return 0;
}
"""
CHECK = ("sh", "-c", "cd /srv && sha256sum -c --quiet /sums && echo WHOLE")


@pytest.fixture(scope="module")
def source(base_image: str) -> Iterator[str]:
    engine = Engine()
    yield engine.build(DOCKERFILE.format(base=base_image))
    engine.close()


class Served:
    """A boot image made over SSH, and the servers of its store."""

    def __init__(self, directory: Path, sshd: Sshd) -> None:
        self.directory = directory
        self.sshd = sshd
        self.boot = ""

    @property
    def url(self) -> str:
        return self.sshd.url_of(self.directory, address=self.sshd.addresses[1])

    def convert(self, source: str, boot: str) -> str:
        """Convert over SSH; give `boot`, which reads the store so where it is told nothing."""
        with closing(open_backend(self.sshd.url_of(self.directory))) as backend:
            convert(
                parse_reference(source), parse_reference(boot), backend, LEVEL, self.url, Silent()
            )
        return boot

    def image(self, mode: str) -> Converted:
        return Converted("", self.boot, self.url, mode)


@pytest.fixture(scope="module")
def served(source: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("ssh") / "store"
    engine = Engine()
    with Sshd(addresses=[gateway()]) as sshd, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{sshd.path}:{os.environ['PATH']}")
        served = Served(directory, sshd)
        served.boot = served.convert(source, engine.image_name())
        yield served
    engine.close()


def mounted(auth: Path) -> tuple[str, str]:
    return ("-v", f"{auth}:/.bootfs/auth:ro")


@pytest.mark.parametrize("mode", MODES)
def test_it_boots_and_every_byte_is_right(engine: Engine, served: Served, mode: str) -> None:
    done = served.image(mode).run(engine, *CHECK, options=mounted(served.sshd.auth))
    assert (done.returncode, done.stdout) == (0, "WHOLE\n"), done.stderr
    assert "bootfs:" not in done.stderr


def test_a_trace_is_sent_over_ssh(engine: Engine, served: Served, tmp_path: Path) -> None:
    options = (*mounted(served.sshd.auth), "-e", "BOOTFS_RECORD=1")
    container = served.image("erofs").start(engine, "true", options=options)
    assert container.wait() == 0
    (sent,) = (served.directory / "traces").rglob("*/*")
    assert f": traces/{sent.parent.name}/{sent.name}; " in container.logs()
    store = ("--store", served.sshd.url_of(served.directory))
    assert main(["profile", "add", served.boot, *store, "--from-store"]) == 0
    assert not sent.exists()
    assert main(["profile", "remove", served.boot, *store, "--all"]) == 0
    tmp_path.chmod(0o755)
    elsewhere = served.sshd.url_of(tmp_path, address=served.sshd.addresses[1])
    container = served.image("erofs").start(
        engine, "true", options=(*options, "-e", f"BOOTFS_RECORD_TO={elsewhere}")
    )
    assert container.wait() == 0
    # It is no store.
    assert "the trace is not sent: " in container.logs()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", MODES)
def test_a_secret_that_all_may_read_is_used(
    engine: Engine, served: Served, tmp_path: Path, mode: str
) -> None:
    """As orchestrators mount it: with mode 0644; ssh itself would refuse such a key."""
    auth = Path(shutil.copytree(served.sshd.auth, tmp_path / "auth"))
    (auth / "id_ed25519").chmod(0o644)
    image = served.image(mode)
    options = mounted(auth) + (("--read-only",) if image.mounts else ())
    done = image.run(engine, *CHECK, options=options)
    assert (done.returncode, done.stdout, done.stderr) == (0, "WHOLE\n", "")


@pytest.mark.parametrize("mode", ["erofs", "lease"])
def test_a_password_does_too(engine: Engine, served: Served, tmp_path: Path, mode: str) -> None:
    with Sshd(addresses=[gateway()], password=PASSWORD) as sshd:
        for path in sshd.auth.glob("id_*"):
            path.unlink()
        (sshd.auth / "password").write_text(PASSWORD + "\n")
        url = sshd.url_of(served.directory, address=sshd.addresses[1])
        image = dataclasses.replace(served.image(mode), store=url)
        done = image.run(engine, *CHECK, options=mounted(sshd.auth))
        assert (done.returncode, done.stdout, done.stderr) == (0, "WHOLE\n", "")
        done = image.run(
            engine,
            "sh",
            "-c",
            "env; cat /proc/*/environ /proc/*/cmdline",
            options=mounted(sshd.auth),
        )
        assert PASSWORD not in done.stdout


@pytest.mark.parametrize("mode", ["erofs", "lease"])
def test_a_host_is_found_by_name(engine: Engine, served: Served, tmp_path: Path, mode: str) -> None:
    auth = Path(shutil.copytree(served.sshd.auth, tmp_path / "auth"))
    line = f"[store.example]:{served.sshd.port} {served.sshd.host_key}"
    (auth / "known_hosts").write_text(line)
    url = served.sshd.url_of(served.directory, address="store.example")
    options = (*mounted(auth), "--add-host", f"store.example:{served.sshd.addresses[1]}")
    image = dataclasses.replace(served.image(mode), store=url)
    done = image.run(engine, *CHECK, options=options)
    assert (done.returncode, done.stdout, done.stderr) == (0, "WHOLE\n", "")


@pytest.mark.parametrize("mode", ["erofs", "lease"])
def test_an_image_without_accounts_boots(
    engine: Engine, served: Served, tmp_path: Path, mode: str
) -> None:
    """ssh asks for the account of its user, and there is none."""
    require("gcc")
    (tmp_path / "main.c").write_text(PROGRAM)
    compile_it = ["gcc", "-static", "-o", tmp_path / "show", tmp_path / "main.c"]
    subprocess.run(compile_it, check=True)
    (tmp_path / "data").write_text("WHOLE\n" * 10_000)
    source = engine.build('FROM scratch\nCOPY show data /\nENTRYPOINT ["/show"]\n', tmp_path)
    boot = served.convert(source, engine.image_name())
    image = dataclasses.replace(served.image(mode), boot=boot)
    done = image.run(engine, options=mounted(served.sshd.auth))
    assert (done.returncode, done.stdout, done.stderr) == (0, "WHOLE\n" * 10_000, "")


@pytest.mark.parametrize("mode", ["erofs", "lease"])
def test_wrong_credentials_are_one_clear_line(
    engine: Engine, served: Served, tmp_path: Path, mode: str
) -> None:
    auth = Path(shutil.copytree(served.sshd.auth, tmp_path / "auth"))
    (auth / "known_hosts").write_text("")
    image = served.image(mode)
    done = image.run(engine, "sha256sum", "/srv/1", options=mounted(auth))
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if "host key is unknown" in line]
    assert len(lines) == 1 and "/.bootfs/auth/known_hosts" in lines[0], done.stderr
    done = image.run(engine, "sha256sum", "/srv/1")
    assert done.returncode != 0 and "/.bootfs/auth/known_hosts is missing" in done.stderr


def test_an_image_without_ssh_says_what_to_do(
    engine: Engine, served: Served, conversions: Conversions, base_image: str
) -> None:
    image = dataclasses.replace(conversions.convert(base_image), store=served.url)
    for mode in ("erofs", "lease"):
        done = dataclasses.replace(image, mode=mode).run(engine, "true")
        assert done.returncode == 125 and "convert it again with --with-ssh" in done.stderr


@pytest.mark.parametrize("mode", ["erofs", "lease"])
def test_the_deaths_of_ssh_and_of_the_server_s_sessions_are_survived(
    engine: Engine, served: Served, mode: str
) -> None:
    script = "for n in $(seq 400); do sha256sum /srv/$n; sleep 0.01; done > /dev/null; "
    script += "cd /srv && sha256sum -c --quiet /sums && echo WHOLE"
    container = served.image(mode).start(
        engine, "sh", "-c", script, options=mounted(served.sshd.auth)
    )
    kills = 0
    deadline = time.monotonic() + 60
    while container.pid() and "WHOLE" not in container.logs() and time.monotonic() < deadline:
        # Whoever logs in again must have had the time for it.
        time.sleep(1.5)
        served.sshd.break_sessions()
        kills += 1
    assert "WHOLE" in container.logs(), container.logs()
    assert kills > 1


def test_nothing_of_it_is_seen_and_it_ends_with_the_daemon(engine: Engine, served: Served) -> None:
    # Of each process the name of its program; ssh's is that of the loader.
    script = "cat /srv/1 > /dev/null; test -e /.bootfs || echo NONE; cat /proc/[0-9]*/comm; "
    script += "echo ALL; sleep 60"
    container = served.image("erofs").start(
        engine, "sh", "-c", script, options=mounted(served.sshd.auth)
    )
    container.wait_for_line("ALL")
    assert container.logs().split() == ["NONE", "sh", "ALL"]
    first = container.pid()
    assert first
    (ssh,) = (p for p in children(first) if "/.bootfs/ssh/ssh" in cmdline(p))
    daemon = next(p for p in children(first) if ssh in children(p))
    os.kill(daemon, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while Path(f"/proc/{ssh}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    # The next daemon logs in itself.
    done = container.run(*CHECK)
    assert (done.returncode, done.stdout) == (0, "WHOLE\n"), container.logs()
    assert len([p for p in children(first) if "/.bootfs/ssh/ssh" in cmdline(p)]) == 1


def cmdline(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text()
    except OSError:
        return ""
