"""The runtime layer and its launcher in real containers that hold nothing else."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
from typing import TYPE_CHECKING

import pytest

from tests.support.engine import BOOT_OPTIONS, Engine
from tests.support.require import require
from tests.support.runtime import Bundle, import_from

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.system

START = ".bootfs/runtime/start.pyc"
REAL = ".bootfs/runtime/real.pyc"
PLAIN = ("--network", "none")

# Stands where the real start stands: shows what the launcher handed on, or runs a test's code.
PROBE = """
import os, sys
from boot.environment import read_environment
given = read_environment()
if b"PROBE" in given:
    exec(given[b"PROBE"])
else:
    print({
        "arguments": sys.argv[1:],
        "path": sys.path,
        "uid": os.getresuid(),
        "gid": os.getresgid(),
        "groups": sorted(os.getgroups()),
        "directory": os.getcwd(),
        "environment": given,
        "mine": {name for name in os.environb if name[0] < 0x80},
    })
"""

# One file in one directory, as little as pyfuse3 asks for; then a read through the kernel.
FUSE = """
import os, stat, trio, pyfuse3

CONTENT = b"through the kernel"

class Tree(pyfuse3.Operations):
    def _attributes(self, inode):
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = inode
        entry.st_mode = stat.S_IFDIR | 0o755 if inode == 1 else stat.S_IFREG | 0o444
        entry.st_size = 0 if inode == 1 else len(CONTENT)
        return entry
    async def getattr(self, inode, ctx=None):
        return self._attributes(inode)
    async def lookup(self, parent, name, ctx=None):
        if name != b"file":
            raise pyfuse3.FUSEError(2)
        return self._attributes(2)
    async def open(self, inode, flags, ctx):
        return pyfuse3.FileInfo(fh=inode)
    async def read(self, fh, offset, size):
        return CONTENT[offset : offset + size]

def read():
    with open("/.bootfs/mnt/file", "rb") as file:
        return file.read()

async def main():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pyfuse3.main)
        print(await trio.to_thread.run_sync(read))
        pyfuse3.terminate()

pyfuse3.init(Tree(), "/.bootfs/mnt", {"fsname=probe"})
trio.run(main)
pyfuse3.close()
"""


def tar(members: dict[str, bytes | None]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, body in members.items():
            member = tarfile.TarInfo(name)
            member.mode = 0o644
            if body is None:
                member.type, member.mode = tarfile.DIRTYPE, 0o755
            member.size = len(body or b"")
            archive.addfile(member, io.BytesIO(body or b""))
    return out.getvalue()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def image(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An image of the runtime layer and the probe in place of the init."""
    require("docker")
    engine = Engine()
    reference = engine.image_name()
    compiled = tmp_path_factory.mktemp("probe") / "start.pyc"
    source = import_from("/.bootfs/runtime", "real.pyc") + PROBE
    bundle.run(
        "from importlib._bootstrap_external import _code_to_hash_pyc as encode\n"
        f"code = compile({source!r}, 'probe', 'exec')\n"
        f"open({str(compiled)!r}, 'wb').write(encode(code, bytes(8), False))"
    )
    real = (bundle.runtime / "start.pyc").read_bytes()
    layers = [
        bundle.layer.plain_path.read_bytes(),
        tar(
            {
                "dev": None,
                "etc": None,
                "proc": None,
                "sys": None,
                START: compiled.read_bytes(),
                REAL: real,
            }
        ),
    ]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": ["/.bootfs/init"], "Cmd": ["one", ""], "WorkingDir": "/proc"},
        "rootfs": {
            "type": "layers",
            "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in layers],
        },
    }
    manifest = [{"Config": "c.json", "RepoTags": [reference], "Layers": ["1.tar", "2.tar"]}]
    archive = tar(
        {
            "c.json": json.dumps(config).encode(),
            "1.tar": layers[0],
            "2.tar": layers[1],
            "manifest.json": json.dumps(manifest).encode(),
        }
    )
    subprocess.run(["docker", "load"], input=archive, check=True, capture_output=True)
    yield reference
    engine.close()


def shown(engine: Engine, image: str, *command: str, options: tuple[str, ...] = ()) -> dict:
    done = engine.run(image, *command, options=(*PLAIN, *options), check=True)
    assert done.stderr == ""
    found: dict = eval(done.stdout)
    return found


def test_the_init_gets_arguments_environment_and_directory(engine: Engine, image: str) -> None:
    found = shown(engine, image, options=("-e", "A=1", "--hostname", "h"))
    assert found["arguments"] == ["one", ""]
    assert found["path"] == ["/.bootfs/runtime/python-path"]
    assert found["uid"] == found["gid"] == (0, 0, 0)
    assert found["directory"] == "/proc"
    path = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    expected = {b"A": b"1", b"HOSTNAME": b"h", b"HOME": b"/", b"PATH": path}
    assert found["environment"] == expected


def test_a_thousand_arguments_arrive(engine: Engine, image: str) -> None:
    arguments = [f"argument {number}" for number in range(1000)]
    assert shown(engine, image, *arguments)["arguments"] == arguments


def test_another_user_is_root_by_effective_id_only(engine: Engine, image: str) -> None:
    found = shown(engine, image, options=("--user", "1000:1001", "--group-add", "44"))
    assert found["uid"] == (1000, 0, 0)
    assert found["gid"] == (1001, 1001, 1001)
    assert found["groups"] == [44, 1001]


@pytest.mark.parametrize("user", ["0", "1000"])
def test_variables_that_loaders_and_interpreters_obey_reach_only_the_workload(
    engine: Engine, image: str, user: str
) -> None:
    variables = {
        b"GLIBC_TUNABLES": b"glibc.malloc.check=3",
        b"LD_LIBRARY_PATH": b"/usr/local/lib",
        b"LD_PRELOAD": b"libjemalloc.so.2",
        b"LD_TRACE_LOADED_OBJECTS": b"1",
        b"LC_ALL": b"de_DE.ISO-8859-1",
        b"MALLOC_CHECK_": b"3",
        b"PYTHONHOME": b"/nowhere",
        b"TMPDIR": b"/scratch",
        b"TZ": b"Asia/Tokyo",
    }
    options = [f"-e{os.fsdecode(k)}={os.fsdecode(v)}" for k, v in variables.items()]
    found = shown(engine, image, options=("--user", user, *options))
    assert found["environment"].items() >= variables.items()
    assert found["mine"] <= {b"LC_CTYPE"}


def test_no_new_privileges_is_named_as_what_is_in_the_way(engine: Engine, image: str) -> None:
    options = (*PLAIN, "--user", "1000", "--security-opt", "no-new-privileges")
    done = engine.run(image, options=options)
    assert done.returncode == 125
    assert done.stderr == (
        "bootfs: cannot become root to mount the image:"
        " remove --security-opt no-new-privileges or run as root\n"
    )


@pytest.mark.parametrize("option", ["--init", "--pid=host"])
def test_under_another_init_it_refuses(engine: Engine, image: str, option: str) -> None:
    done = engine.run(image, options=(*PLAIN, option))
    assert done.returncode == 126
    assert done.stderr == (
        "bootfs: /.bootfs/init runs only as PID 1 of a container:"
        " leave out --init (have an init in the image) and --pid\n"
    )


def test_docker_exec_of_it_gains_nothing(engine: Engine, image: str) -> None:
    options = (*PLAIN, "-e", "PROBE=import time; time.sleep(60)")
    container = engine.start(image, options=options)
    done = container.run("/.bootfs/init", options=("--user", "1000"), check=False)
    assert done.returncode == 126
    assert "runs only as PID 1" in done.stderr


def test_names_are_looked_up_in_etc_hosts(engine: Engine, image: str) -> None:
    code = "import _socket; print(_socket.getaddrinfo('store.example', 80)[0][4][0])"
    options = (*PLAIN, "--add-host", "store.example:192.0.2.7", "-e", f"PROBE={code}")
    assert engine.run(image, options=options, check=True).stdout == "192.0.2.7\n"


def test_a_tree_of_pyfuse3_is_mounted_and_read(engine: Engine, image: str) -> None:
    require("fuse")
    options = (*PLAIN, *BOOT_OPTIONS, "-e", f"PROBE={FUSE}")
    done = engine.run(image, options=options)
    assert (done.returncode, done.stdout, done.stderr) == (0, "b'through the kernel'\n", "")
