"""What a boot may import, ask the store for, and bring along, in real containers."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
import marshal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench.images import IMAGES, build_image
from boot.status import DIRECTORY
from tests.support.converted import gateway
from tests.support.registries import basic_registry, write_docker_config
from tests.support.registrystores import Stored
from tests.support.require import require
from tests.support.servers import Registry

if TYPE_CHECKING:
    from tests.support.converted import Conversions, Converted
    from tests.support.engine import Engine

OWN_LAYER_SHARE = 0.008
"""Of the source image's gzipped bytes, at most."""
LARGE = 80 * 10**6

F_NOTIFY = 1026
"""linux/fcntl.h."""

AT_START = {
    *("_abc", "_codecs", "_frozen_importlib", "_frozen_importlib_external", "_imp", "_io"),
    *("_signal", "_thread", "_warnings", "_weakref", "abc", "builtins", "codecs", "encodings"),
    *("encodings.aliases", "encodings.utf_8", "io", "marshal", "posix", "sys", "time"),
    *("zipimport", "__main__"),
}
"""What the interpreter has imported before it runs anything."""
BOTH = {
    *("__future__", "_collections_abc", "_ctypes", "_stat", "_struct", "array", "blake3"),
    *("blake3.blake3", "errno", "gc", "genericpath", "mmap", "os", "posixpath", "stat", "struct"),
}
INIT = BOTH | {"fcntl", "termios"}
"""What PID 1 and the child that becomes the workload may import of others."""
DAEMON = BOTH | {
    *("_bisect", "_queue", "_socket", "bisect", "itertools", "zstandard", "zstandard.backend_c"),
}
"""What the daemon of mode `erofs` may, with a store behind http:// and all that it reads read."""

PROBE = """\
import posix
import sys

def _tell(event, arguments):
    if event == "import":
        posix.write(2, b"imported %d %s\\n" % (posix.getpid(), arguments[0].encode()))

for _name in sys.modules:
    posix.write(2, b"present %s\\n" % _name.encode())
sys.addaudithook(_tell)
"""
"""Put before boot/start.py: tells of each import, in whichever process, when it happens."""


CALLS = """\
import posix
import sys

def _tell(event, arguments):
    if event in ("open", "os.mkdir", "os.remove", "os.rename", "fcntl.fcntl"):
        posix.write(2, b"call %d %s %r\\n" % (posix.getpid(), event.encode(), arguments))

sys.addaudithook(_tell)
"""
"""The same for calls that a status costs."""


def probed(engine: Engine, image: Converted, directory: Path, probe: str = PROBE) -> Converted:
    """Give the same boot image with ``probe`` in it."""
    code = compile(probe + Path("boot/start.py").read_text(), "<bootfs>/boot/start.py", "exec")
    compiled = importlib.util.MAGIC_NUMBER + bytes(12) + marshal.dumps(code)
    (directory / "start.pyc").write_bytes(compiled)
    dockerfile = f"FROM {image.boot}\nCOPY start.pyc /.bootfs/runtime/start.pyc\n"
    return dataclasses.replace(image, boot=engine.build(dockerfile, directory))


def test_what_a_boot_imports(engine: Engine, conversions: Conversions, tmp_path: Path) -> None:
    image = probed(engine, conversions.convert(build_image(IMAGES["deb"])), tmp_path)
    options = ("-v", f"{engine.volume()}:/.bootfs/cache")
    for start in ("cold", "warm"):
        done = image.run(engine, options=options)
        assert (done.returncode, done.stdout) == (0, "READY\n")
        told = [line.split() for line in done.stderr.splitlines()]
        assert {kind for kind, *_ in told} == {"present", "imported"}, done.stderr
        assert {name for kind, *_, name in told if kind == "present"} == AT_START
        # The child is PID 1 too, of a PID namespace of its own.
        init = {name for kind, *_, name in told if [kind, *_] == ["imported", "1"]}
        others = {pid for kind, pid, *_ in told if kind == "imported" and pid != "1"}
        (daemon_pid,) = others
        daemon = {name for kind, *_, name in told if [kind, *_] == ["imported", daemon_pid]}
        for names, allowed in ((init, INIT), (init | daemon, INIT | DAEMON)):
            foreign = {n for n in names if n.partition(".")[0] not in {"boot", "store"}}
            # From a filled cache a start may do with less.
            assert foreign == allowed if start == "cold" else foreign <= allowed, start
        assert not daemon & {"fcntl", "termios"}
        # Not before the daemon was forked, which has the most to import.
        assert {"boot.config", "blake3", "store.read.counts"} <= daemon
        # What only one of the ways needs is imported on that way alone.
        assert not {"boot.modes.fusetree", "boot.modes.fuseserver"} & (init | daemon)
        assert not {"boot.recording", "boot.sending", "store.format.tracenames"} & (init | daemon)
        assert not {"store.read.tls", "store.read.local", "store.read.remote"} & init
        assert not {"store.read.tls", "store.read.local"} & daemon
        assert "store.read.remote" in daemon


def test_what_counting_costs_a_boot(
    engine: Engine, conversions: Conversions, tmp_path: Path
) -> None:
    image = probed(engine, conversions.convert(build_image(IMAGES["deb"])), tmp_path, CALLS)
    conversions.server.forget()
    done = image.run(engine)
    assert (done.returncode, done.stdout) == (0, "READY\n")
    calls = [line.split(" ", 3)[1:] for line in done.stderr.splitlines()]
    status = [
        event
        for pid, event, what in calls
        if pid == "1" and (DIRECTORY in what or ".new" in what or f", {F_NOTIFY}, " in what)
    ]
    # Nothing between the start and the end of the workload, since nobody asked.
    assert status == ["os.mkdir", "open", "fcntl.fcntl", "os.remove", "open", "os.rename"]
    names = [what for _, event, what in calls if event == "open" and "/comm" in what]
    asked = conversions.server.requests()
    # Only those who wait for a request are looked up.
    assert 0 < len(names) <= 2 * len(asked)


@pytest.mark.parametrize("is_guarded", [False, True], ids=["open", "guarded"])
def test_what_a_boot_from_a_registry_imports(
    engine: Engine,
    base_image: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_guarded: bool,
) -> None:
    require("registry", "erofs", "fuse", "root")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    start = functools.partial(basic_registry, tmp_path) if is_guarded else Registry
    with start(address="") as registry:
        stored = Stored(registry, gateway())
        write_docker_config(tmp_path, registry.host_port)
        image = probed(engine, stored.convert(engine, build_image(IMAGES["deb"])), tmp_path)
        write_docker_config(tmp_path, f"{stored.address}:{registry.port}")
        done = image.run(engine, options=("-v", f"{tmp_path}:/.bootfs/auth:ro"))
    assert (done.returncode, done.stdout) == (0, "READY\n")
    told = [line.split() for line in done.stderr.splitlines()]
    assert {kind for kind, *_ in told} == {"present", "imported"}, done.stderr
    names = {name for kind, *_, name in told if kind == "imported"}
    assert {"store.read.registry", "store.read.registryauth"} <= names
    assert not {"store.read.document", "store.read.tls", "store.read.local"} & names
    foreign = {name for name in names if name.partition(".")[0] not in {"boot", "store"}}
    if not is_guarded:
        assert foreign == INIT | DAEMON | {"binascii"}
        assert "store.read.jsontext" not in names
        return
    assert foreign >= INIT | DAEMON | {"binascii", "json"}
    assert not {"socket", "ssl", "threading", "typing", "urllib"} & foreign


@pytest.mark.parametrize(
    # With what is fetched for the next start, when the workload has ended.
    ("name", "requests", "size"),
    [("deb", 18, 2_500_000), ("gcc", 220, 28_000_000)],
)
def test_what_a_cold_boot_asks_the_store_for(
    engine: Engine, conversions: Conversions, name: str, requests: int, size: int
) -> None:
    image = conversions.convert(build_image(IMAGES[name]))
    conversions.server.forget()
    assert image.run(engine).stdout == "READY\n"
    asked = conversions.server.requests()
    # Whether there is a profile is one question.
    (question,) = (request for request in asked if request.path.startswith("/profiles/"))
    assert (question.method, question.status) == ("GET", 404)
    asked.remove(question)
    assert {(request.method, request.status) for request in asked} == {("GET", 206)}
    assert len(asked) <= requests
    assert sum(request.size for request in asked) <= size
    assert len({(request.path, request.range) for request in asked}) == len(asked)


def test_the_own_layer_of_a_large_image(base_image: str, tmp_path: Path) -> None:
    source = build_image(IMAGES["gcc"])
    command = f"docker save {source} | gzip | wc -c"
    zipped = int(subprocess.run(command, shell=True, capture_output=True, check=True).stdout)
    assert zipped > LARGE
    convert = ["convert", source, f"oci:{tmp_path}/boot", "--store", str(tmp_path / "store")]
    done = subprocess.run(
        [sys.executable, "-m", "converter.cli", *convert, "--level", "1", "--json"],
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout)["boot_image"]["own_layer_bytes"] <= OWN_LAYER_SHARE * zipped
