"""The command line: what is asked for, and what is said about it."""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from signal import SIGHUP, SIGTERM
from typing import NoReturn

from converter import RELEASE
from converter.bootimages import iter_boot_images, open_boot_images
from converter.check import Comparison
from converter.convert import DEFAULT_LEVEL, Report, convert
from converter.diffing import diff_images
from converter.exporting import export_image
from converter.htmlreport import check_report, write_report
from converter.imageindex import IndexReport, convert_several
from converter.images.transports import open_image
from converter.inspecting import inspect_image
from converter.keeping import check_whole_store, collect_store, forget_image, parse_duration
from converter.layers import merge_layers
from converter.platforms import ALL, Platform, parse_platform, parse_platforms
from converter.preflight import ask_mirrors
from converter.profileoptions import add_profile_actions, run_profile_action
from converter.progress import Progress, shown_progress
from converter.records.directory import Records
from converter.reference import ROOT_ALONE, Reference, parse_reference
from converter.settings import add_options as add_settings
from converter.settings import settings_of
from converter.spool import Spool
from converter.traceoptions import add_trace_options, trace_wish
from store.errors import BootfsError, NotFound, UsageError
from store.format.names import STORE_MARK, STORE_MARK_TEXT
from store.format.shownurl import shown
from store.format.sshurl import is_ssh_url, parse_ssh_url
from store.read.source import open_source
from store.write.backends import (
    is_in_registry,
    is_on_this_machine,
    mount_from,
    open_backend,
)
from store.write.collecting import GRACE_S
from store.write.hostsource import READ_LIMIT_S, open_host_source
from store.write.registry.endpoint import normalised_url

DEFAULT_STORE = "bootfs-store"
REGISTRY_STORE = "registry"
"""For ``--store``: the repository of DEST."""
LEFT_OUT = 3
DIFFERENT = 4
INTERRUPTED = 130

REFERENCES = """\
SOURCE and DEST are references: docker-daemon:NAME[:TAG] (or just NAME), docker-archive:FILE,
oci:DIRECTORY[:TAG], oci-archive:FILE[:TAG], docker://HOST/NAME[:TAG] (docker+http:// without TLS);
SOURCE also dir:DIRECTORY, the root file system itself or what skopeo copies to dir:, and
tar:FILE, the root file system in a tar.
"""
EXIT_STATUS = """\
Exit status: 0 done, 1 other failure, 2 usage, 3 done but for images that were left out,
4 differences found, 10 not found, 11 damaged bytes, 12 unknown or damaged format, 13 access
denied, 14 store, registry or engine failed, 15 the source cannot be converted, 130 interrupted.
"""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, as all others are."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the arguments, and end."""
        command = self.prog.removeprefix("bootfs").strip()
        what = f"{command}: {message}" if command else message
        self.exit(UsageError.exit_code, f"bootfs: {what}; see `{self.prog} --help`\n")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = Parser(
        prog="bootfs",
        description="Turn container images into ones that boot lazily on any engine.",
        epilog=EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"bootfs {RELEASE}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=text,
            description=text,
            epilog=REFERENCES + EXIT_STATUS,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def add_platform(command: argparse.ArgumentParser, whose: str) -> None:
        command.add_argument(
            "--platform", metavar="OS/ARCHITECTURE",
            help=f"which image {whose} where that is an index of several; default: this machine's",
        )  # fmt: skip

    command = add("convert", "convert an image: its data into a store, a boot image to DEST")
    command.add_argument("source", metavar="SOURCE")
    command.add_argument("destination", metavar="DEST")
    command.add_argument(
        "--store", metavar="URL", default=DEFAULT_STORE,
        help="store to write, a directory, ssh://[USER@]HOST/PATH, s3://BUCKET[/PREFIX] or "
        "docker://HOST/REPOSITORY; registry: the repository "
        f"of DEST (default: {DEFAULT_STORE})",
    )  # fmt: skip
    command.add_argument(
        "--mount-from", metavar="URL", action="append", default=[],
        help="with a registry's store: use the packs of this repository of the same registry too",
    )  # fmt: skip
    command.add_argument(
        "--mounted", action="store_true",
        help="refuse a store that is not on a mount: in a container it would go with it",
    )  # fmt: skip
    command.add_argument(
        "--blob-store", metavar="URL", default="",
        help="store that containers read when they are given no BLOB_STORE (default: a registry's "
        "store is, no other); mirrors: 'URL|URL'",
    )  # fmt: skip
    command.add_argument(
        "--with-ssh", action="store_true",
        help="have the boot image bring ssh, for a BLOB_STORE=ssh://…; so it has with such a "
        "--blob-store",
    )  # fmt: skip
    command.add_argument(
        "--level", metavar="N", type=int, default=DEFAULT_LEVEL,
        help="zstd level of chunks, 1 to 22; from 10 on code is filtered"
        f" (default: {DEFAULT_LEVEL})",
    )  # fmt: skip
    command.add_argument(
        "--force", action="store_true",
        help="convert although DEST is what would come of it, and the store has all of it",
    )  # fmt: skip
    command.add_argument(
        "--no-profile", action="store_true",
        help="leave out the first profile, which is told from the image's command",
    )  # fmt: skip
    command.add_argument(
        "--read-all", action="store_true",
        help="read every layer of SOURCE, also those of which a record is kept since an earlier "
        "conversion",
    )  # fmt: skip
    command.add_argument(
        "--report", metavar="FILE", help="write what is in the image as a page of HTML"
    )
    command.add_argument(
        "--platform", metavar="OS/ARCHITECTURE",
        help="which image of SOURCE where that is an index of several, several with commas, or "
        "all; default: this machine's",
    )  # fmt: skip
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    command.add_argument("--progress", choices=("bar", "json", "none"))
    add_settings(command)

    command = add("inspect", "show what a boot image was made of, what is in it, what it needs")
    command.add_argument("image", metavar="IMAGE")
    command.add_argument(
        "--store", metavar="URL", help="say what the image shares with others of this store"
    )
    command.add_argument(
        "--depth", metavar="N", type=parse_count, default=1,
        help="show directories down to N names below the root (default: 1)",
    )  # fmt: skip
    add_platform(command, "of IMAGE")
    command.add_argument("--json", action="store_true", help="print as JSON")

    command = add("diff", "show what changed from one boot image to another, and what it costs")
    command.add_argument("first", metavar="A")
    command.add_argument("second", metavar="B")
    command.add_argument(
        "--store", metavar="URL",
        help="compare the bytes of files whose chunks alone do not tell; "
        "a directory, http(s)://, s3://, ssh:// or docker://, mirrors 'URL|URL'",
    )  # fmt: skip
    command.add_argument("--json", action="store_true", help="print the result as JSON")

    command = add("export", "turn a boot image back into an ordinary image of one layer")
    command.add_argument("image", metavar="IMAGE")
    command.add_argument("destination", metavar="DEST")
    command.add_argument(
        "--store", metavar="URL", default=DEFAULT_STORE,
        help="store to read, a directory, http(s)://, s3://, ssh:// or docker://, "
        f"mirrors 'URL|URL' (default: {DEFAULT_STORE})",
    )  # fmt: skip
    command.add_argument(
        "--sparse", action="store_true",
        help="keep holes of files; Docker runs such an image, and cannot save or push it",
    )  # fmt: skip
    add_platform(command, "of IMAGE")
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    command.add_argument("--progress", choices=("bar", "json", "none"))

    command = add(
        "check",
        "compare a converted image with its source, every byte and all metadata; "
        "or verify a whole store",
    )
    command.usage = (
        "bootfs check [--store URL] [--platform OS/ARCHITECTURE] [--json] [--progress …] "
        "SOURCE DEST\n"
        "       bootfs check --store URL [--image IMAGE]… [--repair URL] [--json] [--progress …]\n"
        "       bootfs check --fetchable IMAGE [--store URL] [--auth DIRECTORY] [--json]"
    )
    command.add_argument("source", metavar="SOURCE", nargs="?")
    command.add_argument("destination", metavar="DEST", nargs="?")
    command.add_argument(
        "--store", metavar="URL",
        help="store to read, a directory, http(s)://, s3://, ssh:// or docker://, mirrors "
        "'URL|URL', or registry: the repository of DEST "
        f"(default: {DEFAULT_STORE}); without SOURCE and DEST the store to verify",
    )  # fmt: skip
    command.add_argument(
        "--image", metavar="IMAGE", action="append", default=[], dest="images",
        help="verify what this image needs of the store, and other --image; "
        "a boot image, or the digest of its chunk index, blake3:…",
    )  # fmt: skip
    command.add_argument(
        "--repair", metavar="URL",
        help="get what is damaged or missing from this store, of any kind: a directory, "
        "http(s)://, s3://, ssh:// or docker://",
    )  # fmt: skip
    command.add_argument(
        "--fetchable", metavar="IMAGE",
        help="ask each mirror of the image's store, or of --store, whether all that a boot image "
        "needs can be fetched, without fetching it",
    )  # fmt: skip
    command.add_argument(
        "--auth", metavar="DIRECTORY",
        help="with --fetchable: files with credentials, as a container has them in /.bootfs/auth "
        "(default: ask as this user)",
    )  # fmt: skip
    add_platform(command, "of SOURCE")
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    command.add_argument("--progress", choices=("bar", "json", "none"))

    command = add("status", "show how containers of boot images do")
    command.add_argument(
        "containers", metavar="CONTAINER", nargs="*", help="by name or id; also one that has ended"
    )
    command.add_argument(
        "--all", action="store_true", help="all containers of boot images that run"
    )
    command.add_argument(
        "--files", action="store_true",
        help="list the files that came over the network, and who read each first",
    )  # fmt: skip
    command.add_argument(
        "--follow", action="store_true", help="print a line each second, until they have ended"
    )
    command.add_argument(
        "--metrics", metavar="FILE.prom",
        help="write metrics for Prometheus, as the node exporter's textfile collector reads them",
    )  # fmt: skip
    command.add_argument("--json", action="store_true", help="print a line of JSON a container")

    command = add("report", "write a page of HTML about a container's start")
    command.add_argument("container", metavar="CONTAINER", help="by name or id")
    command.add_argument(
        "-o", "--output", metavar="FILE.html", required=True, help="the page to write"
    )

    command = add("forget", "remove an image from a store; bootfs collect frees its space")
    command.add_argument(
        "store",
        metavar="STORE",
        help="a directory, s3://BUCKET[/PREFIX] or docker://HOST/REPOSITORY",
    )
    command.add_argument(
        "image", metavar="IMAGE",
        help="a boot image, or the digest of its chunk index, blake3:…, from bootfs inspect: "
        "all boot images that have it",
    )  # fmt: skip

    command = add("profile", "keep what starts of a boot image read, for later ones to have it")
    add_profile_actions(command)

    command = add("trace", "run a boot image until it is ready, and keep what it read as a profile")
    add_trace_options(command)

    command = add("collect", "remove from a store what none of its images needs")
    command.add_argument(
        "store", metavar="STORE",
        help="a directory, s3://BUCKET[/PREFIX] or docker://HOST/REPOSITORY; "
        "without --delete also ssh://[USER@]HOST/PATH",
    )  # fmt: skip
    command.add_argument(
        "--delete", action="store_true", help="remove; without it, only say what would be removed"
    )
    command.add_argument(
        "--grace", metavar="DURATION", type=parse_duration, default=GRACE_S,
        help="leave what is younger, such as 90s, 30m, 36h or 7d (default: 24h)",
    )  # fmt: skip
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def parse_count(text: str) -> int:
    """Return a number from 0 on.

    Raises:
        ArgumentTypeError: it is none.

    """
    if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is no number; write 0, 1, 2, …")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    words: list[str] = []
    if given[:1] == ["trace"] and "--" in given:
        # argparse would take the arguments of the workload for its own.
        at = given.index("--")
        given, words = given[:at], given[at + 1 :]
    options = build_parser().parse_args(given)
    options.words = words
    with _ended_by_signals():
        return _run(options)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Have SIGTERM and SIGHUP end a command as Ctrl-C does: nothing of it is left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    kept = {number: signal.signal(number, interrupt) for number in (SIGTERM, SIGHUP)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _run(options: argparse.Namespace) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Paths may hold bytes that are no text in the user's locale.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        if options.command == "convert":
            return _convert(options)
        if options.command == "inspect":
            return inspect_image(
                options.image,
                _store_of(options.store, options.image),
                options.depth,
                _platform(options),
                as_json=options.json,
            )
        if options.command == "diff":
            is_different = diff_images(
                options.first,
                options.second,
                _store_of(options.store, options.second),
                as_json=options.json,
            )
            return DIFFERENT if is_different else 0
        if options.command == "export":
            return export_image(
                options.image,
                options.destination,
                _store_of(options.store, options.image) or DEFAULT_STORE,
                options.progress,
                _platform(options),
                sparse=options.sparse,
                as_json=options.json,
            )
        if options.command == "status":
            return _status(options)
        if options.command == "report":
            from converter.startreport import report_start

            return report_start(options.container, Path(options.output))
        if options.command == "forget":
            return forget_image(options.store, options.image)
        if options.command == "collect":
            return collect_store(
                options.store, options.grace, delete=options.delete, as_json=options.json
            )
        if options.command == "profile":
            return run_profile_action(options, _store_of(options.store, options.image))
        if options.command == "trace":
            from converter.tracing import trace_image

            return trace_image(trace_wish(options, _store_of(options.store, options.image)))
        return _check(options)
    except BootfsError as error:
        print(f"bootfs: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        # What reads alone has no store to reassure of.
        is_reading = options.command in ("status", "report")
        rest = "" if is_reading else "; the store stays valid"
        print(f"bootfs: interrupted{rest}", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        sys.stderr.close()
        return 1
    except OSError as error:
        # What nobody foresaw where it happened; it still names its path.
        where = f"{error.filename}: " if error.filename is not None else ""
        problem = error.strerror or str(error)
        print(f"bootfs: {where}{problem}; check the path and its disk", file=sys.stderr)
        return BootfsError.exit_code


def _convert(options: argparse.Namespace) -> int:
    if not 1 <= options.level <= 22:
        raise UsageError(f"--level {options.level}: zstd has the levels 1 to 22")
    source = parse_reference(options.source)
    destination = parse_reference(options.destination)
    settings = settings_of(options)
    if settings and source.transport not in ROOT_ALONE:
        raise UsageError(
            f"{source} has settings of its own, which are kept; "
            "--entrypoint, --cmd, --env, --user, --workdir are for a SOURCE dir: or tar:"
        )
    if options.report == "":
        raise UsageError("--report: its name is empty; name a file")
    platforms = () if options.platform is None else parse_platforms(options.platform)
    is_index = len(platforms) > 1 or ALL in platforms
    if options.report is not None:
        if is_index:
            raise UsageError(
                f"--report is of one image; choose it with --platform, not {options.platform}"
            )
        check_report(Path(options.report))
    if options.blob_store:
        # Refuse here what every boot of the image would refuse.
        _check_blob_store(options.blob_store)
    store = _named_store(options.store, destination)
    if options.mounted:
        _check_mounted(store)
    blob_store = options.blob_store or (store if is_in_registry(store) else "")
    with (
        closing(open_backend(store, _warn)) as backend,
        shown_progress(options.progress) as progress,
    ):
        for url in options.mount_from:
            mount_from(backend, url)
        urls = "|".join(map(normalised_url, blob_store.split("|")))
        records = Records.of_user(_reporter(progress))
        report: Report | IndexReport
        if is_index:
            report = convert_several(
                source, destination, backend, options.level, urls, progress, platforms,
                with_ssh=options.with_ssh, settings=settings, force=options.force,
                makes_profile=not options.no_profile,
                records=records, read_all=options.read_all,
            )  # fmt: skip
        else:
            report = convert(
                source, destination, backend, options.level, urls, progress,
                platforms[0] if platforms else None,
                with_ssh=options.with_ssh, settings=settings, force=options.force,
                makes_profile=not options.no_profile,
                records=records, read_all=options.read_all,
            )  # fmt: skip
            if options.report is not None:
                write_report(Path(options.report), report, destination, backend)
    if not options.blob_store and is_on_this_machine(store):
        print(
            f"bootfs: the image's store is {shown(store)}, where a container finds itself: give "
            "--blob-store, or BLOB_STORE to each container, with an address that it reaches",
            file=sys.stderr,
        )
    made = [report] if isinstance(report, Report) else [one for _, one in report.images]
    for one in made:
        if one.profile is not None and one.profile.problem:
            _warn(f"no profile was made, the image is whole: {one.profile.problem}")
    if isinstance(report, Report):
        print(json.dumps(report.as_json()) if options.json else summary(report))
        return 0
    for left_out in report.left_out:
        _warn(str(left_out))
    print(json.dumps(report.as_json()) if options.json else summary_of_several(report))
    return 0 if report.is_whole else LEFT_OUT


def _store_of(store: str | None, image: str) -> str | None:
    """Return the store that ``--store`` means for ``image``; None where none was given."""
    return None if store is None else _named_store(store, parse_reference(image))


def _named_store(store: str, destination: Reference) -> str:
    """Return the URL of the store that ``--store`` means.

    Raises:
        UsageError: the repository of a destination that is in none.

    """
    if store != REGISTRY_STORE:
        return store
    if not destination.is_registry:
        raise UsageError(
            f"--store {REGISTRY_STORE}: {destination} is in no registry; give DEST as "
            "docker://HOST/NAME:TAG, or the store as docker://HOST/REPOSITORY"
        )
    return destination.repository_url


def _platform(options: argparse.Namespace) -> Platform | None:
    return None if options.platform is None else parse_platform(options.platform)


def _check_mounted(store: str) -> None:
    """Return when ``store`` is, or would be, on another mount than the root, or elsewhere.

    Raises:
        UsageError: it is not.

    """
    if "://" in store and not store.startswith("file://"):
        return  # not on this machine
    path = os.path.realpath(store.removeprefix("file://"))
    while not os.path.ismount(path):
        path = os.path.dirname(path)
    if path == "/":
        raise UsageError(
            f"{shown(store)} is not on a mount, and would go with the container: "
            f"give docker run -v DIRECTORY:{shown(store)}"
        )


def _check_blob_store(urls: str) -> None:
    """Return when ``urls`` can be a container's store, or each of them one of its mirrors.

    Raises:
        UsageError: it cannot.

    """
    for url in urls.split("|"):
        if not url:
            raise UsageError(
                f"--blob-store {shown(urls)}: nothing stands beside a '|'; leave that out"
            )
        _check_one_store(url)


def _check_one_store(url: str) -> None:
    if url.startswith(("/", "file:///")):
        return
    if "://" not in url:
        raise UsageError(f"--blob-store {shown(url)}: give a URL or an absolute directory")
    if is_ssh_url(url):
        parse_ssh_url(url)  # this machine needs no ssh for it
        return
    open_source(url, READ_LIMIT_S).close()


def summary(report: Report) -> str:
    """Return the last line of a conversion."""
    if report.unchanged:
        return (
            f"{report.boot_image.reference}: made of the same source by the same release and "
            "options, and whole in the store: nothing to do; --force converts again"
        )
    layers = len(report.source_layer_bytes)
    known = f"{report.unread_layers} of {layers} layers known; " if report.unread_layers else ""
    own = report.boot_image.own_layer_bytes / 1e6
    shared = report.boot_image.runtime_layer_bytes / 1e6
    return (
        f"{report.boot_image.reference}: {report.chunks} chunks, {report.new_chunks} new, "
        f"{report.new_stored_bytes / 1e6:.1f} MB stored; "
        f"boot image {own:.2f} MB + {shared:.1f} MB shared; {known}{report.seconds:.1f} s"
    )


def summary_of_several(report: IndexReport) -> str:
    """Return the last lines of a conversion of several images."""
    if len(report.images) == 1:
        return summary(report.images[0][1])
    lines = [f"{platform}: {summary(each)}" for platform, each in report.images]
    return "\n".join([*lines, f"{report.reference}: {len(lines)} platforms, {report.digest}"])


def _warn(message: str) -> None:
    print(f"bootfs: {message}", file=sys.stderr)


def _reporter(progress: Progress) -> Callable[[str], None]:
    """Return what prints a line beside what shows progress."""

    def report(message: str) -> None:
        progress.make_room()
        print(f"bootfs: {message}", file=sys.stderr)

    return report


def _check(options: argparse.Namespace) -> int:
    if options.fetchable is not None:
        others = (options.source, options.repair, options.platform, options.progress)
        if options.images or any(other is not None for other in others):
            raise UsageError("check: --fetchable IMAGE goes with --store, --auth and --json alone")
        return _check_fetchable(options)
    if options.auth is not None:
        raise UsageError("check: --auth goes with --fetchable; without it this user's are taken")
    if options.source is None:
        if options.store is None:
            raise UsageError("check: give SOURCE and DEST, or --store URL for a whole store")
        if options.platform is not None:
            raise UsageError("check: --platform is of SOURCE; leave it out for a whole store")
        problems = check_whole_store(
            options.store, options.images, options.repair, options.progress, as_json=options.json
        )
        return DIFFERENT if problems else 0
    if options.destination is None:
        raise UsageError("check: DEST is missing; with neither SOURCE nor DEST a store is checked")
    if options.repair is not None or options.images:
        raise UsageError(
            "check: --repair and --image are for a whole store; leave SOURCE and DEST out"
        )
    return _compare(options)


def _status(options: argparse.Namespace) -> int:
    if bool(options.containers) == options.all:
        raise UsageError("status: give CONTAINER, or --all for all that run")
    from converter.showing import show_status, write_metrics

    if options.metrics is not None:
        if options.files or options.follow or options.json:
            raise UsageError("status: --metrics goes with CONTAINER or --all alone")
        return write_metrics(Path(options.metrics), options.containers)
    if options.files and options.follow:
        raise UsageError("status: --files and --follow do not go together; give one of them")
    try:
        return show_status(
            options.containers,
            has_files=options.files,
            follows=options.follow,
            as_json=options.json,
        )
    except KeyboardInterrupt:
        if not options.follow:
            raise
        # The ordinary way to end it.
        return 0


def _check_fetchable(options: argparse.Namespace) -> int:
    """Print what each mirror answers; return 0, or the exit code of the first problem.

    Raises:
        NotFound: there is no such image, or no directory of credentials.
        UsageError: the store cannot be one.

    """
    if options.auth is not None and not os.path.isdir(options.auth):
        raise NotFound(f"--auth {options.auth}: there is no such directory; check the path")
    image = parse_reference(options.fetchable)
    with Spool() as spool:
        views = [view for _, view in iter_boot_images(image, spool)]
    answers = []
    for view in views:
        if len(views) > 1 and not options.json:
            print(f"{view.image_config.get('os')}/{view.image_config.get('architecture')}:")
        named = view.config.blob_store if options.store is None else os.fsencode(options.store)
        urls = _named_store(os.fsdecode(named), image)
        for answer in ask_mirrors(
            view.config.chunk_index, view.index, urls, READ_LIMIT_S, options.auth or ""
        ):
            answers.append(answer)
            if not options.json:
                print(answer)
    if options.json:
        print(json.dumps([answer.as_json() for answer in answers]))
    codes = [problem.error.exit_code for answer in answers for problem in answer.problems]
    return codes[0] if codes else 0


def _compare(options: argparse.Namespace) -> int:
    destination = parse_reference(options.destination)
    store = DEFAULT_STORE if options.store is None else _named_store(options.store, destination)
    with (
        shown_progress(options.progress) as progress,
        closing(open_host_source(store, READ_LIMIT_S, _reporter(progress))) as source,
        Spool(advance=progress.advance) as spool,
    ):
        progress.step("open")
        platform = _platform(options)
        (view,) = open_boot_images((options.destination,), spool, platform)
        original = open_image(parse_reference(options.source), spool, platform)
        if not any(map(is_in_registry, store.split("|"))):
            # Or else everything would be missing, which is no difference of the image.
            source.fetch(STORE_MARK, 0, len(STORE_MARK_TEXT))
        progress.step("read", sum(layer.size for layer in original.layers))
        tree = merge_layers(original.layers, spool, advance=progress.advance)
        report = _reporter(progress)
        logged: list[str] = []
        with closing(view.open_reader(source, logged.append)) as reader:
            comparison = Comparison(tree, view.open_tree(reader), reader, progress)
            progress.step("compare", view.index.data_size)
            found = []
            for difference in comparison.iter_differences():
                found.append(difference)
                # Only with a difference: what ends the command is said by that.
                while logged:
                    report(logged.pop(0))
                if not options.json:
                    progress.make_room()
                    print(difference)
        progress.end()
    if options.json:
        shown = [{"path": d.path, "what": d.what} for d in found]
        print(json.dumps({"entries": comparison.entries, "differences": shown}))
    else:
        print(f"{comparison.entries} entries compared, {len(found)} differences")
    return DIFFERENT if found else 0


if __name__ == "__main__":
    sys.exit(main())
