"""Stores over SSH: who is let in, what is said when not, and what a connection survives."""

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from random import Random

import pytest

from store.errors import (
    AccessDenied,
    BootfsError,
    PackNotFound,
    RemoteError,
    RemoteProtocolError,
    SizeMismatch,
    TimedOut,
    Unreachable,
    UsageError,
)
from store.read.children import PIDS
from store.read.source import open_source
from store.read.ssh import SshSource
from store.read.sshprogram import SshProgram
from store.write.backends import open_backend
from tests.support.require import require
from tests.support.servers import free_port
from tests.support.sshd import PASSWORD, Sshd, make_key

DATA = Random(3).randbytes(5 << 20)
NAME = "packs/ab/abcdef"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "a store"
    (root / NAME).parent.mkdir(parents=True)
    (root / NAME).write_bytes(DATA)
    return root


@pytest.fixture
def auth(tmp_path: Path, sshd: Sshd) -> Path:
    """Credentials that work, for this test to spoil."""
    return Path(shutil.copytree(sshd.auth, tmp_path / "auth"))


@pytest.fixture
def open_ssh() -> Iterator[Callable[..., SshSource]]:
    opened: list[SshSource] = []

    def open_ssh(
        sshd: Sshd, root: Path, auth: Path, limit_s: float = 20.0, **more: SshProgram
    ) -> SshSource:
        url = sshd.url_of(str(root).replace(" ", "%20"))
        opened.append(SshSource(url, limit_s, str(auth), **more))
        return opened[-1]

    yield open_ssh
    for source in opened:
        source.close()


OpenSsh = Callable[..., SshSource]


def program(sshd: Sshd, keys: Path) -> SshProgram:
    """Give this machine's ssh with what a boot image's has beside it."""
    ssh = shutil.which("ssh")
    assert ssh
    keys.mkdir(mode=0o700, exist_ok=True)
    return SshProgram((ssh,), os.environ, str(keys), str(sshd.askpass))


def ssh_processes() -> list[int]:
    """Give the running ssh of this process, which has no others."""
    return sorted(PIDS)


def kill_ssh() -> None:
    for process in ssh_processes():
        # It may have ended by itself meanwhile.
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def test_the_right_key_opens_and_spaces_are_percent_encoded(
    sshd: Sshd, root: Path, auth: Path, open_ssh: OpenSsh
) -> None:
    assert open_ssh(sshd, root, auth).fetch(NAME, 7, 100) == DATA[7:107]


@pytest.mark.parametrize("spoilt", ["unknown", "changed", "missing"])
def test_only_known_host_keys_are_taken(
    sshd: Sshd, root: Path, auth: Path, tmp_path: Path, open_ssh: OpenSsh, spoilt: str
) -> None:
    known_hosts = auth / "known_hosts"
    if spoilt == "unknown":
        known_hosts.write_text("")
    elif spoilt == "changed":
        known_hosts.write_text(f"[127.0.0.1]:{sshd.port} {make_key(tmp_path / 'other')}")
    else:
        known_hosts.unlink()
    with pytest.raises(AccessDenied) as caught:
        open_ssh(sshd, root, auth).fetch(NAME, 0, 1)
    assert str(known_hosts) in str(caught.value) and caught.value.exit_code == 13
    expected = {"unknown": "is unknown", "changed": "is not the one", "missing": "is missing"}
    assert expected[spoilt] in str(caught.value)
    # Nothing was learnt by asking.
    assert spoilt != "unknown" or known_hosts.read_text() == ""


@pytest.mark.parametrize("spoilt", ["wrong", "none", "damaged"])
def test_a_key_that_does_not_open_is_named(
    sshd: Sshd, root: Path, auth: Path, open_ssh: OpenSsh, spoilt: str
) -> None:
    key = auth / "id_ed25519"
    key.unlink()
    (auth / "id_ed25519.pub").unlink()
    if spoilt == "wrong":
        make_key(key)
    elif spoilt == "damaged":
        key.write_text("no key\n")
        key.chmod(0o600)
    with pytest.raises(AccessDenied) as caught:
        open_ssh(sshd, root, auth).fetch(NAME, 0, 1)
    assert (str(auth) if spoilt == "none" else str(key)) in str(caught.value)
    assert "PRIVATE" not in str(caught.value)


def test_who_was_refused_asks_again_only_with_other_credentials(
    root: Path, tmp_path: Path, open_ssh: OpenSsh
) -> None:
    require("sshd")
    with Sshd() as sshd:
        right = tmp_path / "right"
        shutil.copytree(sshd.auth, right)
        key = sshd.auth / "id_ed25519"
        key.unlink()
        make_key(tmp_path / "wrong")
        shutil.copy(tmp_path / "wrong", key)
        source = open_ssh(sshd, root, sshd.auth)
        for _ in range(5):
            with pytest.raises(AccessDenied, match="lets nobody in"):
                source.fetch(NAME, 0, 1)
        # One is of who looked whether the server is up.
        assert sshd.output().count("Connection from") == 2
        # The user has put the right one there, as a secret is renewed.
        shutil.copy(right / "id_ed25519", tmp_path / "new")
        os.replace(tmp_path / "new", key)
        assert source.fetch(NAME, 0, 9) == DATA[:9]


@pytest.mark.parametrize("mode", [0o644, 0o440, 0o600, 0o400])
def test_a_key_that_others_may_read_is_used_by_a_copy_that_goes(
    sshd: Sshd, root: Path, auth: Path, tmp_path: Path, open_ssh: OpenSsh, mode: int
) -> None:
    """As orchestrators mount secrets: ssh itself would refuse the first two."""
    (auth / "id_ed25519").chmod(mode)
    keys = tmp_path / "keys"
    source = open_ssh(sshd, root, auth, program=program(sshd, keys))
    seen: set[int] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            for path in keys.iterdir():
                try:
                    seen.add(stat.S_IMODE(path.stat().st_mode))
                except FileNotFoundError:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert source.fetch(NAME, 0, 9) == DATA[:9]
    done.set()
    watcher.join()
    assert seen == ({0o600} if mode & 0o077 else set())
    assert list(keys.iterdir()) == []


def test_a_password_comes_by_file_and_shows_nowhere(
    root: Path, tmp_path: Path, open_ssh: OpenSsh
) -> None:
    require("sshd", "root")
    with Sshd(password=PASSWORD) as sshd:
        for path in sshd.auth.glob("id_*"):
            path.unlink()
        (sshd.auth / "password").write_text(f"{PASSWORD}\n")
        source = open_ssh(sshd, root, sshd.auth, program=program(sshd, tmp_path / "keys"))
        assert source.fetch(NAME, 0, 9) == DATA[:9]
        (ssh,) = ssh_processes()
        for name in ("cmdline", "environ"):
            assert PASSWORD.encode() not in Path(f"/proc/{ssh}/{name}").read_bytes()
        (sshd.auth / "password").write_text("wrong horse\n")
        sshd.break_sessions()
        with pytest.raises(AccessDenied) as caught:
            source.fetch(NAME, 0, 9)
        assert f"{sshd.auth}/password" in str(caught.value) and "horse" not in str(caught.value)


def test_outside_of_containers_a_key_that_others_may_read_serves_and_a_password_does_not(
    sshd: Sshd, root: Path, auth: Path, open_ssh: OpenSsh
) -> None:
    """With `bootfs check --fetchable --auth`, on the machine that converts."""
    (auth / "id_ed25519").chmod(0o644)
    (auth / "password").write_text(PASSWORD)
    before = set(os.listdir("/dev/shm"))
    assert open_ssh(sshd, root, auth).fetch(NAME, 0, 9) == DATA[:9]
    assert not [name for name in set(os.listdir("/dev/shm")) - before if str(os.getpid()) in name]
    for path in auth.glob("id_*"):
        path.unlink()
    with pytest.raises(AccessDenied, match="password serves containers alone"):
        open_ssh(sshd, root, auth).fetch(NAME, 0, 9)


def test_an_agent_s_socket_is_a_credential(
    sshd: Sshd, root: Path, auth: Path, open_ssh: OpenSsh
) -> None:
    key = auth / "id_ed25519"
    agent = subprocess.Popen(
        ["ssh-agent", "-D", "-a", auth / "agent.sock"], stdout=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 10
        while not (auth / "agent.sock").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        environment = {**os.environ, "SSH_AUTH_SOCK": str(auth / "agent.sock")}
        subprocess.run(["ssh-add", "-q", key], check=True, env=environment)
        for path in auth.glob("id_*"):
            path.unlink()
        assert open_ssh(sshd, root, auth).fetch(NAME, 0, 9) == DATA[:9]
    finally:
        agent.terminate()
        agent.wait()


def test_a_server_without_sftp_is_said(root: Path, open_ssh: OpenSsh) -> None:
    require("sshd")
    with Sshd(extra="") as sshd, pytest.raises(RemoteProtocolError, match="Subsystem sftp"):
        open_ssh(sshd, root, sshd.auth).fetch(NAME, 0, 1)


def test_start_files_of_a_shell_that_print_are_said(root: Path, open_ssh: OpenSsh) -> None:
    require("sshd")
    extra = "Subsystem sftp /bin/echo Welcome to this host"
    with Sshd(extra=extra) as sshd, pytest.raises(RemoteProtocolError, match="must print nothing"):
        open_ssh(sshd, root, sshd.auth).fetch(NAME, 0, 1)


def test_a_directory_that_is_not_there_is_said(
    sshd: Sshd, root: Path, auth: Path, open_ssh: OpenSsh
) -> None:
    with pytest.raises(PackNotFound, match=r"none/packs/ab/abcdef.*BLOB_STORE"):
        open_ssh(sshd, root / "none", auth).fetch(NAME, 0, 1)


def test_nobody_listens(sshd: Sshd, root: Path, auth: Path) -> None:
    port = free_port()
    source = open_source(f"ssh://127.0.0.1:{port}{root.parent}", 1.0, auth=str(auth))
    with pytest.raises(RemoteError, match="Connection refused") as caught:
        source.fetch(NAME, 0, 1)
    assert caught.value.exit_code == 14
    source.close()


def test_a_server_that_accepts_and_says_nothing(root: Path, open_ssh: OpenSsh) -> None:
    require("sshd")
    with Sshd() as sshd:
        source = open_ssh(sshd, root, sshd.auth, 1.0)
        with sshd.paused(), pytest.raises(TimedOut):
            source.fetch(NAME, 0, 1)
        assert open_ssh(sshd, root, sshd.auth).fetch(NAME, 0, 9) == DATA[:9]


def test_a_place_that_is_no_host_is_unreachable(auth: Path) -> None:
    source = open_source("ssh://store.invalid/a", 1.0, auth=str(auth))
    with pytest.raises(RemoteError, match=r"store\.invalid"):
        source.fetch(NAME, 0, 1)
    source.close()


def test_a_machine_without_ssh_is_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="install openssh-client"):
        open_backend("ssh://host/path")
    with pytest.raises(UsageError, match="--with-ssh"):
        open_source("ssh://host/path", 1.0, auth="/.bootfs/auth")


@pytest.mark.parametrize("victim", ["ssh", "session"])
def test_a_connection_that_dies_in_the_middle_is_made_again(
    sshd: Sshd, root: Path, auth: Path, open_ssh: OpenSsh, victim: str
) -> None:
    """Killed from inside a read, so that it is under way whatever the machine does."""
    source = open_ssh(sshd, root, auth)
    kills = 0

    def kill(body: memoryview) -> None:
        nonlocal kills
        assert DATA.startswith(body)
        if kills < 3 and len(body) > 100_000 * (kills + 1):
            kills += 1
            if victim == "ssh":
                kill_ssh()
            else:
                sshd.break_sessions()

    assert source.fetch(NAME, 0, len(DATA), kill) == DATA
    assert kills == 3
    assert len(ssh_processes()) == 1


def test_readers_of_many_threads_survive_its_death(
    sshd: Sshd, root: Path, auth: Path, open_ssh: OpenSsh
) -> None:
    source = open_ssh(sshd, root, auth)
    deaths = 5
    reads = threading.Semaphore(0)

    def read(number: int) -> None:
        random = Random(number)
        for _ in range(40):
            offset = random.randrange(len(DATA) - 50_000)
            assert source.fetch(NAME, offset, 50_000) == DATA[offset : offset + 50_000]
            reads.release()

    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(read, number) for number in range(8)]
        for _ in range(deaths):
            for _ in range(20):
                reads.acquire()
            kill_ssh()
        for one in running:
            one.result()
    assert len(ssh_processes()) == 1


def test_a_stopped_ssh_is_left_for_another(
    sshd: Sshd, root: Path, auth: Path, open_ssh: OpenSsh
) -> None:
    source = open_ssh(sshd, root, auth)
    source.fetch(NAME, 0, 1)
    (stopped,) = ssh_processes()
    os.kill(stopped, signal.SIGSTOP)
    with pytest.raises(TimedOut):
        source.fetch_once(NAME, 0, 1, None, 1.0, 1.0)
    assert source.fetch(NAME, 0, 9) == DATA[:9]
    assert stopped not in ssh_processes() and not Path(f"/proc/{stopped}").exists()


def test_twenty_thousand_reads_leave_nothing(
    sshd: Sshd, root: Path, auth: Path, open_ssh: OpenSsh
) -> None:
    for number in range(100):
        (root / f"packs/ab/{number}").write_bytes(b"%05d" % number)
    source = open_ssh(sshd, root, auth)
    source.fetch(NAME, 0, 1)
    (ssh,) = ssh_processes()
    opened = len(os.listdir("/proc/self/fd"))

    def read(number: int) -> None:
        name = number % 100
        assert source.fetch(f"packs/ab/{name}", 0, 5) == b"%05d" % name

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read, range(20_000)))
    assert len(os.listdir("/proc/self/fd")) == opened
    assert ssh_processes() == [ssh]
    connection = source.session(time.monotonic() + 5).connection
    # What is closed at the server is answered before what is asked after it.
    for _ in range(2):
        source.fetch(NAME, 0, 1)
    assert not connection._pending
    server = [Path(f"/proc/{process}/fd") for process in sshd.sessions()]
    files = sum(str(root) in os.readlink(fd) for fds in server for fd in fds.iterdir())
    assert 1 <= files <= 70


def test_it_ends_with_the_process_that_started_it(sshd: Sshd, root: Path, auth: Path) -> None:
    """However that one ends; ssh sees its standard input close."""
    url = sshd.url_of(str(root).replace(" ", "%20"))
    code = f"""
import time
from store.read.children import PIDS
from store.read.source import open_source
source = open_source({url!r}, 10.0, auth={str(auth)!r})
source.fetch({NAME!r}, 0, 1)
print(*PIDS, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout
        ssh = int(process.stdout.readline())
        assert Path(f"/proc/{ssh}").exists()
        process.kill()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{ssh}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("fault", ["refuses", "is silent", "is away", "has another"])
def test_another_mirror_takes_over(root: Path, tmp_path: Path, fault: str) -> None:
    require("sshd")
    lines: list[str] = []
    with Sshd() as sshd:
        url = sshd.url_of(str(root).replace(" ", "%20"))
        source = open_source(f"{url}|{root}", 20.0, log=lines.append, auth=str(sshd.auth))
        assert source.fetch(NAME, 0, 9) == DATA[:9] and lines == []
        if fault == "is silent":
            with sshd.paused():
                assert source.fetch(NAME, 9, 9) == DATA[9:18]
        else:
            if fault == "refuses":
                (sshd.run / "authorized_keys").write_text("")
            elif fault == "has another":
                sshd.know(make_key(tmp_path / "other"))
            else:
                sshd.stop()
            sshd.break_sessions()
            assert source.fetch(NAME, 9, 9) == DATA[9:18]
        source.close()
    (line,) = lines
    assert line.startswith(f"mirror {url} is left")


def use(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a conversion find this server's key, as it finds a user's."""
    monkeypatch.setenv("PATH", f"{sshd.path}:{os.environ['PATH']}")


def test_a_server_without_extensions_is_written_too(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("sshd")
    denied = "posix-rename,fsync,statvfs,hardlink"
    with Sshd(extra=f"Subsystem sftp internal-sftp -P {denied}") as sshd:
        use(sshd, monkeypatch)
        with closing(open_backend(sshd.url_of(root.parent / "plain"))) as backend:
            backend.create()
            backend.write("packs/ab/x", iter((b"some ", b"bytes")))
            assert backend.fetch("packs/ab/x", 0, 10) == b"some bytes"
            backend.replace("packs/ab/x", iter((b"other",)))
            assert backend.fetch("packs/ab/x", 0, 5) == b"other"
            assert list(backend.iter_unfinished()) == []


def test_a_key_that_may_only_read_reads(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require("sshd")
    with Sshd() as sshd:
        use(sshd, monkeypatch)
        keys = sshd.run / "authorized_keys"
        with closing(open_backend(sshd.url_of(root.parent / "shared"))) as backend:
            backend.create()
            backend.write("packs/ab/x", iter((b"bytes",)))
        keys.write_text(f'restrict,command="internal-sftp -R" {keys.read_text()}')
        with closing(open_backend(sshd.url_of(root.parent / "shared"))) as backend:
            assert backend.fetch("packs/ab/x", 0, 5) == b"bytes"
            assert list(backend.iter_names("packs/")) == ["packs/ab/x"]
            for write in (backend.write, backend.replace):
                with pytest.raises(AccessDenied, match="must be writable"):
                    write("packs/ab/y", iter((b"more",)))


def test_an_upload_that_breaks_goes_on(
    sshd: Sshd, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(sshd, monkeypatch)
    place = root.parent / "broken"
    with closing(open_backend(sshd.url_of(place))) as backend:
        backend.create()

        def pieces() -> Iterator[bytes]:
            for at in range(0, len(DATA), 1 << 20):
                if at in (1 << 20, 3 << 20):
                    kill_ssh()
                yield DATA[at : at + (1 << 20)]

        backend.write("packs/ab/x", pieces())
        assert (place / "packs/ab/x").read_bytes() == DATA
        assert [p.name for p in (place / "packs/ab").iterdir()] == ["x"]


def test_an_upload_that_breaks_for_good_says_so(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require("sshd")
    monkeypatch.setattr("store.write.backends.sftpfiles.LIMIT_S", 3.0)
    place = root.parent / "cut"
    with Sshd() as sshd:
        use(sshd, monkeypatch)
        with closing(open_backend(sshd.url_of(place))) as backend:
            backend.create()

            def pieces() -> Iterator[bytes]:
                yield DATA[: 1 << 20]
                sshd.stop()
                yield DATA[1 << 20 :]

            with pytest.raises(RemoteError) as caught:
                backend.write("packs/ab/x", pieces())
            assert caught.value.exit_code == 14
    # What is left is no object, and a collection at the server takes it.
    assert not (place / "packs/ab/x").exists()


SCRIPTED = """
import struct, sys
data = open({path!r}, "rb").read()
out = sys.stdout.buffer
def receive():
    size = struct.unpack(">I", sys.stdin.buffer.read(4))[0]
    return sys.stdin.buffer.read(size)
def send(kind, number, body=b""):
    out.write(struct.pack(">IBI", 5 + len(body), kind, number) + body)
    out.flush()
receive()
send(2, 3)
held = []
while True:
    message = receive()
    kind, number = message[0], struct.unpack(">I", message[1:5])[0]
    if kind == 3:
        send(102, number, struct.pack(">I", 1) + b"h")
    elif kind == 5:
        offset, size = struct.unpack(">QI", message[10:22])
        held.append((number, offset, size))
        {behaviour}
    else:
        send(101, number, struct.pack(">I", 0))
"""
BACKWARDS = """
        if len(held) >= 4 or offset + size >= len(data):
            for number, offset, size in reversed(held):
                piece = data[offset:offset + max(size // 3, 1)]
                send(103, number, struct.pack(">I", len(piece)) + piece)
            held.clear()
"""
TOO_MUCH = """
        piece = data[offset:offset + size + 1]
        send(103, number, struct.pack(">I", len(piece)) + piece)
"""
ANOTHER = """
        send(103, number + 100, struct.pack(">I", size) + data[offset:offset + size])
"""
NOTHING = """
        send(103, number, struct.pack(">I", 0))
"""
FAILS = """
        send(101, number, struct.pack(">I", 4) + struct.pack(">I", 8) + b"disk bad" + bytes(4))
"""


def scripted(tmp_path: Path, behaviour: str) -> SshProgram:
    """Give a program that speaks SFTP as a server may, or may not."""
    data = tmp_path / "data"
    data.write_bytes(DATA[:300_000])
    script = tmp_path / "server.py"
    script.write_text(SCRIPTED.format(path=str(data), behaviour=behaviour.strip()))
    return SshProgram((sys.executable, str(script)), os.environ, "", "")


def test_answers_may_be_short_and_in_any_order(tmp_path: Path) -> None:
    source = SshSource("ssh://h/p", 10.0, program=scripted(tmp_path, BACKWARDS))
    shown: list[bytes] = []
    found = source.fetch("x", 0, 131_072, lambda body: shown.append(bytes(body)))
    source.close()
    assert found == DATA[:131_072]
    assert all(DATA.startswith(body) for body in shown)


@pytest.mark.parametrize("behaviour", [TOO_MUCH, ANOTHER, NOTHING, FAILS])
def test_answers_that_are_none_are_refused(tmp_path: Path, behaviour: str) -> None:
    source = SshSource("ssh://h/p", 1.0, program=scripted(tmp_path, behaviour))
    with pytest.raises(RemoteError) as caught:
        source.fetch("x", 0, 100_000)
    source.close()
    assert not isinstance(caught.value, (SizeMismatch, Unreachable))
    assert isinstance(caught.value, BootfsError)
    assert behaviour != FAILS or "disk bad" in str(caught.value)
