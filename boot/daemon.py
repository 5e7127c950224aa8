"""The daemon: the image's bytes put together, and the process that serves them.

Imported after the fork, so that the init stays as small as PID 1 should be.
"""

from __future__ import annotations

import gc
import os
import sys
from _signal import SIG_UNBLOCK, SIGUSR1, SIGUSR2, pthread_sigmask, signal
from _thread import get_ident, start_new_thread

from boot.config import AUTH, AUTHORITIES, NO_PROFILE, Settings, read_boot_config
from boot.fuse import IN_HEADER, READ_IN, OneFile
from boot.image import open_bootstrap, open_index
from boot.log import explained, log
from boot.readahead import ReadAhead
from boot.repeats import RepeatedReads
from boot.replay import Replay
from boot.syscalls import Residency, keep_freed_memory
from store.errors import BootfsError
from store.format.sshurl import is_ssh_url
from store.read.cache import Cache, CacheUnusable
from store.read.counts import Counts
from store.read.fetch import ChunkReader
from store.read.image import ImageReader
from store.read.order import Pages, StartOrder
from store.read.source import open_source

SWITCH_INTERVAL_S = 0.0002
"""A request of the kernel must not stand behind 5 ms, Python's default, of another thread."""
ROOM_SHARE = 256
"""What is read ahead is decompressed, some four times its size, and in several pieces at once: of
64 MB, the daemon has 40 in mode ``fuse``."""
KEPT_MEMORY = 4 << 20
"""Freed bytes that stay with the process: the buffers of a few reads under way."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from mmap import mmap
    from typing import NoReturn

    from boot.recording import Recording
    from store.interfaces import Streaming
    from store.read.counts import Asked
    from store.read.hotpack import HotPack


class Opened:
    """An image: its bytes, and what is known of how it starts."""

    __slots__ = ("hot", "image", "order", "recording")

    def __init__(
        self,
        image: ImageReader,
        order: StartOrder | None,
        hot: HotPack | None,
        recording: Recording | None,
    ) -> None:
        self.image = image
        self.order = order
        """What starts on this machine read; None where nothing can be kept."""
        self.hot = hot
        """What a start of this command reads, on its way; None where it is here, or unknown."""
        self.recording = recording


def open_image(
    settings: Settings, command: list[bytes], memory: mmap, *, is_recorded: bool = False
) -> Opened:
    """Return the image, bootstrap, cache and store put together, for a start of ``command``.

    What can be fetched ahead is on its way then.

    What is done is counted in ``memory``.  ``is_recorded`` is for who tells a recording what
    is read, and records a start and not what comes later.

    Raises:
        BootfsError: the boot image is damaged, or the store's URL is none.

    """
    keep_freed_memory(KEPT_MEMORY)
    index = open_index(settings.chunk_index)
    if any(is_ssh_url(url) for url in settings.blob_store.split("|")):
        from boot.keymemory import provide_key_memory

        provide_key_memory()
    source = open_source(settings.blob_store, settings.read_limit_s, AUTHORITIES, log, AUTH)
    start_new_thread(source.dial, ())
    cache = order = None
    try:
        name = settings.chunk_index.hex()
        cache = Cache(settings.cache, name, index.plain_sizes, log, settings.cache_limit)
        # Without chunks there is no cache directory, and nothing to order.
        order = (
            StartOrder(cache.path, index.data_start + index.data_size)
            if index.chunk_count
            else None
        )
    except CacheUnusable as error:
        log(str(error))
    except OSError as error:
        log(f"cache: {error.strerror}; starting without an order of reads")
    limit_s = settings.read_limit_s
    counts = Counts(memory)
    counts.counters.chunks = index.chunk_count
    counts.counters.data_bytes = index.data_size
    chunks = ChunkReader(index, source, cache, log, read_limit_s=limit_s, counts=counts)
    chunks.find_room = _room
    if settings.complete is not None:
        _begin_completion(settings, chunks, cache)
    hot = recording = None
    if settings.record_s and is_recorded:
        recording = _begin_recording(settings, cache, command)
    if cache is not None and recording is None:
        # Mode fuse keeps no order, but what was fetched is here after a start.
        is_cold = order is not None and order.is_empty and not cache.present_count
        if is_cold:
            hot = _begin_hot_pack(settings, chunks, source, cache, command)
        if settings.whole == "on" or (is_cold and settings.whole == "auto"):
            _begin_whole(settings, chunks, cache, hot)
    return Opened(ImageReader(open_bootstrap(index), chunks), order, hot, recording)


def _room() -> int:
    """Return how many stored bytes may be read ahead in this container."""
    from boot.memorylimit import memory_limit

    return memory_limit() // ROOM_SHARE


def _begin_completion(settings: Settings, chunks: ChunkReader, cache: Cache | None) -> None:
    """Have the rest of the image fetched, where there is a place to keep it."""
    from boot.completion import Completion

    if cache is None:
        log("BOOTFS_COMPLETE: there is no cache to fetch the rest of the image into")
        return
    if not _has_room(settings, chunks):
        log(
            f"BOOTFS_COMPLETE: the image has {sum(chunks.index.plain_sizes):,} bytes, "
            f"and BOOTFS_CACHE_LIMIT leaves room for {settings.cache_limit:,}"
        )
        return
    Completion(chunks, settings.complete or 0, log).start()


def _has_room(settings: Settings, chunks: ChunkReader) -> bool:
    """Whether the cache may hold all of the image."""
    return not settings.cache_limit or settings.cache_limit >= sum(chunks.index.plain_sizes)


def _begin_whole(
    settings: Settings, chunks: ChunkReader, cache: Cache, hot: HotPack | None
) -> None:
    """Have everything fetched where that is sooner, or wanted, and there is room for it."""
    if cache.present_count >= chunks.index.chunk_count or not _has_room(settings, chunks):
        return
    from boot.whole import Whole

    whole = Whole(chunks, hot, log)
    if settings.whole == "on":
        whole.begin()
    else:
        whole.decide()


def _begin_recording(
    settings: Settings, cache: Cache | None, command: list[bytes]
) -> Recording | None:
    from boot.recording import begin_recording

    if cache is None:
        log("nothing is recorded: there is no cache to keep it in")
        return None
    try:
        return begin_recording(cache.path, settings, command)
    except OSError as error:
        log(f"nothing is recorded: {error.strerror}")
        return None


def _begin_hot_pack(
    settings: Settings, chunks: ChunkReader, source: Streaming, cache: Cache, command: list[bytes]
) -> HotPack | None:
    """Have the image's hot pack fetched, where this is its first start on this machine."""
    if settings.profile == NO_PROFILE:
        return None
    # Here, since a start from the cache needs none.
    from store.read.hotpack import HotPack

    image = settings.chunk_index
    hot = HotPack(chunks, source, cache, image, (settings.profile, command), log)
    chunks.expect_decision(hot)
    hot.start()
    return hot


def name_of(process: int) -> bytes:
    """Return the name that a process gives itself now, empty where there is none any more."""
    try:
        fd = os.open(b"/proc/%d/comm" % process, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(fd, 16).rstrip(b"\n")
    except OSError:
        return b""
    finally:
        os.close(fd)


class Service:
    """``image.erofs`` on an open FUSE device, and what is done beside answering reads of it."""

    def __init__(
        self, environment: dict[bytes, bytes], fuse: int, memory: mmap, *, is_first: bool
    ) -> None:
        """Open the image; ``environment`` is the one that the engine gave to the init.

        What is done is counted in ``memory``.

        Raises:
            BootfsError: the image cannot be served at all.

        """
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        settings = Settings(read_boot_config(), environment)
        command = [*settings.entrypoint, *map(os.fsencode, sys.argv[1:])]
        opened = open_image(settings, command, memory, is_recorded=is_first)
        image, order = opened.image, opened.order
        reads = RepeatedReads(image.read)
        self.file = OneFile(fuse, b"image.erofs", image.size, reads.read, log)
        self._image = image
        self._order = order
        self._read_ahead: ReadAhead | None = None
        self._replay: Replay | None = None
        self._counts = image.chunks.counts
        self._counts.whose = self._whose
        self._hot = opened.hot
        self._recording = opened.recording
        self._sends = is_first and settings.sends_recording
        self.file.answered = self._answered
        image.chunks.begin_wait = self.file.workers.begin_wait

    def watch_reads(self, started: Callable[[], None]) -> None:
        """Note from now on what is read, for `read_ahead`, and settle on SIGUSR1.

        That ends this process when the next start has all that it may want, and SIGUSR2 when
        what was recorded is sent, which the other waits for too.  ``started``
        is called when a start seems to be over.  To be called by the main thread.
        """
        read_ahead = ReadAhead(self._image, self._order, Pages(self._image.size), started)
        recording = self._recording
        if recording is not None:
            read_ahead.only_watches = lambda: not recording.is_over()
        if self._hot is not None:
            read_ahead.follow_profile(self._hot)

            def go_without() -> None:
                read_ahead.go_without()
                started()

            self._hot.without = go_without
            if self._hot.is_without:
                go_without()
        if self._replays:
            # First of all these; the replay lets it go on.
            read_ahead.hold()
        self._read_ahead = read_ahead
        signal(SIGUSR1, lambda *_: self._end(read_ahead))
        pthread_sigmask(SIG_UNBLOCK, (SIGUSR1,))
        if self._sends:
            signal(SIGUSR2, lambda *_: self._end(None))
            pthread_sigmask(SIG_UNBLOCK, (SIGUSR2,))

    def _end(self, read_ahead: ReadAhead | None) -> None:
        """End this process when a recording is sent, and ``read_ahead`` has settled."""
        recording = self._recording
        if recording is not None:
            recording.end(exits=read_ahead is None)
        elif read_ahead is None:
            os._exit(0)
        if read_ahead is not None:
            if recording is not None:
                read_ahead.last = recording.wait_until_sent
            read_ahead.end()

    def reads_exactly(self) -> bool:
        """Whether the kernel should read on less than it does by itself.

        Where it is told of all that a start reads, what it would read beside that is for nothing.
        """
        hot = self._hot
        is_told = self._replays or (hot is not None and not hot.is_without)
        return is_told or self._recording is not None

    @property
    def _replays(self) -> bool:
        """Whether the kernel is to read what earlier starts read; not while that is recorded."""
        return self._order is not None and not self._order.is_empty and self._recording is None

    def read_ahead(self, own: int, step: int) -> None:
        """Advise the kernel until SIGUSR1, in this thread; ``own`` is image.erofs itself, open.

        ``step`` is what the kernel reads at most for one piece of advice.
        """
        read_ahead = self._read_ahead
        if read_ahead is None:
            return
        gc.freeze()
        gc.enable()
        try:
            resident = Residency(own, self._image.size)
        except OSError as error:
            log(f"no reading ahead: {error.strerror}; starts take longer")
            read_ahead.resume()
            read_ahead.run()

        def advise(offset: int, size: int) -> int:
            missing = resident.missing(offset, size)
            if missing:
                os.posix_fadvise(own, offset, size, os.POSIX_FADV_WILLNEED)
            return missing

        if self._order is not None and self._replays:
            replay = Replay(self._image, self._order, advise, step, read_ahead.advised)
            self._replay = replay
            self.file.between_requests(replay.advise_next, then=read_ahead.resume)
        if self._hot is not None:
            from boot.hotadvice import HotAdvice

            advised = read_ahead.advised
            self._hot.landed = HotAdvice(self._image, self._hot, advise, step, advised).landed
        read_ahead.advise_by(advise, step)
        read_ahead.run()

    def _whose(self) -> Asked | None:
        request = self.file.asked.pop(get_ident(), None)
        if request is None:
            return None  # a thread that answers nobody
        process = IN_HEADER.unpack_from(request)[6]
        _, offset, size, *_ = READ_IN.unpack_from(request, IN_HEADER.size)
        return offset, size, process, name_of(process)

    def _answered(self, offset: int, size: int) -> None:
        counts = self._counts
        # A race loses a count, and only whether it grows matters.
        counts.counters.answered += 1
        # None where it has waited: then it is listed.
        request = self.file.asked.pop(get_ident(), None)
        if self._recording is not None:
            self._recording.saw(offset, size)
        if self._replay is not None:
            self._replay.answered(size)
        elif self._hot is None and request is not None and counts.lists_at_hand():
            # In a start without advice, which would have this process read.
            counts.note_at_hand((offset, size, IN_HEADER.unpack_from(request)[6], b""))
        if self._read_ahead is not None:
            self._read_ahead.saw(offset, size)


def run(action: Callable[[], None], failed: Callable[[BaseException, str], None]) -> NoReturn:
    """Run a daemon's ``action`` to its end, and end this process.

    A failure goes to ``failed``, with a line that says it.
    """
    code = 0
    try:
        action()
    except BaseException as error:
        code = error.exit_code if isinstance(error, BootfsError) else 1
        failed(
            error,
            str(error) if code > 1 else f"the daemon failed: {explained(error) or repr(error)}",
        )
    os._exit(code)
