"""What the runtime layer for AArch64 has of its own, on whatever machine this is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from struct import iter_unpack
from types import ModuleType

import pytest

from boot import aarch64, seccomp
from converter.runtime import contents, sshcontents
from converter.runtime.lock import NAME, encode_lock, parse_lock, read_lock_text
from converter.runtime.sources import _edited, read_launcher, read_own_sources
from tests.support.require import require

LAUNCHER = Path("boot/launcher/launcher.aarch64")
HEADER = Path("/usr/include/asm-generic/unistd.h")
ALLOW, ENOSYS, EPERM = 0x7FFF0000, 0x00050026, 0x00050001
NEWUSER, THREAD = 0x10000000, 0x00010000


def answer_of(program: bytes, architecture: int, number: int, argument: int = 0) -> int:
    """Run a seccomp filter as the kernel does (linux/bpf_common.h); return what it returns."""
    steps = list(iter_unpack("<HBBI", program))
    held = {0: number, 4: architecture, 16: argument}
    value = at = 0
    while True:
        code, true, false, operand = steps[at]
        at += 1
        if code == 0x20:
            value = held[operand]
        elif code == 0x54:
            value &= operand
        elif code == 0x15:
            at += true if value == operand else false
        elif code == 0x45:
            at += true if value & operand else false
        else:
            assert code == 0x06
            return operand


@pytest.mark.parametrize(
    ("module", "architecture", "clone", "refused", "as_podman"),
    [
        (
            aarch64, aarch64.ARCH_AARCH64, 220,
            aarch64.REFUSED_AARCH64, aarch64.PODMAN_REFUSED_AARCH64,
        ),
        (aarch64, aarch64.ARCH_ARM, 120, aarch64.REFUSED_ARM, aarch64.PODMAN_REFUSED_ARM),
        (
            seccomp, seccomp.ARCH_X86_64, 56,
            seccomp.REFUSED_X86_64, seccomp.PODMAN_REFUSED_X86_64,
        ),
        (seccomp, seccomp.ARCH_I386, 120, seccomp.REFUSED_I386, seccomp.PODMAN_REFUSED_I386),
    ],
    ids=["aarch64", "arm", "x86-64", "i386"],
)  # fmt: skip
def test_the_filters_refuse_what_they_name_and_nothing_else(
    module: ModuleType,
    architecture: int,
    clone: int,
    refused: tuple[int, ...],
    as_podman: tuple[int, ...],
) -> None:
    docker, podman = module.plain_docker_filter(), module.plain_podman_filter()
    for number in range(500):
        expected = EPERM if number in refused else ENOSYS if number == 435 else ALLOW
        assert answer_of(docker, architecture, number, THREAD) == expected, number
        expected = EPERM if number in as_podman else ALLOW
        assert answer_of(podman, architecture, number, NEWUSER) == expected, number
    assert answer_of(docker, architecture, clone, NEWUSER) == EPERM
    # Of no table that is known: the engine's own filter has the word.
    assert answer_of(docker, 0x12345678, refused[0]) == ALLOW


def test_numbers_are_those_of_the_kernels_table() -> None:
    require("gcc")  # which comes with the kernel's headers
    table = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", HEADER.read_text()))
    text = Path("boot/aarch64.py").read_text()
    own = text[text.index("PODMAN_REFUSED_AARCH64 =") : text.index("PODMAN_REFUSED_ARM =")]
    named = re.findall(r"(\d+),  # (\w+)", own)
    assert len(named) == len(aarch64.REFUSED_AARCH64) - len(seccomp.REFUSED)
    for number, name in named:
        assert table[name] == number, name
    assert int(table["clone"]) == aarch64.CLONE_AARCH64
    edited = read_own_sources("aarch64")["boot/syscalls.py"].decode()
    assert f"_SYS_CLONE, _SYS_SETRESUID = {table['clone']}, {table['setresuid']}" in edited


def test_each_layer_has_the_modules_of_its_architecture() -> None:
    x86_64, other = read_own_sources(), read_own_sources("aarch64")
    assert other.keys() - x86_64.keys() == {"boot/aarch64.py"}
    assert x86_64.keys() - other.keys() == {"store/read/branchcode.x86_64.so"}
    different = {name for name in x86_64.keys() & other.keys() if x86_64[name] != other[name]}
    assert different == contents.EDITS["aarch64"].keys()
    for name, text in x86_64.items():
        assert text == Path(name).read_bytes()
    for text in (b"", b"a = 1\na = 1\n"):
        with pytest.raises(ValueError, match=r"boot/x\.py does not say 'a = 1', once"):
            _edited("boot/x.py", text, b"a = 1", b"a = 2")


@pytest.mark.parametrize("name", [NAME, sshcontents.LOCK])
def test_both_architectures_have_the_same_versions(name: str) -> None:
    text = read_lock_text(name, "aarch64")
    lock, other = parse_lock(text), parse_lock(read_lock_text(name))
    assert encode_lock(lock) == text
    assert [(i.kind, i.name, i.version) for i in lock.inputs] == [
        (i.kind, i.name, i.version) for i in other.inputs
    ]
    for entry in lock.inputs:
        assert re.search(r"(_arm64|_all)\.deb$|(aarch64|none-any)\.whl$", entry.file), entry.file


def test_the_committed_program_is_what_the_source_assembles_to(tmp_path: Path) -> None:
    require("as for aarch64")
    built = tmp_path / "launcher"
    subprocess.run([sys.executable, "scripts/build-launcher", "aarch64", built], check=True)
    assert built.read_bytes() == LAUNCHER.read_bytes() == read_launcher("aarch64")


def test_it_is_small_and_says_what_the_other_says() -> None:
    program, other = LAUNCHER.read_bytes(), read_launcher("x86_64")
    assert len(program) < 1100 and program.startswith(b"\x7fELF")
    texts = [read[read.index(b"/.bootfs/runtime/ld.so\0") :] for read in (program, other)]
    assert texts[0] == texts[1]


def test_anybody_but_pid_1_is_refused_with_a_line() -> None:
    require("qemu-aarch64")
    command = ["qemu-aarch64-static", LAUNCHER, "x"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    line = (
        "bootfs: /.bootfs/init runs only as PID 1 of a container:"
        " leave out --init (have an init in the image) and --pid\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (126, "", line)


@pytest.mark.parametrize("error", ["ENOENT 2", "20"])
def test_without_the_bundle_it_names_the_error(tmp_path: Path, error: str) -> None:
    require("root", "qemu-aarch64")
    (tmp_path / "init").write_bytes(read_launcher("aarch64"))
    (tmp_path / "init").chmod(0o755)
    emulator = subprocess.run(
        ["sh", "-c", "command -v qemu-aarch64-static"], capture_output=True, text=True, check=True
    )
    (tmp_path / "qemu").write_bytes(Path(emulator.stdout.strip()).read_bytes())
    (tmp_path / "qemu").chmod(0o755)
    if error == "20":
        # A file where a directory should be: ENOTDIR, 20, is not in the table.
        (tmp_path / ".bootfs").write_bytes(b"")
    done = subprocess.run(
        ["unshare", "--pid", "--fork", f"--root={tmp_path}", "/qemu", "/init", "an", "argument"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    line = f"bootfs: cannot execute /.bootfs/runtime/ld.so: {error}\n"
    assert (done.returncode, done.stderr) == (125, line)
    tmp_path.chmod(0o755)
    done = subprocess.run(
        ["unshare", "--pid", "--fork", f"--root={tmp_path}", "--setuid=1000", "/qemu", "/init"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 125 and "cannot become root to mount the image" in done.stderr
