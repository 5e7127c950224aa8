"""``python -m converter.runtime``: build a shared layer, or renew the lock files."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from converter.runtime import open_runtime, open_ssh, sshcontents
from converter.runtime.contents import ARCHITECTURES
from converter.runtime.lock import NAME, encode_lock, lock_file
from converter.runtime.update import resolve_lock
from store.errors import BootfsError


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m converter.runtime", description=__doc__)
    parser.add_argument("--architecture", choices=ARCHITECTURES, default="x86_64")
    parser.add_argument(
        "--update-lock", action="store_true",
        help="pin the packages that the Debian archive and the package index have now",
    )  # fmt: skip
    parser.add_argument(
        "--print", action="store_true", dest="print_layer",
        help="print digest, diff id, size and paths of the layer, building it if need be",
    )  # fmt: skip
    parser.add_argument(
        "--ssh",
        action="store_true",
        help="the second shared layer, with ssh, in place of the first",
    )
    arguments = parser.parse_args()
    try:
        if arguments.update_lock:
            # Together: both are of the same versions.
            for architecture in ARCHITECTURES:
                _update_locks(architecture)
        if arguments.print_layer or not arguments.update_lock:
            layer = (
                open_ssh(arguments.architecture, _report)
                if arguments.ssh
                else open_runtime(arguments.architecture, _report)
            )
            sys.stdout.write(
                f"digest {layer.digest}\ndiff-id {layer.diff_id}\nsize {layer.size}\n"
                f"plain {layer.plain_path}\nstored {layer.stored_path}\n"
            )
    except BootfsError as error:
        _report(f"bootfs: {error}")
        return error.exit_code
    return 0


def _update_locks(architecture: str) -> None:
    """Renew both lock files: the second layer's programs use libraries of the first."""
    ssh = resolve_lock(architecture, sshcontents.DEBIAN_PACKAGES, {})
    for name, lock in ((NAME, resolve_lock(architecture)), (sshcontents.LOCK, ssh)):
        Path(__file__).with_name(lock_file(architecture, name)).write_text(encode_lock(lock))


def _report(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
