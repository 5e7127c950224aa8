"""The daemon: the image's bytes put together, and the process that serves them.

Imported after the fork, so that the init stays as small as PID 1 should be.
"""

from __future__ import annotations

import os
import sys
from _signal import SIG_UNBLOCK, SIGUSR1, pthread_sigmask, signal
from _thread import start_new_thread

from boot.config import AUTH, AUTHORITIES, NO_PROFILE, Settings, read_boot_config
from boot.fuse import OneFile
from boot.image import open_bootstrap, open_index
from boot.log import log
from boot.readahead import ReadAhead
from boot.repeats import RepeatedReads
from boot.replay import Replay
from boot.syscalls import Residency, keep_freed_memory
from store.errors import BootfsError
from store.format.sshurl import is_ssh_url
from store.read.cache import Cache, CacheUnusable
from store.read.fetch import ChunkReader
from store.read.image import ImageReader
from store.read.order import Pages, StartOrder
from store.read.source import open_source

SWITCH_INTERVAL_S = 0.0002
"""A request of the kernel must not stand behind 5 ms, Python's default, of another thread."""
KEPT_MEMORY = 4 << 20
"""Freed bytes that stay with the process: the buffers of a few reads under way."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from mmap import mmap
    from typing import NoReturn

    from boot.recording import Recording
    from store.interfaces import Streaming
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


def open_image(settings: Settings, command: list[bytes]) -> Opened:
    """Return the image, bootstrap, cache and store put together, for a start of ``command``.

    What can be fetched ahead is on its way then.

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
    chunks = ChunkReader(index, source, cache, log, read_limit_s=limit_s)
    hot = recording = None
    if settings.record_s and cache is not None:
        recording = _begin_recording(settings, cache.path, command)
    if cache is not None and order is not None and order.is_empty and recording is None:
        hot = _begin_hot_pack(settings, chunks, source, cache, command)
    return Opened(ImageReader(open_bootstrap(index), chunks), order, hot, recording)


def _begin_recording(settings: Settings, path: str, command: list[bytes]) -> Recording | None:
    from boot.recording import Recording

    try:
        return Recording(path, settings.chunk_index, command, settings.record_s, log)
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


class AnswerCount:
    """Number of reads answered, in memory that init and daemons share."""

    def __init__(self, shared: mmap) -> None:
        self._shared = shared

    def add(self) -> None:
        """Count one more; a race loses a count, and only whether it grows matters."""
        count = int.from_bytes(self._shared[:8], "little") + 1
        self._shared[:8] = count.to_bytes(8, "little")

    def value(self) -> int:
        """Return the count so far."""
        return int.from_bytes(self._shared[:8], "little")


class Service:
    """``image.erofs`` on an open FUSE device, and what is done beside answering reads of it."""

    def __init__(self, environment: dict[bytes, bytes], fuse: int, answers: AnswerCount) -> None:
        """Open the image; ``environment`` is the one that the engine gave to the init.

        Raises:
            BootfsError: the image cannot be served at all.

        """
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        settings = Settings(read_boot_config(), environment)
        command = [*settings.entrypoint, *map(os.fsencode, sys.argv[1:])]
        opened = open_image(settings, command)
        image, order = opened.image, opened.order
        reads = RepeatedReads(image.read)
        self.file = OneFile(fuse, b"image.erofs", image.size, reads.read, log)
        self._image = image
        self._order = order
        self._read_ahead: ReadAhead | None = None
        self._replay: Replay | None = None
        self._answers = answers
        self._hot = opened.hot
        self._recording = opened.recording
        self.reads_exactly = opened.hot is not None or opened.recording is not None
        """The kernel should read on less than it does by itself."""
        self.file.answered = self._answered
        image.chunks.begin_wait = self.file.workers.begin_wait

    def watch_reads(self, fetched: Callable[[], None], started: Callable[[], None]) -> None:
        """Note from now on what is read, for `read_ahead`, and settle on SIGUSR1.

        That ends this process when the next start has all that it may want.  ``fetched``
        is called for each chunk that is fetched, ``started`` when a start seems to be over.
        To be called by the main thread.
        """
        self._image.chunks.fetched = fetched
        read_ahead = ReadAhead(self._image, self._order, Pages(self._image.size), started)
        if self._hot is not None:
            read_ahead.follow_profile(self._hot)
        if self._replays:
            # First of all these; the replay lets it go on.
            read_ahead.hold()
        self._read_ahead = read_ahead
        signal(SIGUSR1, lambda *_: read_ahead.end())
        pthread_sigmask(SIG_UNBLOCK, (SIGUSR1,))

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
        read_ahead.advise_by(advise, step)
        read_ahead.run()

    def _answered(self, offset: int, size: int) -> None:
        self._answers.add()
        if self._recording is not None:
            self._recording.saw(offset, size)
        if self._replay is not None:
            self._replay.answered(size)
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
        failed(error, str(error) if code > 1 else f"the daemon failed: {error!r}")
    os._exit(code)
