"""Convert images for a benchmark with the command that users have."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Conversion:
    """What `bootfs convert --json` reports."""

    plain_bytes: int
    stored_bytes: int
    own_layer_bytes: int
    runtime_layer_bytes: int
    seconds: float


def bootfs(*arguments: str, records: Path | None = None) -> str:
    """Run the command `bootfs` of this environment and give what it printed.

    Only what is in `records` is known of earlier conversions.

    Raises:
        RuntimeError: it failed; the message is its own.
    """
    command = [str(Path(sys.executable).with_name("bootfs")), *arguments]
    environment = os.environ | {"BOOTFS_RECORDS": str(records or "none")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"bootfs {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def convert(
    source: str, destination: str, store: Path, *options: str, records: Path | None = None
) -> Conversion:
    """Convert one image into a directory store, with further ``options``.

    Only what is in `records` is known of earlier conversions.

    Raises:
        RuntimeError: the conversion failed; the message is the converter's.
    """
    # An earlier run may have left the same boot image there.
    printed = bootfs(
        *("convert", source, destination, "--store", str(store), "--json", "--force", *options),
        records=records,
    )
    report = json.loads(printed.splitlines()[-1])
    return Conversion(
        plain_bytes=report["plain_bytes"],
        stored_bytes=report["stored_bytes"],
        own_layer_bytes=report["boot_image"]["own_layer_bytes"],
        runtime_layer_bytes=report["boot_image"]["runtime_layer_bytes"],
        seconds=report["seconds"],
    )
