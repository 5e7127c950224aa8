"""The command line: what is asked for, and what is said about it."""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import closing

from converter import RELEASE
from converter.bootview import BootView, read_boot_image
from converter.check import Comparison
from converter.convert import DEFAULT_LEVEL, Report, convert
from converter.images.transports import open_image
from converter.keeping import check_whole_store, collect_store, forget_image, parse_duration
from converter.layers import merge_layers
from converter.progress import Progress, shown_progress
from converter.reference import parse_reference
from converter.spool import Spool
from store.errors import BootfsError, UsageError
from store.read.source import open_source
from store.write.backends import open_backend
from store.write.collecting import GRACE_S
from store.write.hostsource import open_host_source

DEFAULT_STORE = "bootfs-store"
READ_LIMIT_S = 60.0
DIFFERENT = 4
INTERRUPTED = 130

REFERENCES = """\
SOURCE and DEST are references: docker-daemon:NAME[:TAG] (or just NAME), docker-archive:FILE,
oci:DIRECTORY[:TAG], oci-archive:FILE[:TAG].
"""
EXIT_STATUS = """\
Exit status: 0 done, 1 other failure, 2 usage, 4 differences found, 10 not found, 11 damaged
bytes, 12 unknown or damaged format, 13 access denied, 14 store, registry or engine failed,
15 the source cannot be converted, 130 interrupted.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
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

    command = add("convert", "convert an image: its data into a store, a boot image to DEST")
    command.add_argument("source", metavar="SOURCE")
    command.add_argument("destination", metavar="DEST")
    command.add_argument(
        "--store", metavar="URL", default=DEFAULT_STORE,
        help=f"store to write, a directory or s3:// (default: {DEFAULT_STORE})",
    )  # fmt: skip
    command.add_argument(
        "--mounted", action="store_true",
        help="refuse a store that is not on a mount: in a container it would go with it",
    )  # fmt: skip
    command.add_argument(
        "--blob-store", metavar="URL", default="",
        help="store that containers read when they are given no BLOB_STORE; mirrors: 'URL|URL'",
    )  # fmt: skip
    command.add_argument(
        "--level", metavar="N", type=int, default=DEFAULT_LEVEL,
        help=f"zstd level of chunks, 1 to 22 (default: {DEFAULT_LEVEL})",
    )  # fmt: skip
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    command.add_argument("--progress", choices=("bar", "json", "none"))

    command = add("inspect", "show what a boot image was made of and what it needs")
    command.add_argument("image", metavar="IMAGE")
    command.add_argument("--json", action="store_true", help="print as JSON")

    command = add(
        "check",
        "compare a converted image with its source, every byte and all metadata; "
        "or verify a whole store",
    )
    command.usage = (
        "bootfs check [--store URL] [--json] [--progress …] SOURCE DEST\n"
        "       bootfs check --store DIRECTORY [--repair URL] [--json] [--progress …]"
    )
    command.add_argument("source", metavar="SOURCE", nargs="?")
    command.add_argument("destination", metavar="DEST", nargs="?")
    command.add_argument(
        "--store", metavar="URL",
        help="store to read, a directory, http(s):// or s3://, mirrors 'URL|URL' "
        f"(default: {DEFAULT_STORE}); without SOURCE and DEST the store to verify, a directory or s3://",
    )  # fmt: skip
    command.add_argument(
        "--repair", metavar="URL",
        help="get what is damaged or missing from this store, a directory, http(s):// or s3://",
    )  # fmt: skip
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    command.add_argument("--progress", choices=("bar", "json", "none"))

    command = add("forget", "remove an image from a store; bootfs collect frees its space")
    command.add_argument("store", metavar="STORE", help="a directory")
    command.add_argument(
        "image", metavar="IMAGE",
        help="a boot image, or the digest of its chunk index, blake3:…, from bootfs inspect",
    )  # fmt: skip

    command = add("collect", "remove from a store what none of its images needs")
    command.add_argument("store", metavar="STORE", help="a directory")
    command.add_argument(
        "--delete", action="store_true", help="remove; without it, only say what would be removed"
    )
    command.add_argument(
        "--grace", metavar="DURATION", type=parse_duration, default=GRACE_S,
        help="leave what is younger, such as 90s, 30m, 36h or 7d (default: 24h)",
    )  # fmt: skip
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = build_parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Paths may hold bytes that are no text in the user's locale.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        if options.command == "convert":
            return _convert(options)
        if options.command == "inspect":
            return _inspect(options)
        if options.command == "forget":
            return forget_image(options.store, options.image)
        if options.command == "collect":
            return collect_store(
                options.store, options.grace, delete=options.delete, as_json=options.json
            )
        return _check(options)
    except BootfsError as error:
        print(f"bootfs: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("bootfs: interrupted; the store stays valid", file=sys.stderr)
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
    if options.blob_store:
        # Refuse here what every boot of the image would refuse.
        _check_blob_store(options.blob_store)
    with (
        closing(open_backend(options.store)) as backend,
        shown_progress(options.progress) as progress,
    ):
        if options.mounted:
            _check_mounted(options.store)
        report = convert(
            parse_reference(options.source),
            parse_reference(options.destination),
            backend,
            options.level,
            options.blob_store,
            progress,
        )
    print(json.dumps(report.as_json()) if options.json else summary(report))
    return 0


def _check_mounted(store: str) -> None:
    """Return when directory ``store`` is, or would be, on another mount than the root.

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
            f"{store} is not on a mount, and would go with the container: "
            f"give docker run -v DIRECTORY:{store}"
        )


def _check_blob_store(urls: str) -> None:
    """Return when ``urls`` can be a container's store, or each of them one of its mirrors.

    Raises:
        UsageError: it cannot.

    """
    for url in urls.split("|"):
        if not url:
            raise UsageError(f"--blob-store {urls}: nothing stands beside a '|'; leave that out")
        _check_one_store(url)


def _check_one_store(url: str) -> None:
    if url.startswith(("/", "file:///")):
        return
    if "://" not in url:
        raise UsageError(f"--blob-store {url}: give a URL or an absolute directory")
    open_source(url, READ_LIMIT_S).close()


def summary(report: Report) -> str:
    """Return the last line of a conversion."""
    own = report.boot_image.own_layer_bytes / 1e6
    shared = report.boot_image.runtime_layer_bytes / 1e6
    return (
        f"{report.boot_image.reference}: {report.chunks} chunks, {report.new_chunks} new, "
        f"{report.new_stored_bytes / 1e6:.1f} MB stored; "
        f"boot image {own:.2f} MB + {shared:.1f} MB shared; {report.seconds:.1f} s"
    )


def _inspect(options: argparse.Namespace) -> int:
    with Spool() as spool:
        view = read_boot_image(open_image(parse_reference(options.image), spool), spool)
    facts = describe(view)
    if options.json:
        print(json.dumps(facts))
        return 0
    width = max(map(len, facts))
    for name, value in facts.items():
        shown = json.dumps(value) if isinstance(value, list | dict) else value
        print(f"{name.replace('_', ' '):<{width}}  {shown}")
    return 0


def describe(view: BootView) -> dict[str, object]:
    """Return what ``bootfs inspect`` shows of a boot image; sizes are bytes."""
    index = view.index
    labels = view.labels
    return {
        "reference": view.name,
        "release": view.config.release.decode("utf-8", "replace"),
        "source": labels.get("source.reference", ""),
        "source_digest": labels.get("source.digest", ""),
        "source_layers": view.noted("source.layers") or [],
        "source_history": view.noted("source.history") or [],
        "entrypoint": [a.decode("utf-8", "replace") for a in view.config.entrypoint],
        "blob_store": view.config.blob_store.decode("utf-8", "replace"),
        "volumes": [v.decode("utf-8", "replace") for v in view.config.volumes],
        "chunk_index": f"blake3:{view.config.chunk_index.hex()}",
        "chunks": index.chunk_count,
        "packs": len(index.pack_digests),
        "plain_bytes": index.data_size,
        "stored_bytes": sum(index.stored_sizes),
        "bootstrap_bytes": index.bootstrap_size,
        "own_layer_plain_bytes": view.own_layer_size,
        "runtime_layer_plain_bytes": view.runtime_layer_size,
    }


def _reporter(progress: Progress) -> Callable[[str], None]:
    """Return what prints a line beside what shows progress."""

    def report(message: str) -> None:
        progress.make_room()
        print(f"bootfs: {message}", file=sys.stderr)

    return report


def _check(options: argparse.Namespace) -> int:
    if options.source is None:
        if options.store is None:
            raise UsageError("check: give SOURCE and DEST, or --store DIRECTORY for a whole store")
        problems = check_whole_store(
            options.store, options.repair, options.progress, as_json=options.json
        )
        return DIFFERENT if problems else 0
    if options.destination is None:
        raise UsageError("check: DEST is missing; with neither SOURCE nor DEST a store is checked")
    if options.repair is not None:
        raise UsageError("check: --repair is for a whole store; leave SOURCE and DEST out")
    return _compare(options)


def _compare(options: argparse.Namespace) -> int:
    store = DEFAULT_STORE if options.store is None else options.store
    with (
        shown_progress(options.progress) as progress,
        closing(open_host_source(store, READ_LIMIT_S, _reporter(progress))) as source,
        Spool(advance=progress.advance) as spool,
    ):
        progress.step("open")
        original = open_image(parse_reference(options.source), spool)
        boot_image = open_image(parse_reference(options.destination), spool)
        progress.step("read", sum(layer.size for layer in original.layers))
        tree = merge_layers(original.layers, spool, advance=progress.advance)
        view = read_boot_image(boot_image, spool)
        with closing(view.open_reader(source, _reporter(progress))) as reader:
            comparison = Comparison(tree, view.open_tree(reader), reader, progress)
            progress.step("compare", view.index.data_size)
            found = []
            for difference in comparison.iter_differences():
                found.append(difference)
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
