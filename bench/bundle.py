"""Run a directory as a container by runc alone: what an engine would do, without one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.ready import run_checked

CAPABILITIES = [
    f"CAP_{name}"
    for name in (
        *("CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID"),
        *("SETFCAP", "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"),
    )
]
"""What Docker gives by default."""


def inspect_config(reference: str) -> dict[str, Any]:
    """Return the config of an image of the machine's engine: Cmd, Env, User, WorkingDir, ..."""
    asked = ["docker", "image", "inspect", "--format", "{{json .Config}}", reference]
    config: dict[str, Any] = json.loads(run_checked(asked))
    return config


def find_user(name: str, passwd: str) -> tuple[int, int]:
    """Return uid and gid of a user by the text of its image's /etc/passwd; root for no name.

    Raises:
        KeyError: there is no such user.
    """
    if not name:
        return 0, 0
    for line in passwd.splitlines():
        fields = line.split(":")
        if fields[0] == name:
            return int(fields[2]), int(fields[3])
    raise KeyError(name)


def write_bundle(
    bundle: Path, root: Path, config: Mapping[str, Any], user: tuple[int, int]
) -> None:
    """Make a directory `bundle` for `runc run --bundle`: to run an image's command in `root`.

    Raises:
        RuntimeError: runc cannot write its own defaults.
    """
    bundle.mkdir()
    run_checked(["runc", "spec", "--bundle", str(bundle)])
    path = bundle / "config.json"
    spec = json.loads(path.read_text())
    spec["process"] |= {
        "terminal": False,
        "user": {"uid": user[0], "gid": user[1]},
        "args": [*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())],
        "env": config.get("Env") or [],
        "cwd": config.get("WorkingDir") or "/",
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), CAPABILITIES),
    }
    spec["root"] = {"path": str(root), "readonly": False}
    # As with `docker run --network host`, which the other ways are run by.
    spec["linux"]["namespaces"] = [
        space for space in spec["linux"]["namespaces"] if space["type"] != "network"
    ]
    path.write_text(json.dumps(spec))
