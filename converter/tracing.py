"""``bootfs trace``: run a boot image until it is ready, and keep what it read as a profile."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from contextlib import closing, suppress
from typing import Any

from zstandard import ZstdCompressor

from converter.conditions import parse_condition
from converter.images.daemon import read_image_id
from converter.images.running import Recorded, Run, record_run
from converter.pagenames import METADATA, touched_files
from converter.profileplace import Opened, open_profiled, writable_store
from converter.profileviews import describe, printable
from converter.profiling import profiles_of
from converter.progress import Progress, shown_progress
from converter.reference import DOCKER_DAEMON, parse_reference
from converter.runoptions import RunOptions, parse_run_options
from converter.traceoptions import TraceWish
from store.errors import AccessDenied, RemoteError, UsageError
from store.format.names import hot_pack_name
from store.format.profile import ORIGINS, Profile
from store.format.shownurl import shown
from store.interfaces import Backend
from store.write.backends import open_backend
from store.write.profilebuild import check_name
from store.write.profilestore import (
    add_profile,
    check_has_image,
    has_damage,
    read_profiles,
)
from store.write.roots import check_is_store

TRACE = ORIGINS.index("trace")
RUNS_LIMIT = 100
STORE = "/.bootfs/store"
"""Where a run finds a store that is a directory of this machine; the workload does not."""
_SPARE_S = 60.0
"""The recording lasts so much longer than the run may: a slow boot is no reason to cut it."""


def trace_image(wish: TraceWish) -> int:
    """Run a boot image, record what it reads, and add the profile to the store; return 0.

    Nothing is added unless all runs were ready, and nothing is left of their containers.

    Raises:
        UsageError: the command line asks for the impossible; the image is not the engine's.
        NotFound: there is no such image or store, or a run recorded nothing.
        TimedOut, BootfsError: the workload was not ready in time, ended before, or failed.
        AccessDenied, StorageFull, RemoteError: store or engine refuse; the store before any run.
        IntegrityError: what the store has is damaged.

    """
    reference = parse_reference(wish.image)
    if reference.transport != DOCKER_DAEMON:
        raise UsageError(
            f"{reference}: the local engine runs only what it has; docker pull or docker load it, "
            "and give its NAME:TAG"
        )
    if not 1 <= wish.runs <= RUNS_LIMIT:
        raise UsageError(f"--runs {wish.runs}: give 1 to {RUNS_LIMIT}")
    if not 0 < wish.timeout_s <= 86400:
        raise UsageError(f"--timeout {wish.timeout_s:g}: give seconds, more than 0")
    if wish.name is not None:
        check_name(wish.name)
    until = parse_condition(wish.until)
    options = parse_run_options(wish.docker_options)
    # By id from here on, so that all is of one image if the tag moves meanwhile.
    image_id = read_image_id(reference)
    opened = open_profiled(reference, wish.store, wish.platform)
    url = writable_store(opened.store)
    _add_settings(options, opened, url, wish.timeout_s + until.seconds)
    run = Run(
        image_id=image_id,
        image=opened.image,
        command=list(wish.command),
        options=options,
        until=until,
        timeout_s=wish.timeout_s,
        allows_failure=wish.allows_failure,
    )
    with closing(open_backend(url)) as backend, shown_progress(wish.progress) as progress:
        progress.step("store")
        check_uploads(backend, opened.image)
        mends = wish.replaces and has_damage(backend, opened.image)
        known = [] if mends else read_profiles(backend, opened.image)
        runs = _record(run, wish.runs, progress)
        traces = [trace for one in runs for trace in one.traces]
        profiles = profiles_of(opened.view.index, traces, wish.name, known, TRACE)
        done = [_add(backend, opened, one, progress, replaces=wish.replaces) for one in profiles]
        progress.end()
    _show(opened, done, runs, as_json=wish.as_json)
    return 0


def _add_settings(options: RunOptions, opened: Opened, url: str, record_s: float) -> None:
    """Add to a container's options what has it record, and the store that it reads.

    That is the user's ``-e BLOB_STORE``, else the one that the image names, else ``url``.
    """
    settings = options.environment
    if "BLOB_STORE" not in settings and not opened.view.config.blob_store:
        path = url.removeprefix("file://")
        if "://" in path:
            settings["BLOB_STORE"] = url
        else:
            settings["BLOB_STORE"] = STORE
            binds = options.host.get("binds", [])
            options.host["binds"] = [*binds, f"{os.path.abspath(path)}:{STORE}:ro"]
    settings["BOOTFS_MODE"] = "erofs"
    settings["BOOTFS_PROFILE"] = "off"
    # It is taken from there; sent to the store, it would be merged twice.
    settings["BOOTFS_RECORD_TO"] = "cache"
    # Not 1, which means a minute.
    settings["BOOTFS_RECORD"] = f"{max(record_s + _SPARE_S, 2.0):g}"


def check_uploads(backend: Backend, image: bytes) -> None:
    """Return when the store has the image, and takes a hot pack: an empty one, removed again.

    Raises:
        NotFound: there is no store, or it does not have the image.
        AccessDenied, StorageFull, RemoteError: it refuses.

    """
    check_is_store(backend)
    check_has_image(backend, image)
    empty = ZstdCompressor(write_checksum=False).compress(b"")
    name = hot_pack_name(hashlib.sha256(empty).digest())
    backend.write(name, iter((empty,)))
    with suppress(AccessDenied, RemoteError):  # nothing names it: it is collected then
        backend.remove([name])


def _record(run: Run, count: int, progress: Progress) -> list[Recorded]:
    runs: list[Recorded] = []

    def report(message: str) -> None:
        progress.make_room()
        print(f"bootfs: {message}", file=sys.stderr)

    for number in range(1, count + 1):
        progress.step("run" if count == 1 else f"run {number} of {count}")
        runs.append(record_run(run, report))
        for line in runs[-1].warnings:
            report(line.removeprefix("bootfs: "))
    return runs


def _add(
    backend: Backend, opened: Opened, profile: Profile, progress: Progress, *, replaces: bool
) -> Profile:
    index = opened.view.index
    size = sum(index.plain_sizes[chunk] for chunk in profile.chunks)
    progress.step(f"hot pack of {profile.name}", size)
    return add_profile(
        backend, opened.image, index, profile, replaces=replaces, advance=progress.advance
    )


def _show(opened: Opened, done: list[Profile], runs: list[Recorded], *, as_json: bool) -> None:
    facts = [_facts(opened, one, runs) for one in done]
    if as_json:
        print(json.dumps(facts))
        return
    for fact in facts:
        ready = " ".join(f"{seconds:.2f}" for seconds in fact["ready_s"])
        print(
            f"{printable(fact['name'])}: ready after {ready} s; {fact['files']:,} files, "
            f"{fact['read'] / 1e6:.1f} MB read, {fact['chunks']:,} chunks of "
            f"{fact['plain'] / 1e6:.1f} MB, {fact['stored'] / 1e6:.1f} MB in packs; "
            f"hot pack of {fact['hot_pack'] / 1e6:.1f} MB"
        )


def _facts(opened: Opened, profile: Profile, runs: list[Recorded]) -> dict[str, Any]:
    """Return what `describe` does, and what was read and when; bytes and seconds."""
    files = touched_files(opened.view, profile.reads)
    return describe(profile, opened.view.index) | {
        "files": sum(file.path != METADATA for file in files),
        "read": sum(file.read for file in files if file.path != METADATA),
        "ready_s": [round(one.ready_s, 3) for one in runs],
        "store": shown(opened.store),
    }
