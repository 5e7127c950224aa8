"""Modes ``lease`` and ``eager``: no capability, no device, no mount.

The tree is made in the container's own root, which Docker gives to every container.
In mode ``lease`` a file's contents come when somebody opens it (boot/lease/leases.py);
in mode ``eager`` all of them come before the workload starts.

The workload is a child of PID 1 in the container's one PID namespace.  PID 1 goes to a
root of its own, `HOME`, since it must never open a file that it is itself to fill: to look
up the store's address the C library opens files of /etc.
"""

from __future__ import annotations

import fcntl
import gc
import os
import sys
from _signal import SIGCONT, SIGHUP, sigtimedwait
from _thread import start_new_thread
from termios import TIOCNOTTY, TIOCSCTTY

from boot.config import AUTH, AUTHORITIES, HOME, NO_PROFILE, Settings
from boot.failure import report
from boot.image import open_bootstrap, open_index
from boot.lease import eager, leased
from boot.lease.copied import Copied
from boot.lease.filler import AHEAD_SHARE, File, Filler
from boot.lease.freezer import Freezer
from boot.lease.journal import PATH as JOURNAL
from boot.lease.journal import Journal
from boot.lease.keeper import Keeper
from boot.lease.leases import SIGNAL, Signals, break_time_s
from boot.lease.skeleton import iter_directories
from boot.lease.volumes import fill_new_volumes
from boot.log import log
from boot.memorylimit import memory_limit
from boot.mounts import Mount
from boot.placeholder import BUILT
from boot.root import container_name, is_kept
from boot.spawn import detach_stdio
from boot.status import Status
from boot.supervise import ALL_SIGNALS, forward, open_processes, supervise
from boot.syscalls import PR_SET_CHILD_SUBREAPER, PR_SET_DUMPABLE, keep_freed_memory, prctl
from boot.workload import Identity, take_identity
from store.errors import BootError
from store.format.erofs import Image
from store.format.status import ENDED, HANDED, ROOTED, SERVED
from store.read.cache import Cache, CacheUnusable
from store.read.children import PIDS
from store.read.counts import Counts
from store.read.fetch import ChunkReader
from store.read.image import ImageReader
from store.read.source import lookups, open_source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from boot.lease.aside import AsideFile
    from boot.recording import Recording
    from store.format.chunkindex import ChunkIndex
    from store.interfaces import Streaming
    from store.read.hotpack import HotPack

KEPT_MEMORY = 4 << 20
"""Freed bytes that stay with the process."""
CHUNK_MEMORY = 24 << 20
"""Chunks that were fetched and are not written yet; nothing else keeps them."""
CHUNK_MEMORY_SHARE = 16
"""Of the container's memory limit, they get one part in so many at most."""
SWITCH_INTERVAL_S = 0.0005
"""Python's 5 ms would keep who waits for a file behind a thread that fills another."""


def boot(
    settings: Settings,
    command: list[bytes],
    environment: dict[bytes, bytes],
    directory: bytes,
    identity: Identity,
    mounts: list[Mount],
    status: Status,
) -> int:
    """Boot the workload; return the exit code.  The caller is root by every id.

    Raises:
        BootfsError: there is no workload; the message says why.

    """
    # The workload's process, which has none of the files that are opened below: as long as
    # it had them, closing them here would let nobody in.
    waits, tells = os.pipe()
    executes, executing = os.pipe()
    _leave_terminal()
    workload = os.fork()
    if workload == 0:
        try:
            os.close(tells)
            if os.read(waits, 1) != b"1":
                os._exit(BootError.exit_code)  # PID 1 says why
            os.close(waits)
            _take_terminal()
            # Its orphans are its own, as they are under plain Docker, where it is PID 1.
            prctl(PR_SET_CHILD_SUBREAPER, 1)
            os.chdir(directory)
            take_identity(command, environment, identity)
        except Exception as error:
            os._exit(report(error))
    os.close(waits)
    # The workload has the other end until it executes its program, or ends.
    os.close(executing)
    os.set_blocking(executes, False)

    def has_begun() -> bool:
        try:
            return os.read(executes, 1) == b""
        except BlockingIOError:
            return False

    prctl(PR_SET_DUMPABLE, 0)
    detach_stdio()

    # The image's bytes.
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    keep_freed_memory(KEPT_MEMORY)
    index = open_index(settings.chunk_index)
    source = open_source(settings.blob_store, settings.fill_limit_s, AUTHORITIES, log, AUTH)
    start_new_thread(source.dial, ())
    memory = min(CHUNK_MEMORY, memory_limit() // CHUNK_MEMORY_SHARE)
    cache = _shared_cache(settings, index, mounts)
    counts = Counts(status.memory)
    # Those who wait for a fetch here fill files, for somebody or ahead.
    counts.are_fetches_waits = False
    counts.counters.chunks = index.chunk_count
    counts.counters.data_bytes = index.data_size
    chunks = ChunkReader(index, source, cache, log, memory, settings.fill_limit_s, counts)
    bootstrap = open_bootstrap(index)
    reader = ImageReader(bootstrap, chunks)
    hot = None
    if settings.mode != "eager" and settings.profile != NO_PROFILE and not settings.record_s:
        hot = _begin_hot_pack(settings, chunks, source, cache, command)
    image = Image(bootstrap.read_all())
    status.step(SERVED)

    # The tree.
    hidden = {m.target.strip(b"/") for m in mounts} - {b""} | {HOME.strip("/").encode()}
    os.umask(0)
    copied = Copied(hidden)
    journal = Journal(settings.chunk_index, container_name(mounts), image.inode_count + 1)
    aside = _open_aside(chunks) if hot is not None and cache is None else None
    try:
        if not journal.is_built:
            fill_new_volumes(image, reader, mounts)
        allow_lookups = _forbid_lookups(chunks)
        files = _make_tree(settings, image, reader, hidden, journal, allow_lookups, copied)
    except eager.Interrupted as interrupted:
        return 128 + interrupted.number
    recording = profiled = None
    if settings.record_s:
        recording = _begin_recording(
            *(settings, index, cache, command, mounts),
            is_first=bool(files) and not journal.is_built,
            is_again=journal.is_built,
        )
    if hot is not None:
        from boot.lease.profiled import Profiled

        profiled = Profiled(reader, hot, aside, memory // AHEAD_SHARE)
        if not files:
            profiled.close()
    journal.set_built()
    os.makedirs(directory, 0o755, exist_ok=True)
    os.close(os.open(BUILT, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o444))
    status.step(ROOTED)

    # Who fills it, and who keeps it closed until then.
    pids = PIDS
    processes = open_processes()
    freezer = Freezer(processes, pids)
    limit_s = break_time_s()
    keeper = Keeper(pids, workload, processes, limit_s)
    # By this name: it is another one where this process goes next.
    mode = "lease" if files else "eager"
    status.watch(mode, settings.chunk_index, container_name(mounts))
    _enter_home()
    allow_lookups()

    failures: list[int] = []

    def fail(error: BaseException) -> None:
        # First, since the workload's end is the container's, and this is why it ends.
        failures.append(report(error) if isinstance(error, Exception) else BootError.exit_code)
        # Nobody may live to read what is not there.
        freezer.kill()
        status.write(has_ended=True)
        os._exit(failures[0])

    signals = ALL_SIGNALS
    filler = Filler(reader, journal, files, freezer, limit_s, fail, profiled, recording,
        finds_gates=settings.finds_gates,
    )  # fmt: skip
    if files:
        signals -= {SIGNAL}
        start_new_thread(_listen, (filler, workload, processes, has_begun, fail))
        filler.start()
    counts.counters.to_fill = sum(file.size for file in files)
    status.step(HANDED)
    os.write(tells, b"1")
    os.close(tells)

    def lost() -> bool:
        filler.want_all_lost()
        return not files

    code = supervise(workload, keeper, lost, processes, signals, has_begun, status.answer)
    freezer.kill()
    status.step(ENDED)
    if recording is not None:
        recording.end(exits=False)
        recording.wait_until_sent()
    status.write(has_ended=True)
    return failures[0] if failures else code


def _make_tree(
    settings: Settings,
    image: Image,
    reader: ImageReader,
    hidden: set[bytes],
    journal: Journal,
    allow_lookups: Callable[[], None],
    copied: Copied,
) -> list[File]:
    """Make the tree, or find it again; return the files that wait, with leases."""
    directories = list(iter_directories(image, image.root_nid, hidden))
    if settings.mode != "eager":
        try:
            return leased.make_tree(image, reader, directories, journal, settings.gates, copied)
        except leased.NoLeases as error:
            log(f"mode eager: {error}")
    allow_lookups()
    # It takes as long as the image's bytes take.
    gc.freeze()
    gc.enable()
    eager.make_tree(image, reader, directories, journal, copied=copied)
    return []


def _begin_hot_pack(
    settings: Settings,
    chunks: ChunkReader,
    source: Streaming,
    cache: Cache | None,
    command: list[bytes],
) -> HotPack | None:
    """Have the image's hot pack fetched, where this is the container's first start."""
    if os.path.lexists(JOURNAL) or (cache is not None and cache.present_count):
        return None
    # Here, since other starts need none.
    from store.read.hotpack import HotPack

    wanted = (settings.profile, command)
    limit = chunks.memory_limit // AHEAD_SHARE
    hot = HotPack(chunks, source, cache, settings.chunk_index, wanted, log, limit)
    chunks.expect_decision(hot)
    hot.start()
    return hot


def _open_aside(chunks: ChunkReader) -> AsideFile | None:
    """Have what is brought kept until its files are filled, where there is no cache for it."""
    from boot.lease.aside import AsideFile

    try:
        chunks.aside = aside = AsideFile(HOME, log)
    except OSError as error:
        log(f"what comes ahead is kept in memory, and in part fetched again: {error.strerror}")
        return None
    return aside


def _begin_recording(
    settings: Settings,
    index: ChunkIndex,
    cache: Cache | None,
    command: list[bytes],
    mounts: list[Mount],
    *,
    is_first: bool,
    is_again: bool,
) -> Recording | None:
    """Begin a trace of the files that are opened, in the cache volume, whoever else has that."""
    from boot.recording import begin_recording

    if not is_first:
        why = (
            "mode lease does in a container's first start alone"
            if is_again
            else "mode eager does not"
        )
        log(f"nothing is recorded: {why}; BOOTFS_MODE=erofs does")
        return None
    kept = cache
    try:
        if kept is None:
            kept = Cache(settings.cache, settings.chunk_index.hex(), index.plain_sizes, log)
        return begin_recording(kept.path, settings, command, mounts)
    except CacheUnusable as error:
        log(f"nothing is recorded: {error}")
    except OSError as error:
        log(f"nothing is recorded: {error.strerror}")
    finally:
        if cache is None and kept is not None:
            kept.close()
    return None


def _forbid_lookups(chunks: ChunkReader) -> Callable[[], None]:
    """Have nobody look up a name in the tree that is made; return what allows it again.

    The C library would open files of its /etc, and keep everybody waiting who looks up
    another, until one of those was filled.  Who waits for a fetch allows it, too.
    """
    held = {0: lookups}
    lookups.acquire()

    def allow() -> None:
        lock = held.pop(0, None)
        if lock is not None:
            lock.release()

    chunks.begin_wait = allow
    return allow


def _listen(
    filler: Filler,
    workload: int,
    processes: int,
    has_begun: Callable[[], bool],
    fail: Callable[[BaseException], None],
) -> None:
    """Have wanted files filled, for ever: a thread."""
    try:
        for fd in Signals().iter_wanted():
            if fd is None:
                forward(workload, SIGNAL, processes, has_begun)
            else:
                filler.want(fd)
    except BaseException as error:
        fail(error)


def _shared_cache(settings: Settings, index: ChunkIndex, mounts: list[Mount]) -> Cache | None:
    """Return the cache if containers share it; to keep chunks for one alone is work for nothing."""
    try:
        if is_kept(settings.cache, mounts):
            name = settings.chunk_index.hex()
            # Asked for now: there is no /proc where this process goes when the tree is made.
            owner = os.stat("/proc/self/ns/mnt").st_ino
            limit = settings.cache_limit
            return Cache(settings.cache, name, index.plain_sizes, log, limit, owner)
    except CacheUnusable as error:
        log(str(error))
    except OSError as error:
        log(f"cache: {error.strerror}; filling without one")
    return None


def _leave_terminal() -> None:
    """Let go of the terminal, so that the workload can have it for its own session."""
    if not os.isatty(0):
        return
    try:
        fcntl.ioctl(0, TIOCNOTTY)
    except OSError:
        return  # it is nobody's
    # To the foreground processes, which is this one alone; they are not for the workload.
    while sigtimedwait({SIGHUP, SIGCONT}, 0):
        pass


def _take_terminal() -> None:
    os.setsid()
    if os.isatty(0):
        fcntl.ioctl(0, TIOCSCTTY, 0)


def _enter_home() -> None:
    """Make `HOME` this process's root, with what the C library looks for to find a store."""
    # What is made from now on is not for everybody to write.
    os.umask(0o022)
    try:
        os.makedirs(f"{HOME}/etc", 0o755, exist_ok=True)
        for name in ("hosts", "resolv.conf"):
            _copy(f"/etc/{name}", f"{HOME}/etc/{name}")
        if not os.path.lexists(HOME + HOME):
            # Where the runtime's files are, its paths say the same as before.
            os.symlink(".", HOME + HOME)
        os.chroot(HOME)
        os.chdir("/")
    except OSError as error:
        raise BootError(f"{HOME}: {error.strerror}") from None


def _copy(source: str, target: str) -> None:
    try:
        with open(source, "rb", buffering=0) as file:
            data = file.readall() or b""
    except FileNotFoundError:
        return
    with open(target, "wb", buffering=0) as file:
        file.write(data)
