"""What the runtime layer may weigh, must hold, and must not depend on."""

from __future__ import annotations

import ast
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from converter.runtime import contents
from converter.runtime.layer import _KEPT, _forget_old, cache_directory
from converter.runtime.sources import read_own_sources
from store.errors import AccessDenied, UsageError
from tests.support.runtime import Bundle, open_runtime

SIZE_LIMIT = 10 * 10**6

# Third-party packages and what of the standard library boot uses beyond our own imports.
ROOTS = ("blake3", "pyfuse3", "ssl", "socket", "trio", "zstandard")
# Imported by the interpreter on its own, when a codec is asked for by name: a host name
# given as text is encoded by the first.
CODECS = ("encodings.idna", "encodings.ascii", "encodings.latin_1")

LIST_MODULES = """
import sys
for name in {roots}:
    __import__(name)
for name, module in sys.modules.items():
    spec = getattr(module, "__spec__", None)
    # Under a second name, as os.path, it needs no file of its own.
    if not spec or spec.name != name:
        continue
    if spec.has_location or type(spec.loader).__name__ == "ModuleFile":
        print(name)
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle(tmp_path_factory.mktemp("bundle"))


def our_imports() -> set[str]:
    """Every module that our code in the container imports, ours included."""
    found = set()
    for path, text in read_own_sources().items():
        if not path.endswith(".py"):
            continue
        tree = ast.parse(text)
        skipped = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.If)
            and isinstance(node.test, ast.Name)
            and node.test.id == "TYPE_CHECKING"
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            if id(node) in skipped:
                continue
            if isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module)
    return found


def test_the_layer_is_within_its_budget(bundle: Bundle) -> None:
    size = bundle.layer.stored_path.stat().st_size
    assert size == bundle.layer.size <= SIZE_LIMIT


def test_digests_are_those_of_the_files(bundle: Bundle) -> None:
    stored = bundle.layer.stored_path.read_bytes()
    plain = bundle.layer.plain_path.read_bytes()
    assert bundle.layer.digest == f"sha256:{hashlib.sha256(stored).hexdigest()}"
    assert bundle.layer.diff_id == f"sha256:{hashlib.sha256(plain).hexdigest()}"
    assert gzip.decompress(stored) == plain


def test_every_member_is_root_s_without_time_and_only_the_launcher_is_setuid(
    bundle: Bundle,
) -> None:
    with tarfile.open(bundle.layer.plain_path) as tar:
        members = tar.getmembers()
    names = [member.name for member in members]
    assert names == sorted(names)
    for member in members:
        assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")
        assert member.mtime == 0
        assert member.isfile() or member.isdir()
    modes = {member.name: member.mode for member in members}
    assert modes.pop(".bootfs/init") == 0o4755
    assert set(modes.values()) == {0o755, 0o644}


def test_nothing_else_is_in_it(bundle: Bundle) -> None:
    top = {path.name for path in bundle.root.iterdir()}
    assert top == {"init", "runtime", *contents.EMPTY_DIRECTORIES}
    assert all(not list((bundle.root / name).iterdir()) for name in contents.EMPTY_DIRECTORIES)
    modules = contents.read_module_names()
    expected = {name.replace(".", "/") for name in modules}
    own = {path.partition(".")[0].removesuffix("/__init__") for path in read_own_sources()}
    path = bundle.runtime / contents.PYTHON_PATH
    found = {
        file.relative_to(path).as_posix().partition(".")[0].removesuffix("/__init__")
        for file in path.rglob("*")
        if file.is_file()
    }
    head = (bundle.runtime / contents.MODULES).read_bytes().partition(b"\n\n")[0].decode()
    packed = {line.split(" ")[0].replace(".", "/") for line in head.split("\n")}
    assert found | packed == expected | own - {"boot/start"}
    # Once each, but for extension modules, whose path alone is in the file.
    extensions = {
        line.split(" ")[0].replace(".", "/") for line in head.split("\n") if " x " in line
    }
    assert found & packed == extensions
    others = {
        file.relative_to(bundle.runtime).as_posix()
        for file in bundle.runtime.rglob("*")
        if file.is_file() and path not in file.parents and file.parent.name != "licences"
    }
    assert others == {
        *contents.BINARIES,
        contents.CERTIFICATES,
        contents.MODULES,
        contents.START,
        "python._pth",
    }


def test_the_list_of_modules_is_what_is_imported(bundle: Bundle) -> None:
    """Nothing is missing, and nothing is carried in vain."""
    roots = [*sorted(our_imports()), *ROOTS, *CODECS]
    loaded = set(bundle.run(LIST_MODULES.format(roots=roots)).split())
    theirs = {name for name in loaded if name.partition(".")[0] not in {"boot", "store"}}
    assert sorted(theirs - {"__main__"}) == list(contents.read_module_names())


def test_everything_that_is_ours_imports(bundle: Bundle) -> None:
    names = [
        path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for path in read_own_sources()
        # But for what imports them.
        if path.endswith(".py") and path != "boot/start.py"
    ]
    bundle.run(f"for name in {names}: __import__(name)")


def test_the_branch_filter_runs_as_machine_code(bundle: Bundle) -> None:
    """Also out of the file of the boot path's modules, where a module has no place."""
    code = """
from store.read.branches import filtered, turn, turn_slowly, unfiltered
assert turn is not turn_slowly
plain = bytes(range(256)) * 99
assert unfiltered(filtered(plain)[0]) == plain
"""
    bundle.run(code)


def test_tracebacks_name_a_place_that_is_the_same_everywhere(bundle: Bundle) -> None:
    code = "from boot.environment import read_environment as f; print(f.__code__.co_filename)"
    assert bundle.run(code) == "<bootfs>/boot/environment.py\n"


def test_every_library_that_is_needed_is_there(bundle: Bundle) -> None:
    libraries = [path for path in bundle.runtime.rglob("*") if ".so" in path.name]
    command = [bundle.runtime / "ld.so", "--library-path", bundle.runtime / "lib", "--list"]
    for path in [bundle.runtime / "python", *libraries]:
        if path.name == "ld.so":
            continue
        listed = subprocess.run(
            [*command, path], capture_output=True, text=True, check=True, env={}
        ).stdout
        for line in listed.splitlines():
            assert "not found" not in line
            assert "=>" not in line or str(bundle.runtime) in line, f"{path.name}: {line}"


def test_https_has_its_authorities(bundle: Bundle) -> None:
    path = bundle.runtime / contents.CERTIFICATES
    code = f"""
import ssl
context = ssl.create_default_context(cafile={str(path)!r})
print(len(context.get_ca_certs()))
"""
    assert int(bundle.run(code)) > 100


def test_the_licences_of_all_inputs_are_there(bundle: Bundle) -> None:
    licences = {path.name for path in (bundle.runtime / "licences").iterdir()}
    # These two have theirs in gcc-12-base and libpython3.11-minimal.
    expected = {*contents.DEBIAN_PACKAGES, *contents.WHEELS} - {"libgcc-s1", "libpython3.11-stdlib"}
    assert licences >= expected


def test_a_second_call_takes_the_layer_from_the_cache(bundle: Bundle) -> None:
    lines: list[str] = []
    assert open_runtime(report=lines.append) == bundle.layer
    assert lines == []


def test_another_machine_makes_the_same_bytes_once(bundle: Bundle, tmp_path: Path) -> None:
    """Another checkout, cache, home, temporary directory, umask and locale; two callers at once."""
    checkout = tmp_path / "else where"
    for package in ("boot", "converter", "store"):
        shutil.copytree(package, checkout / package, ignore=shutil.ignore_patterns("__pycache__"))
    scratch = tmp_path / "temporary files"
    cache = tmp_path / "cache"
    for directory in (scratch, cache):
        directory.mkdir()
    (cache / "inputs").symlink_to(cache_directory() / "inputs")
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(checkout),
        "PYTHONHASHSEED": "7",
        "TMPDIR": str(scratch),
        "HOME": str(tmp_path),
        "BOOTFS_RUNTIME_CACHE": str(cache),
        "LANG": "en_US.ISO-8859-1",
        "TZ": "Asia/Tokyo",
    }
    command = [sys.executable, "-m", "converter.runtime", "--print"]
    callers = [
        subprocess.Popen(
            command, cwd=checkout, env=environment, umask=0o077,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    (one, built), (other, found) = (caller.communicate() for caller in callers)
    assert sorted([built, found]) == ["", "building the runtime layer\n"]
    assert one == other
    printed = dict(line.split(" ", 1) for line in one.splitlines())
    assert str(cache) in printed["plain"]
    assert printed["diff-id"] == bundle.layer.diff_id
    assert printed["digest"] == bundle.layer.digest
    assert int(printed["size"]) == bundle.layer.size


def test_a_damaged_copy_in_the_cache_is_not_used(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inputs").symlink_to(cache_directory() / "inputs")
    place = tmp_path / "layers" / bundle.layer.plain_path.parent.name
    shutil.copytree(bundle.layer.plain_path.parent, place)
    with (place / bundle.layer.stored_path.name).open("r+b") as file:
        file.seek(1000)
        file.write(b"damage")
    monkeypatch.setenv("BOOTFS_RUNTIME_CACHE", str(tmp_path))
    layer = open_runtime()
    assert layer.stored_path.parent == place
    assert layer.stored_path.read_bytes() == bundle.layer.stored_path.read_bytes()


def test_the_layer_in_use_outlives_those_of_other_releases(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "layers" / bundle.layer.plain_path.parent.name
    shutil.copytree(bundle.layer.plain_path.parent, place)
    others = [tmp_path / "layers" / str(number) for number in range(_KEPT)]
    for age, other in enumerate([place, *others]):
        other.mkdir(exist_ok=True)
        os.utime(other, (age, age))
    monkeypatch.setenv("BOOTFS_RUNTIME_CACHE", str(tmp_path))
    open_runtime()
    _forget_old(tmp_path / "layers")
    assert place.is_dir()
    assert not others[0].exists()


def test_a_cache_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("BOOTFS_RUNTIME_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(AccessDenied, match=r"file/cache.*BOOTFS_RUNTIME_CACHE"):
        open_runtime()


def test_an_unknown_architecture_is_refused_with_those_that_exist() -> None:
    with pytest.raises(UsageError, match=r"'s390x'.*x86_64"):
        open_runtime("s390x")
