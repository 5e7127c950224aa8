"""The actions and options of ``bootfs profile``."""

from __future__ import annotations

import argparse

from converter.analysing import add_analysed
from converter.profileviews import list_profiles, show_profile
from converter.profiling import add_profiles, remove_from_store
from store.errors import UsageError


def add_profile_actions(command: argparse.ArgumentParser) -> None:
    """Give a command the actions that `run_profile_action` runs."""
    actions = command.add_subparsers(dest="action", required=True, metavar="ACTION")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        action = actions.add_parser(name, help=text, description=text)
        action.add_argument("image", metavar="IMAGE", help="the boot image")
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
        help="files that containers recorded with BOOTFS_RECORD",
    )  # fmt: skip
    action.add_argument(
        "--from", metavar="CONTAINER", dest="container",
        help="all that a container of the local engine recorded, and others on its cache volume",
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


def run_profile_action(options: argparse.Namespace, store: str | None) -> int:
    """Do what is asked for; ``store`` is the URL that ``--store`` means. Return the exit status.

    Raises:
        BootfsError: as each action says.

    """
    if options.action == "list":
        return list_profiles(options.image, store, as_json=options.json)
    if options.action == "show":
        return show_profile(options.image, options.name, store, as_json=options.json)
    if options.action == "add" and options.analyze:
        if options.traces or options.container is not None:
            raise UsageError("profile add: --analyze needs neither --trace nor --from")
        return add_analysed(
            options.image,
            options.name,
            store,
            options.progress,
            replaces=options.replace,
            as_json=options.json,
        )
    if options.action == "add":
        return add_profiles(
            options.image,
            options.traces,
            options.container,
            options.name,
            store,
            options.progress,
            replaces=options.replace,
            as_json=options.json,
        )
    return remove_from_store(options.image, options.names, store, removes_all=options.all)
