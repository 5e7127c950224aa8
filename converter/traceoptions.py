"""The options of ``bootfs trace``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from converter.platforms import Platform, parse_platform

TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class TraceWish:
    """What the command line asks for."""

    image: str
    platform: Platform | None
    """That of IMAGE, to be certain; None for whatever it is."""
    store: str | None
    name: str | None
    until: str
    timeout_s: float
    runs: int
    docker_options: Sequence[str]
    command: Sequence[str]
    """Instead of the image's arguments; empty: those."""
    allows_failure: bool
    replaces: bool
    as_json: bool
    progress: str | None


def add_trace_options(command: argparse.ArgumentParser) -> None:
    """Give a command the options that `trace_wish` takes; what follows ``--`` is in ``words``."""
    command.usage = "bootfs trace [OPTION…] IMAGE [-- CMD…]"
    command.add_argument("image", metavar="IMAGE", help="a boot image that the local engine has")
    command.add_argument(
        "--store", metavar="URL", help="its store, to be written (default: the one it names)"
    )
    command.add_argument(
        "--platform", metavar="OS/ARCHITECTURE",
        help="refuse an image that is not for it; the engine has one platform of an image",
    )  # fmt: skip
    command.add_argument(
        "--name", metavar="NAME",
        help="of the profile (default: of the one there is for this command, or the program's)",
    )  # fmt: skip
    command.add_argument(
        "--until", metavar="CONDITION", default="exit",
        help="when it is ready: log:TEXT, port:N, http:[:PORT]/PATH, a number of seconds, or exit "
        "(default)",
    )  # fmt: skip
    command.add_argument(
        "--timeout", metavar="SECONDS", type=float, default=TIMEOUT_S,
        help=f"how long it may take to be ready (default: {TIMEOUT_S:g})",
    )  # fmt: skip
    command.add_argument(
        "--runs", metavar="N", type=int, default=1, help="run it N times, and keep what all read"
    )
    command.add_argument(
        "--option", metavar="OPTION", action="append", default=[], dest="docker_options",
        help="an option of docker run, such as --option='-e NAME=VALUE'; may be given again",
    )  # fmt: skip
    command.add_argument(
        "--allow-failure", action="store_true", help="keep also what one read that exits non-zero"
    )
    command.add_argument(
        "--replace", action="store_true", help="keep nothing of what the profile has by now"
    )
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    command.add_argument("--progress", choices=("bar", "json", "none"))


def trace_wish(options: argparse.Namespace, store: str | None) -> TraceWish:
    """Return what the options ask for; ``store`` is the URL that ``--store`` means."""
    return TraceWish(
        image=options.image,
        platform=None if options.platform is None else parse_platform(options.platform),
        store=store,
        name=options.name,
        until=options.until,
        timeout_s=options.timeout,
        runs=options.runs,
        docker_options=options.docker_options,
        command=options.words,
        allows_failure=options.allow_failure,
        replaces=options.replace,
        as_json=options.json,
        progress=options.progress,
    )
