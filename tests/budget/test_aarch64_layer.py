"""The runtime layer for AArch64: as small as the other, as whole, and made without it."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from converter.runtime import compilation, contents, open_ssh, sshcontents
from converter.runtime.assemble import _take_modules, parse_packages, take_binaries
from converter.runtime.fetch import read_inputs
from converter.runtime.layer import cache_directory
from converter.runtime.lock import parse_lock, read_lock_text
from converter.runtime.sources import read_own_sources
from tests.budget.test_runtime_layer import CODECS, LIST_MODULES, ROOTS, SIZE_LIMIT, our_imports
from tests.support.require import require
from tests.support.runtime import Bundle, open_runtime

EMULATOR = "qemu-aarch64-static"
OTHER_CODE = "store/read/branchcode.x86_64.so"
"""Machine code of ours that the other layer alone carries."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    require("qemu-aarch64")
    return Bundle(tmp_path_factory.mktemp("bundle"), "aarch64", (EMULATOR,))


def names_in(path: Path) -> set[str]:
    with tarfile.open(path) as tar:
        names = tar.getnames()
    return {name.replace("-aarch64-", "-x86_64-") for name in names}


def test_it_has_the_same_files_within_the_same_budget() -> None:
    layer, other = open_runtime("aarch64"), open_runtime()
    assert layer.size == layer.stored_path.stat().st_size <= SIZE_LIMIT
    assert layer.digest != other.digest
    names, other_names = names_in(layer.plain_path), names_in(other.plain_path)
    code = f".bootfs/runtime/{contents.PYTHON_PATH}/{OTHER_CODE}"
    # It is alone in its directories.
    above = {str(path) for path in Path(code).parents if str(path) not in names | {"."}}
    assert other_names - names == {code, *above} and not names - other_names
    ssh, other_ssh = open_ssh("aarch64"), open_ssh()
    assert names_in(ssh.plain_path) == names_in(other_ssh.plain_path)
    assert f".bootfs/{sshcontents.SSH}/ssh" in names_in(ssh.plain_path)


def test_every_binary_is_for_it(bundle: Bundle) -> None:
    programs = [
        path
        for path in bundle.root.rglob("*")
        if path.is_file() and path.read_bytes()[:4] == b"\x7fELF"
    ]
    assert len(programs) > len(contents.BINARIES) + 5
    for path in programs:
        # e_machine of elf(5)
        assert int.from_bytes(path.read_bytes()[18:20], "little") == 183, path


def test_its_interpreter_imports_all_that_is_ours_and_nothing_else(bundle: Bundle) -> None:
    own = [
        path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for path in read_own_sources("aarch64")
        if path != "boot/start.py"
    ]
    assert "boot.aarch64" in own
    roots = [*own, *sorted(our_imports()), *ROOTS, *CODECS]
    loaded = set(bundle.run(LIST_MODULES.format(roots=roots)).split())
    theirs = {name for name in loaded if name.partition(".")[0] not in {"boot", "store"}}
    assert sorted(theirs - {"__main__"}) == list(contents.read_module_names())


def test_what_it_needs_works_and_the_filter_is_its_own(bundle: Bundle) -> None:
    code = """
import blake3, zstandard, ssl
from boot import syscalls, workload
plain = b"a" * 100000
assert zstandard.ZstdDecompressor().decompress(zstandard.ZstdCompressor().compress(plain)) == plain
print(blake3.blake3(b"").hexdigest(), ssl.create_default_context() is not None)
print(workload.plain_docker_filter.__module__, syscalls._SYS_CLONE, syscalls._SYS_SETRESUID)
"""
    assert bundle.run(code).splitlines() == [
        "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262 True",
        "boot.aarch64 220 147",
    ]


def test_machine_code_of_the_other_stays_out_and_python_does_its_work(bundle: Bundle) -> None:
    assert OTHER_CODE in read_own_sources() and OTHER_CODE not in read_own_sources("aarch64")
    code = """
from store.read.branches import filtered, turn, turn_slowly, unfiltered
assert turn is turn_slowly
plain = bytes.fromhex("e810000000") * 99 + bytes(6)
data, turned = filtered(plain)
assert turned == 99 and data != plain and unfiltered(data) == plain
"""
    bundle.run(code)


def test_its_own_interpreter_writes_the_same_byte_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a layer is the same, whichever of the two machines made it."""
    require("qemu-aarch64")
    compiled = []
    lock = parse_lock(read_lock_text(architecture="aarch64"))
    inputs = read_inputs(lock, cache_directory() / "inputs", lambda _: None)
    packages = parse_packages(lock, inputs)
    sources = {
        path: text
        for path, text in {
            **_take_modules(packages, "aarch64"),
            **read_own_sources("aarch64"),
        }.items()
        if path.endswith(".py")
    }
    here = parse_lock(read_lock_text())
    ours = parse_packages(here, read_inputs(here, cache_directory() / "inputs", lambda _: None))
    compiled.append(
        compilation.compile_modules(take_binaries(ours, contents.BINARIES, "x86_64"), sources)
    )
    real = subprocess.run
    emulator = shutil.which(EMULATOR)

    def emulate(command: list[str | Path], **options: object) -> object:
        return real([emulator, *command], **options)  # type: ignore[call-overload]  # as they came

    monkeypatch.setattr(compilation.subprocess, "run", emulate)
    foreign = take_binaries(packages, contents.BINARIES, "aarch64")
    compiled.append(compilation.compile_modules(foreign, sources))
    assert len(compiled[0]) == len(sources) and compiled[0] == compiled[1]
