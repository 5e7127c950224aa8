"""The actions and options of ``bootfs profile``."""

from __future__ import annotations

import argparse
import re

from converter.analysing import add_analysed
from converter.platforms import parse_platform
from converter.profileviews import list_profiles, show_profile
from converter.profiling import TraceSources, add_profiles, remove_from_store
from store.errors import UsageError


def add_profile_actions(command: argparse.ArgumentParser) -> None:
    """Give a command the actions that `run_profile_action` runs."""
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        action = actions.add_parser(name, help=text, description=text)
        action.add_argument("image", metavar="IMAGE", help="the boot image")
        action.add_argument(
            "--platform", metavar="OS/ARCHITECTURE",
            help="which image of IMAGE where that is an index of several; default: this machine's",
        )  # fmt: skip
        action.add_argument(
            "--store", metavar="URL", help="its store (default: the one that the image names)"
        )
        return action

    action = add("list", "list the profiles that the store has of a boot image")
    action.add_argument("--json", action="store_true", help="print as JSON")

    action = add("show", "list the files that a profile reads, in order")
    action.add_argument("--name", metavar="NAME", help="which, where there are several")
    action.add_argument("--json", action="store_true", help="print as JSON")

    action = add("add", "make profiles of traces, or add the traces to those there are")
    action.add_argument(
        "--trace", metavar="FILE", nargs="+", action="extend", default=[], dest="traces",
        help="files that containers recorded with BOOTFS_RECORD, and directories of them",
    )  # fmt: skip
    action.add_argument(
        "--from", metavar="CONTAINER", dest="container",
        help="all that a container of the local engine recorded, and others on its cache volume; "
        "what has a slash is a file or a directory, as for --trace",
    )  # fmt: skip
    action.add_argument(
        "--from-store", action="store_true",
        help="all that containers have sent to the store; it is removed there",
    )  # fmt: skip
    action.add_argument(
        "--newest", metavar="N", type=_parse_newest,
        help="of the traces of each command the newest N alone (default: all)",
    )  # fmt: skip
    action.add_argument(
        "--analyze", action="store_true",
        help="none of these: tell from the image's command what its start will read",
    )  # fmt: skip
    action.add_argument(
        "--name", metavar="NAME",
        help="put all traces into one profile of this name (default: one for each command, "
        "called as its program)",
    )  # fmt: skip
    action.add_argument(
        "--replace", action="store_true", help="keep nothing of what the profile has by now"
    )
    action.add_argument("--json", action="store_true", help="print as JSON")
    action.add_argument("--progress", choices=("bar", "json", "none"))

    action = add("remove", "remove profiles of a boot image")
    action.add_argument(
        "--name", metavar="NAME", action="append", default=[], dest="names",
        help="which; may be given again",
    )  # fmt: skip
    action.add_argument("--all", action="store_true", help="all of them")


def _parse_newest(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,5}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r}: give a number from 1 on")
    return int(text)


def run_profile_action(options: argparse.Namespace, store: str | None) -> int:
    """Do what is asked for; ``store`` is the URL that ``--store`` means. Return the exit status.

    Raises:
        BootfsError: as each action says.

    """
    platform = None if options.platform is None else parse_platform(options.platform)
    if options.action == "list":
        return list_profiles(options.image, store, platform, as_json=options.json)
    if options.action == "show":
        return show_profile(options.image, options.name, store, platform, as_json=options.json)
    if options.action == "add" and options.analyze:
        if options.traces or options.container or options.from_store or options.newest:
            raise UsageError(
                "profile add: --analyze needs no --trace, --from, --from-store or --newest"
            )
        return add_analysed(
            options.image,
            options.name,
            store,
            platform,
            options.progress,
            replaces=options.replace,
            as_json=options.json,
        )
    if options.action == "add":
        paths, container = list(options.traces), options.container
        if container is not None and "/" in container:
            paths, container = [*paths, container], None
        return add_profiles(
            options.image,
            TraceSources(paths, container, options.from_store, options.newest),
            options.name,
            store,
            platform,
            options.progress,
            replaces=options.replace,
            as_json=options.json,
        )
    return remove_from_store(options.image, options.names, store, platform, removes_all=options.all)
