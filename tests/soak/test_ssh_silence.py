"""An SSH server that is silent for longer than the kernel lets a file's reader wait, in mode lease.

Everybody in the container is stopped then, but for ssh, which has to fetch what they wait for.
"""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import pytest

from converter.convert import convert
from converter.progress import Silent
from converter.reference import parse_reference
from store.write.backends import open_backend
from tests.support.converted import LEVEL, Converted, gateway
from tests.support.engine import Engine
from tests.support.sshd import Sshd, children

pytestmark = [pytest.mark.system, pytest.mark.requires("docker", "root", "sshd")]
SILENT_S = 50.0
"""The kernel waits for 45 s by default, and everybody is stopped 10 s before."""


def test_readers_are_stopped_and_ssh_is_not(
    engine: Engine, base_image: str, tmp_path: Path
) -> None:
    source = engine.build(
        f"FROM {base_image}\nRUN head -c 3000000 /dev/urandom > /big; sha256sum /big > /sums\n"
    )
    boot = engine.image_name()
    with closing(open_backend(str(tmp_path / "store"))) as backend:
        convert(
            parse_reference(source),
            parse_reference(boot),
            backend,
            LEVEL,
            "",
            Silent(),
            with_ssh=True,
        )
    with Sshd(addresses=[gateway()]) as sshd:
        url = sshd.url_of(tmp_path / "store", address=sshd.addresses[1])
        # From the start on, so that nothing is filled before.
        with sshd.paused():
            container = Converted("", boot, url, "lease").start(
                engine,
                *("sh", "-c", "echo BEGUN; sha256sum -c --quiet /sums && echo WHOLE"),
                options=("-v", f"{sshd.auth}:/.bootfs/auth:ro"),
            )
            time.sleep(SILENT_S)
            first = container.pid()
            assert first
            below = children(first)
            assert "ssh" in {name_of(process) for process in below}
            others = [p for p in below if name_of(p) not in ("ssh", "bootfs-keeper")]
            assert {state_of(process) for process in others} == {"T"}
            assert "T" not in {state_of(p) for p in below if name_of(p) == "ssh"}
        assert container.wait() == 0, container.logs()
        assert "WHOLE" in container.logs()


def state_of(process: int) -> str:
    return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0]


def name_of(process: int) -> str:
    arguments = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    if any(word == b"/.bootfs/ssh/ssh" for word in arguments):
        return "ssh"
    return Path(f"/proc/{process}/comm").read_text().strip()
