import subprocess
import sys
from pathlib import Path

import pytest

from converter.runtime.sources import read_launcher
from tests.support.require import require

LAUNCHER = Path("boot/launcher/launcher.x86_64")


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "init"
    path.write_bytes(read_launcher("x86_64"))
    path.chmod(0o755)
    return path


def test_the_committed_program_is_what_the_source_assembles_to(tmp_path: Path) -> None:
    require("gcc")
    built = tmp_path / "launcher"
    subprocess.run([sys.executable, "scripts/build-launcher", "x86_64", built], check=True)
    assert built.read_bytes() == LAUNCHER.read_bytes()


def test_it_is_below_a_kilobyte_and_needs_no_loader() -> None:
    program = LAUNCHER.read_bytes()
    assert len(program) < 1024
    assert program.startswith(b"\x7fELF")
    assert b"ld-linux" not in program


def test_anybody_but_pid_1_is_refused_with_a_line(program: Path) -> None:
    done = subprocess.run([program, "x"], capture_output=True, text=True, check=False)
    line = (
        "bootfs: /.bootfs/init runs only as PID 1 of a container:"
        " leave out --init (have an init in the image) and --pid\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (126, "", line)


def test_without_the_bundle_it_names_the_error(program: Path) -> None:
    require("root")
    done = subprocess.run(
        ["unshare", "--pid", "--fork", program], capture_output=True, text=True, check=False
    )
    line = "bootfs: cannot execute /.bootfs/runtime/ld.so: ENOENT 2\n"
    assert (done.returncode, done.stderr) == (125, line)


@pytest.mark.usefixtures("program")
def test_an_error_without_a_name_has_its_number(tmp_path: Path) -> None:
    require("root")
    # A file where a directory should be: ENOTDIR, 20, is not in the table.
    (tmp_path / ".bootfs").write_bytes(b"")
    done = subprocess.run(
        ["unshare", "--pid", "--fork", f"--root={tmp_path}", "/init"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    line = "bootfs: cannot execute /.bootfs/runtime/ld.so: 20\n"
    assert (done.returncode, done.stderr) == (125, line)


@pytest.mark.usefixtures("program")
def test_without_root_it_says_what_takes_it_away(tmp_path: Path) -> None:
    require("root")
    tmp_path.chmod(0o755)
    done = subprocess.run(
        ["unshare", "--pid", "--fork", f"--root={tmp_path}", "--setuid=1000", "/init"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 125
    assert done.stderr == (
        "bootfs: cannot become root to mount the image:"
        " remove --security-opt no-new-privileges or run as root\n"
    )
