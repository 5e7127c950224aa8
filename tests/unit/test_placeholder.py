"""The program that stands at the names of an image's programs until those are there."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from converter.runtime.sources import read_placeholder
from tests.support.require import require

if TYPE_CHECKING:
    from collections.abc import Iterator

SHOW = """\
#include <stdio.h>
int main(int count, char **arguments, char **environment)
{
    char name[64] = "";
    FILE *file = fopen("/proc/self/comm", "r");
    if (file) fgets(name, sizeof name, file);
    printf("%s", name);
    while (*arguments) printf("%s\\n", *arguments++);
    while (*environment) printf("%s\\n", *environment++);
    return 5;
}
"""
REPLACED = (
    "bootfs: the image's programs are not there, since bootfs was not started: "
    "give --entrypoint /.bootfs/init -e BOOTFS_ENTRYPOINT=PROGRAM\n"
)
EARLY = "bootfs: the image's programs were not there yet: do it again\n"
MISSING = "bootfs: the image's program was not made here: something is mounted over its place\n"
KEEPER = """\
import ctypes, pathlib, sys
root = pathlib.Path(sys.argv[1])
libc = ctypes.CDLL(None)
libc.mount(b"proc", bytes(root / "proc"), b"proc", 0, None)
pathlib.Path("/proc/self/comm").write_text(sys.argv[2])
print("up", flush=True)
sys.stdin.read()
"""
"""PID 1 of a PID namespace, under a name of its own, with a root in which there is its /proc."""


class Root:
    """A root as a container has it, and the PID namespace of a PID 1."""

    def __init__(self, path: Path, name: str = "ld.so") -> None:
        self.path = path
        for directory in ("bin", "proc", ".bootfs/mnt/image"):
            (path / directory).mkdir(parents=True, exist_ok=True)
        program = path / ".bootfs/placeholder"
        program.write_bytes(read_placeholder("x86_64"))
        program.chmod(0o755)
        for name_of_one in ("sh", "other"):
            (path / "bin" / name_of_one).hardlink_to(program)
        self._started: list[subprocess.Popen[str]] = []
        command = ["unshare", "--mount", "--pid", "--fork", sys.executable, "-c", KEEPER]
        self._first = subprocess.Popen(
            [*command, path, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._first.stdout is not None
        assert self._first.stdout.readline() == "up\n"
        children = Path(f"/proc/{self._first.pid}/task/{self._first.pid}/children")
        (self.pid,) = children.read_text().split()

    def start(self, *command: str, user: int = 0) -> subprocess.Popen[str]:
        """Execute a program in it, as `docker exec` does."""
        enter = ["nsenter", "--target", self.pid, "--mount", "--pid", "env", "-i", "A=b"]
        become = ["/usr/sbin/chroot", f"--userspec={user}:{user}", self.path]
        process = subprocess.Popen(
            [*enter, *become, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._started.append(process)
        return process

    def wait_until_it_waits(self, process: subprocess.Popen[str], name: str) -> None:
        """Return when a placeholder runs under a name; fails where it has ended."""
        while process.poll() is None:
            for status in Path("/proc").glob("[0-9]*/status"):
                text = status.read_text() if status.exists() else ""
                if text.startswith(f"Name:\t{name}\n") and self._is_within(status.parent):
                    return
            time.sleep(0.01)
        raise AssertionError(process.communicate())

    def _is_within(self, process: Path) -> bool:
        try:
            return (process / "ns/pid").readlink() == Path(f"/proc/{self.pid}/ns/pid").readlink()
        except FileNotFoundError:
            return False

    def put(self, program: Path, name: str) -> None:
        """Put a program in a placeholder's place, as it is done in a container."""
        staged = self.path / ".bootfs/staged"
        staged.write_bytes(program.read_bytes())
        staged.chmod(0o755)
        staged.rename(self.path / "bin" / name)

    def build(self) -> None:
        """Say that the tree is made."""
        (self.path / ".bootfs/built").touch()

    def close(self) -> None:
        """End PID 1, and with it all the others."""
        self._first.communicate()
        for process in self._started:
            process.communicate()


@pytest.fixture(scope="module")
def show(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require("gcc")
    directory = tmp_path_factory.mktemp("show")
    (directory / "show.c").write_text(SHOW)
    subprocess.run(["gcc", "-static", "-o", "show", "show.c"], cwd=directory, check=True)
    return directory / "show"


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    require("root")
    for directory in (tmp_path, *tmp_path.parents[:2]):
        directory.chmod(0o755)
    made = Root(tmp_path / "root")
    yield made
    made.close()


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_the_committed_program_is_what_the_source_assembles_to(
    tmp_path: Path, architecture: str
) -> None:
    require("gcc" if architecture == "x86_64" else "as for aarch64")
    built = tmp_path / "placeholder"
    command = [sys.executable, "scripts/build-launcher", architecture, built, "placeholder"]
    subprocess.run(command, check=True)
    committed = Path(f"boot/launcher/placeholder.{architecture}").read_bytes()
    assert built.read_bytes() == committed == read_placeholder(architecture)
    assert len(committed) < 1500


def test_both_architectures_say_the_same() -> None:
    texts = [read_placeholder(name) for name in ("x86_64", "aarch64")]
    assert len({text[text.index(b"/.bootfs/built\0") :] for text in texts}) == 1


@pytest.mark.parametrize("user", [0, 4242])
def test_it_becomes_the_program_when_the_tree_is_made(root: Root, show: Path, user: int) -> None:
    process = root.start("/bin/sh", "-c", "", user=user)
    root.wait_until_it_waits(process, "sh")
    root.put(show, "sh")
    time.sleep(0.1)
    assert process.poll() is None
    root.build()
    assert process.communicate()[0] == "sh\n/bin/sh\n-c\n\nA=b\n"
    assert process.returncode == 5


def test_as_a_script_s_interpreter_it_becomes_that(root: Root, show: Path) -> None:
    script = root.path / "script"
    script.write_text("#!/bin/sh -x\n")
    script.chmod(0o755)
    process = root.start("/script", "y")
    root.wait_until_it_waits(process, "script")
    root.put(show, "sh")
    root.build()
    assert process.communicate()[0].splitlines() == ["sh", "/bin/sh", "-x", "/script", "y", "A=b"]


def test_behind_a_link_it_keeps_the_name_it_was_executed_by(root: Root, show: Path) -> None:
    (root.path / "bin/link").symlink_to("sh")
    process = root.start("/bin/link")
    root.wait_until_it_waits(process, "link")
    root.put(show, "sh")
    root.build()
    assert process.communicate()[0] == "link\n/bin/link\nA=b\n"


def test_a_file_that_is_being_written_is_tried_again(root: Root, show: Path) -> None:
    root.put(show, "sh")
    process = root.start("/bin/other")
    root.wait_until_it_waits(process, "other")
    root.put(show, "other")
    with (root.path / "bin/other").open("r+b"):
        root.build()
        time.sleep(0.2)
        assert process.poll() is None
    assert process.communicate()[0] == "other\n/bin/other\nA=b\n"


@pytest.mark.parametrize(
    ("contents", "code", "line"),
    [
        (None, 127, "bootfs: cannot execute /bin/sh: error 2\n"),
        ("no program", 126, "bootfs: cannot execute /bin/sh: error 8\n"),
        ("#!/nowhere\n", 127, "bootfs: cannot execute /bin/sh: error 2\n"),
    ],
)
def test_what_cannot_be_executed_has_a_line(
    root: Root, tmp_path: Path, contents: str | None, code: int, line: str
) -> None:
    process = root.start("/bin/sh")
    root.wait_until_it_waits(process, "sh")
    if contents is None:
        (root.path / "bin/sh").unlink()
    else:
        (tmp_path / "contents").write_text(contents)
        root.put(tmp_path / "contents", "sh")
    root.build()
    assert (process.communicate()[1], process.returncode) == (line, code)


def test_where_no_program_has_taken_its_place_it_says_so(root: Root) -> None:
    root.build()
    process = root.start("/bin/sh")
    assert (process.communicate()[1], process.returncode) == (MISSING, 127)


def test_where_the_image_is_mounted_it_does_not_wait(root: Root) -> None:
    process = root.start("/bin/sh")
    root.wait_until_it_waits(process, "sh")
    mount = ["mount", "-t", "tmpfs", "tmpfs", root.path / ".bootfs/mnt/image"]
    # As the daemon does it: in the mount namespace that the engine made.
    subprocess.run(["nsenter", "--target", root.pid, "--mount", *mount], check=True)
    assert (process.communicate(timeout=60)[1], process.returncode) == (EARLY, 126)


def test_as_pid_1_it_says_how_to_start_bootfs(tmp_path: Path) -> None:
    require("root")
    program = tmp_path / "sh"
    program.write_bytes(read_placeholder("x86_64"))
    program.chmod(0o755)
    done = subprocess.run(
        ["unshare", "--pid", "--fork", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (127, REPLACED)


def test_under_another_pid_1_it_ends(tmp_path: Path) -> None:
    require("root")
    root = Root(tmp_path / "root", "docker-init")
    process = root.start("/bin/sh")
    assert (process.communicate(timeout=60)[1], process.returncode) == (REPLACED, 127)
    root.close()
