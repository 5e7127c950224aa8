"""The second shared layer: what a boot image needs to read its store over SSH.

Made like the runtime layer, from inputs that `sshcontents.LOCK` pins, and the same bytes for
all images that have it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from converter.runtime import sshcontents
from converter.runtime.assemble import take_binaries, take_licences
from converter.runtime.debfile import parse_deb
from converter.runtime.fetch import read_inputs
from converter.runtime.layer import RuntimeLayer, directory_of, open_layer
from converter.runtime.lock import Lock, parse_lock, read_lock_text
from converter.runtime.tarball import TOP, encode_members

TIME_S = 1
"""When its files were changed: nss_wrapper takes one of time 0 for one that it has read."""
Members = dict[str, tuple[int, bytes | None]]
"""Mode and contents by path; None for a directory."""


def open_ssh(
    architecture: str = "x86_64", report: Callable[[str], None] = lambda _: None
) -> RuntimeLayer:
    """Return the layer of this release, built if the cache does not hold it intact.

    ``report`` gets a line for every step that takes long.

    Raises:
        NotFound: an input is no longer where it was.
        RemoteError: an input could not be fetched.
        IntegrityError: an input is not what the lock file names.
        AccessDenied, StorageFull: the cache cannot be written.

    """

    def build(inputs: Path) -> bytes:
        lock = parse_lock(read_lock_text(sshcontents.LOCK, architecture))
        contained = read_inputs(lock, inputs, report)
        report("building the layer with ssh")
        return encode_members(assemble_ssh(lock, contained, architecture), TIME_S)

    return open_layer(directory_of("ssh-layers", architecture), {}, build)


def assemble_ssh(lock: Lock, inputs: Mapping[str, bytes], architecture: str = "x86_64") -> Members:
    """Return the members of the layer, of the contents of the lock's inputs by name.

    Raises:
        FormatError: an input is damaged or lacks a file that `sshcontents` names.

    """
    packages = {e.name: parse_deb(e.basename, inputs[e.name]) for e in lock.inputs}
    files = {
        **take_binaries(packages, sshcontents.BINARIES, architecture),
        **take_licences(packages),
        **sshcontents.TEXTS,
    }
    top = f"{TOP}/{sshcontents.SSH}"
    members: Members = {
        f"{top}/{sshcontents.KEYS}": (0o700, None),
        f"{TOP}/{sshcontents.NULL}": (0o644, b""),
    }
    for path, body in files.items():
        members[f"{top}/{path}"] = (0o755 if path in sshcontents.PROGRAMS else 0o644, body)
    return members
