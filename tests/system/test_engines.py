"""Podman and containerd start the same boot images as Docker does (docs/engines.md)."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from converter.convert import convert
from converter.progress import Silent
from converter.reference import parse_reference
from store.write.backends import open_backend
from tests.support.converted import LEVEL
from tests.support.engine import docker
from tests.support.require import require

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.converted import Conversions

pytestmark = [pytest.mark.system, pytest.mark.requires("docker", "erofs", "fuse", "root", "nginx")]

DOCKERFILE = """\
FROM debian:bookworm-slim
RUN useradd -u 4242 -m worker && mkdir -p /content/below && echo kept >/content/below/file \\
 && chown -R worker:worker /content && chmod 1770 /content/below
ENV GIVEN="a value"
VOLUME /content
HEALTHCHECK CMD test -e /content/below/file
STOPSIGNAL SIGUSR1
WORKDIR /srv
CMD ["sh", "-c", "echo from CMD"]
"""
LOOK = """\
id; pwd; echo "$GIVEN"; stat -c '%U %G %a' /content /content/below; cat /content/below/file
grep -E 'Cap|NoNewPrivs' /proc/self/status; grep -c . /etc/hosts
echo x >/var/tmp/own && echo x >/content/own; ls /var/tmp /content; unshare -U true; exit 7
"""
"""What a workload may see and do, in few lines."""
RIGHTS = ("--cap-add", "SYS_ADMIN", "--device", "/dev/fuse", "--security-opt=apparmor=unconfined")
TRAP = "trap 'echo stopped; exit 3' USR1; echo ready; while :; do sleep 0.1; done"
PATIENCE_S = 60.0


class Archives:
    """A source image as docker saves it, and its boot image in two kinds of archive."""

    def __init__(self, directory: Path, conversions: Conversions) -> None:
        self.url = conversions.url
        self.source = directory / "source.tar"
        self.docker = directory / "docker.tar"
        self.oci = directory / "oci.tar"
        source = conversions.engine.build(DOCKERFILE)
        docker("save", "-o", str(self.source), source)
        for target in (f"docker-archive:{self.docker}:test/boot:1", f"oci-archive:{self.oci}:boot"):
            store = open_backend(str(conversions.directory))
            references = parse_reference(source), parse_reference(target)
            convert(*references, store, LEVEL, "", Silent())


@pytest.fixture(scope="module")
def archives(
    conversions: Conversions, base_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Archives:
    """Give the archives that engines load."""
    return Archives(tmp_path_factory.mktemp("archives"), conversions)


def run(
    command: list[str], *, check: bool = False, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command and give its output and exit code."""
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, check=False, timeout=120
    )
    assert not check or done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done


class Podman:
    """Podman with a storage of its own, gone at `close`."""

    def __init__(self, archives: Archives) -> None:
        self.directory = tempfile.mkdtemp(prefix="bootfs-podman-")
        self._store = ("-e", f"BLOB_STORE={archives.url}")
        # runc, since crun 1.8 refuses machines with cgroups of both versions.
        self._podman = [
            *("podman", f"--root={self.directory}/root", f"--runroot={self.directory}/run"),
            *(f"--tmpdir={self.directory}/tmp", "--cgroup-manager=cgroupfs"),
        ]
        self.runtime = "runc"
        self.source = self.load(archives.source)
        self.boot = self.load(archives.docker)

    def load(self, archive: Path) -> str:
        """Load an archive and return what its image is called."""
        loaded = self("load", "-q", "-i", str(archive), check=True).stdout
        return loaded.strip().splitlines()[-1].partition(": ")[2]

    def __call__(self, *arguments: str, check: bool = False) -> subprocess.CompletedProcess[str]:
        """Run a command of podman."""
        return run([*self._podman, f"--runtime={self.runtime}", *arguments], check=check)

    def options(self, *more: str) -> tuple[str, ...]:
        """Give the options of every container here, those that boot aside.

        By default podman asks for the highest limits there are, which not every machine's root
        may give; and a health check wants systemd.
        """
        limits = ("--ulimit=nofile=16384:16384", "--ulimit=nproc=4096:4096")
        return ("--network=host", "--no-healthcheck", *limits, *more)

    def run(self, image: str, *command: str, options: tuple[str, ...] = ()) -> tuple[int, str, str]:
        """Run a container to its end; return exit code and both streams."""
        own = self._store if image != self.source else ()
        done = self("run", "--rm", *self.options(*own, *options), image, *command)
        return done.returncode, done.stdout, done.stderr

    def start(self, *command: str) -> str:
        """Boot a container in the background, which says "ready"; return its id."""
        options = self.options(*self._store, *RIGHTS)
        # Not `--no-healthcheck`, which would take the image's away.
        kept = [option for option in options if option != "--no-healthcheck"]
        name = self("run", "-d", *kept, self.boot, *command, check=True).stdout.strip()
        self.wait_for_line(name, "ready")
        return name

    def wait_for_line(self, name: str, line: str, times: int = 1) -> None:
        """Return when a container has written a line, so many times."""
        deadline = time.monotonic() + PATIENCE_S
        while self("logs", name).stdout.splitlines().count(line) < times:
            assert time.monotonic() < deadline, self("logs", name)
            time.sleep(0.05)

    def close(self) -> None:
        """Remove everything."""
        self("rm", "-f", "-a", "-v", "-t", "0")
        self("rmi", "-f", "-a")
        remove_with_mounts(self.directory)


def remove_with_mounts(directory: str) -> None:
    """Remove a directory of an engine that has ended, and what it left mounted there."""
    with open("/proc/self/mountinfo", encoding="utf-8") as table:
        places = [line.split()[4] for line in table]
    for place in reversed(places):
        if place.startswith(f"{directory}/"):
            run(["umount", "-l", place])
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def podman(archives: Archives) -> Iterator[Podman]:
    """Give a Podman of root's that holds the images."""
    require("podman", "runc")
    podman = Podman(archives)
    yield podman
    podman.close()


@pytest.mark.parametrize("user", ["root", "worker"])
@pytest.mark.parametrize("mode", ["erofs", "fuse", "lease"])
def test_podman_runs_a_boot_image_as_its_source(podman: Podman, mode: str, user: str) -> None:
    plain = podman.run(podman.source, "sh", "-c", LOOK, options=("--user", user))
    assert "kept" in plain[1]
    rights = RIGHTS if mode != "lease" else ()
    options = (*rights, "-e", f"BOOTFS_MODE={mode}", "--user", user)
    booted = podman.run(podman.boot, "sh", "-c", LOOK, options=options)
    assert booted == plain


def test_podman_runs_the_command_of_either_archive(podman: Podman, archives: Archives) -> None:
    for archive in (archives.oci, archives.docker):
        image = podman.load(archive)
        assert podman.run(image, options=RIGHTS) == (0, "from CMD\n", "")
        # An OCI config has no place for a health check, and podman takes both for one image.
        said = podman("image", "inspect", image, "-f", "{{.HealthCheck}}").stdout
        assert ("test -e" in said) == (archive is archives.docker)


def test_podman_exec_logs_health_stop_and_start(podman: Podman) -> None:
    name = podman.start("sh", "-c", TRAP)
    inside = podman("exec", "-u", "worker", name, "sh", "-c", "id -un; cat /content/below/file")
    assert (inside.returncode, inside.stdout) == (0, "worker\nkept\n")
    assert podman("exec", name, "sh", "-c", "echo mine >/var/tmp/own").returncode == 0
    assert podman("healthcheck", "run", name).returncode == 0
    podman("stop", "-t", "20", name)
    code = podman("inspect", "-f", "{{.State.ExitCode}}", name)
    assert (code.stdout, podman("logs", name).stdout) == ("3\n", "ready\nstopped\n")

    podman("start", name)
    podman.wait_for_line(name, "ready", times=2)
    assert podman("exec", name, "cat", "/var/tmp/own").stdout == "mine\n"
    podman("kill", "-s", "KILL", name)
    assert podman("wait", name).stdout == "137\n"
    podman("rm", "-v", name)
    assert podman("volume", "ls", "-q").stdout == ""


def test_podman_with_crun(podman: Podman) -> None:
    require("crun")
    # It refuses a machine that has cgroups of both versions: not to be seen for this one run.
    hide = 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$@"'
    podman_was = podman._podman
    podman._podman = ["unshare", "-m", "sh", "-c", hide, "sh", *podman_was]
    podman.runtime = "crun"
    try:
        booted = podman.run(podman.boot, "cat", "/content/below/file", options=RIGHTS)
    finally:
        podman._podman = podman_was
        podman.runtime = "runc"
    assert booted == (0, "kept\n", "")


@pytest.fixture
def fuse_for_all() -> Iterator[None]:
    """Let everybody open /dev/fuse, as udev does."""
    mode = stat.S_IMODE(os.stat("/dev/fuse").st_mode)
    os.chmod("/dev/fuse", 0o666)
    yield
    os.chmod("/dev/fuse", mode)


@pytest.mark.usefixtures("fuse_for_all")
def test_podman_with_a_user_namespace(podman: Podman) -> None:
    """As a rootless container has one: no EROFS, and an overlay with marks of another kind."""
    options = (*RIGHTS, "--uidmap=0:100000:65536")
    change = (
        "rm -r /etc/apt && mkdir /etc/apt && ls /etc/apt && mv /usr/share/doc /doc && ls /doc/tar "
        "&& rm /etc/issue && ! ls /etc/issue 2>/dev/null && chown worker /etc/motd && "
        "stat -c %U /etc/motd /content/below/file && echo /proc/[0-9]*"
    )
    code, out, said = podman.run(podman.boot, "sh", "-c", change, options=options)
    assert code == 0, said
    assert out.splitlines()[-3:] == ["worker", "worker", "/proc/1"]
    assert said.startswith("bootfs: mode fuse: the kernel refuses to mount EROFS from a file")
    assert len(said.splitlines()) == 1


class Containerd:
    """A containerd with all its files in a directory of its own, gone at `close`."""

    def __init__(self, archives: Archives) -> None:
        self.directory = tempfile.mkdtemp(prefix="bootfs-ctrd-")
        self.image = "docker.io/test/boot:1"
        self._url = archives.url
        self._count = 0
        config = Path(self.directory, "config.toml")
        config.write_text(
            f'version = 2\nroot = "{self.directory}/root"\nstate = "{self.directory}/state"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\naddress = "{self.directory}/socket"\n'
            f'[ttrpc]\naddress = "{self.directory}/socket.ttrpc"\n'
        )
        with open(f"{self.directory}/log", "wb") as log:
            self._daemon = subprocess.Popen(
                ["containerd", "--config", config], stdout=log, stderr=log
            )
        deadline = time.monotonic() + PATIENCE_S
        while self("version").returncode:
            assert self._daemon.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert self("images", "import", str(archives.docker)).returncode == 0

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of ctr."""
        return run(["ctr", "-a", f"{self.directory}/socket", *arguments], stdin="")

    def name(self) -> str:
        """Give a name for one more container."""
        self._count += 1
        return f"bootfs-test-{self._count}"

    def run(self, *options: str, command: str) -> tuple[int, str, str]:
        """Run a shell's command to its end; return exit code and both streams."""
        store = ("--net-host", "--env", f"BLOB_STORE={self._url}")
        # What is given here replaces the image's entrypoint as well as its command.
        arguments = ("/.bootfs/init", "sh", "-c", command)
        done = self("run", "--rm", *store, *options, self.image, self.name(), *arguments)
        return done.returncode, done.stdout, done.stderr

    def close(self) -> None:
        """End the daemon and remove everything."""
        for name in self("containers", "ls", "-q").stdout.split():
            self("task", "kill", "-s", "SIGKILL", name)
            self("task", "rm", "-f", name)
            self("containers", "rm", name)
        self._daemon.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._daemon.wait(30)
        self._daemon.kill()
        remove_with_mounts(self.directory)


CTR_RIGHTS = ("--cap-add", "CAP_SYS_ADMIN", "--device", "/dev/fuse")


@pytest.fixture(scope="module")
def containerd(archives: Archives) -> Iterator[Containerd]:
    """Give a containerd that holds the boot image."""
    require("containerd", "ctr", "runc")
    containerd = Containerd(archives)
    yield containerd
    containerd.close()


def test_ctr_runs_a_boot_image_without_a_volume(containerd: Containerd) -> None:
    look = "cat /content/below/file; echo x >/var/tmp/own && ls /var/tmp; grep ' / / ' "
    look += "/proc/self/mountinfo | grep -o lowerdir=[^,]*; exit 9"
    code, out, said = containerd.run(*CTR_RIGHTS, command=look)
    assert (code, out) == (9, "kept\nown\nlowerdir=/.bootfs/mnt/image\n")
    (line,) = [line for line in said.splitlines() if line.startswith("bootfs: ")]
    assert line.startswith("bootfs: no volume at /.bootfs/rw: ")
    assert "--mount type=bind,src=DIRECTORY,dst=/.bootfs/rw,options=rbind:rw" in line


def test_ctr_containers_on_one_directory_have_nothing_in_common(
    containerd: Containerd, tmp_path: Path
) -> None:
    containerd("images", "unpack", "--snapshotter", "native", containerd.image)
    for snapshotter in ("overlayfs", "native"):
        directory = tmp_path / snapshotter
        directory.mkdir()
        writable = ("--mount", f"type=bind,src={directory},dst=/.bootfs/rw,options=rbind:rw")
        for _ in range(2):
            options = (*CTR_RIGHTS, *writable, "--snapshotter", snapshotter)
            booted = containerd.run(*options, command="ls /var/tmp; echo x >/var/tmp/own")
            assert booted == (0, "", "")
        # Beside them, what was last said of one of them (docs/observing.md).
        assert len({place.name for place in directory.iterdir()} - {"status"}) == 2


def test_ctr_runs_a_boot_image_without_any_right(containerd: Containerd) -> None:
    code, out, said = containerd.run(command="cat /content/below/file; exit 5")
    assert (code, out) == (5, "kept\n")
    assert said.startswith("bootfs: mode lease: ")


def test_ctr_runs_a_boot_image_with_seccomp_and_read_only(containerd: Containerd) -> None:
    options = (*CTR_RIGHTS, "--seccomp", "--read-only")
    look = "grep Seccomp: /proc/self/status; ! touch /own 2>/dev/null && cat /content/below/file"
    code, out, _ = containerd.run(*options, command=look)
    assert (code, out) == (0, "Seccomp:\t2\nkept\n")


def test_a_volume_as_containerd_makes_it_for_kubernetes_is_filled(
    containerd: Containerd, tmp_path: Path
) -> None:
    """Its path tells; to `ctr` it is a directory like any other, which is left as it is."""
    names = ("containers/" + "0" * 64 + "/volumes/" + "1" * 64, "directory")
    seen = []
    for name in names:
        (tmp_path / name).mkdir(parents=True)
        volume = ("--mount", f"type=bind,src={tmp_path / name},dst=/content,options=rbind:rw")
        code, out, _ = containerd.run(*CTR_RIGHTS, *volume, command="ls -A /content")
        seen.append((code, out))
    assert seen == [(0, "below\n"), (0, "")]
