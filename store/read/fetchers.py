"""Threads that fetch ranges of packs, and heed what other containers fetch.

Imported when something has to be fetched: a start from the cache needs none of it.
"""

from __future__ import annotations

from _queue import Empty, SimpleQueue
from _thread import allocate_lock, start_new_thread
from time import monotonic, sleep

from store.errors import BootfsError
from store.format.digest import printable
from store.format.names import pack_name
from store.read.body import plain_of
from store.read.link import Arrivals
from store.read.ranges import Range, plan_ranges

FETCHER_LIMIT = 16
"""Requests under way at once: with 30 ms each and 1 MiB ranges, 844 MB/s."""
RENEW_S = 0.5
"""A claim on chunks under way is renewed so often, when bytes arrive."""
FOLLOW_S = 5.0
"""For so long at most does one wait for what another container fetches, however steadily."""
FOLLOW_PAUSE_S = 0.001, 0.025
"""Pauses between looks for it, doubled from the one to the other."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from store.interfaces import Source
    from store.read.cache import Cache
    from store.read.fetch import ChunkReader


class Fetchers:
    """Fetches for one `ChunkReader`, where its flights land.  May be used by many threads."""

    def __init__(
        self,
        reader: ChunkReader,
        source: Source,
        cache: Cache | None,
        log: Callable[[str], None],
    ) -> None:
        self._reader = reader
        self._index = reader.index
        self._source = source
        self._cache = cache
        self._log = log
        self._lock = allocate_lock()
        self._queue: SimpleQueue[Range] = SimpleQueue()
        self._count = 0
        self._spare = 0
        """Fetchers that are free, less ranges that are queued."""
        self._shares = cache is not None
        """Whether to heed what other containers fetch, and what other images have."""
        self._followed: dict[int, float] = {}
        """Chunks that others fetch, and until when one waits for that."""
        self._is_following = False

    def queue(self, ranges: list[Range]) -> None:
        """Give ``ranges`` to fetchers, and see that there are enough of them."""
        with self._lock:
            self._spare -= len(ranges)
            wanted = max(min(-self._spare, FETCHER_LIMIT - self._count), 0)
            self._spare += wanted
            self._count += wanted
        for one in ranges:
            self._queue.put(one)
        for started in range(wanted):
            try:
                start_new_thread(self._work, ())
            except RuntimeError:
                # The container may have no more threads (--pids-limit).
                self._do_without(wanted - started)
                return

    def _do_without(self, fetchers: int) -> None:
        """Go on after so many fetchers could not be started; without any, fetch here."""
        with self._lock:
            self._count -= fetchers
            self._spare -= fetchers
            if self._count:
                return
        while True:
            try:
                wanted = self._queue.get_nowait()
            except Empty:
                return
            with self._lock:
                self._spare += 1
            self._fetch(wanted)

    def _work(self) -> None:
        """Fetch what is queued, for ever: a fetcher thread."""
        while True:
            wanted = self._queue.get()
            try:
                self._fetch(wanted)
            except Exception as error:
                # A fault of ours: the readers get EIO and not a wait without end.
                self._log(f"fetching failed: {error!r}")
                self._reader.crash(
                    self._reader.unended(wanted.chunks), BootfsError(f"fetching: {error!r}")
                )
            with self._lock:
                self._spare += 1

    def _fetch(self, wanted: Range) -> None:
        """Land the chunks of a range: those that others have, or fetch, from there."""
        if not self._shares or not wanted.heeds_claims:
            self._fetch_range(wanted)
            return
        mine: list[int] = []
        theirs: list[int] = []
        try:
            self._divide(wanted.chunks, mine, theirs)
        except OSError as error:
            self._stop_sharing(error)
            mine = self._reader.unended(wanted.chunks)
            theirs = []
        if len(mine) == len(wanted.chunks):
            self._fetch_range(wanted)
        else:
            for one in plan_ranges(self._index, mine):
                self._fetch_range(one)
        if theirs:
            self._follow(theirs)

    def _fetch_range(self, wanted: Range) -> None:
        """Fetch one range; land each of its chunks as soon as its bytes are there."""
        index = self._index
        pack = pack_name(index.pack_digests[wanted.pack])
        waiting = wanted.chunks[::-1]
        size = wanted.end - wanted.start
        begun_s = renewed_s = monotonic()
        arrivals = Arrivals(self._reader.link)

        def count(is_failed: bool) -> None:
            chunks = len(wanted.chunks)
            self._reader.counts.add_request(
                wanted.pack, wanted.start, size, chunks, begun_s, is_failed
            )

        def arrived(body: memoryview) -> None:
            nonlocal renewed_s
            arrivals.saw(len(body))
            while waiting:
                chunk = waiting[-1]
                at = index.offsets[chunk] - wanted.start
                end = at + index.stored_sizes[chunk]
                if end > len(body):
                    break
                digest = index.digest(chunk)
                where = f"chunk {printable(digest)} in {self._source.location}/{pack}"
                plain = plain_of(body[at:end], index.plain_sizes[chunk], digest, where)
                # Before its reader goes on: that may be the last thing the workload waited
                # for, and the next start is to find the chunk here.
                self.keep(chunk, digest, plain)
                self._reader.fetched()
                self._reader.counters.fetched_chunks += 1
                self._reader.land(chunk, plain)
                # Not before: should keeping it fail, its readers are told and go on.
                waiting.pop()
            if self._shares and waiting and monotonic() - renewed_s >= RENEW_S:
                renewed_s = monotonic()
                self.change_claims(waiting, ends=False)

        try:
            self._source.fetch(pack, wanted.start, size, arrived)
            if waiting:
                raise BootfsError(f"{pack}: the source ended before its bytes did")
            arrivals.end()
            count(is_failed=False)
        except BootfsError as error:
            count(is_failed=True)
            self._log(str(error))
            self.change_claims(waiting, ends=True)
            self._reader.crash(waiting, error)
        except Exception as error:
            # A fault of ours: the readers get EIO and not a wait without end.
            count(is_failed=True)
            self._log(f"{pack}: {error!r}")
            self.change_claims(waiting, ends=True)
            self._reader.crash(waiting, BootfsError(f"{pack}: {error!r}"))

    def keep(self, chunk: int, digest: bytes, plain: bytes) -> None:
        """Put a fetched chunk into the cache, and say there that it is no longer on its way."""
        cache = self._cache
        if cache is None:
            return
        is_kept = cache.write(chunk, plain)
        if self._shares:
            try:
                if is_kept:
                    cache.places.add(digest, cache.offset(chunk))
                cache.claims.release(digest)
            except OSError as error:
                self._stop_sharing(error)

    def claim(self, chunks: list[int]) -> None:
        """Tell other containers that ``chunks`` are on their way, those that are still not here."""
        cache = self._cache
        if cache is None or not self._shares:
            return
        try:
            for chunk in self._reader.unended(chunks):
                cache.claims.take(self._index.digest(chunk))
        except OSError as error:
            self._stop_sharing(error)

    def renew_claims(self, chunks: list[int], hot_pack: bytes) -> None:
        """Tell them that ``chunks`` still are, and that the hot pack is ours."""
        self.change_claims(chunks, ends=False)
        if self._cache is not None and self._shares:
            try:
                self._cache.claims.renew(hot_pack)
            except OSError as error:
                self._stop_sharing(error)

    def release_claim(self, hot_pack: bytes) -> None:
        """Tell them that the hot pack is here, or given up."""
        if self._cache is not None and self._shares:
            try:
                self._cache.claims.release(hot_pack)
            except OSError as error:
                self._stop_sharing(error)

    def change_claims(self, chunks: list[int], ends: bool) -> None:
        """Release our claims on ``chunks``, or renew them."""
        cache = self._cache
        if cache is None or not self._shares:
            return
        try:
            change = cache.claims.release if ends else cache.claims.renew
            for chunk in chunks:
                change(self._index.digest(chunk))
        except OSError as error:
            self._stop_sharing(error)

    def _stop_sharing(self, error: OSError) -> None:
        """Go on as if no other container were there."""
        if self._shares:
            self._shares = False
            self._log(f"cache: {error.strerror}; not heeding what other containers fetch")

    def _divide(self, chunks: list[int], mine: list[int], theirs: list[int]) -> None:
        """Land what is here by now; add to ``mine`` what is claimed for us, the rest to ``theirs``.

        Raises:
            OSError: the cache's tables fail.

        """
        cache = self._cache
        assert cache is not None
        for chunk in chunks:
            digest = self._index.digest(chunk)
            if self._land_shared(cache, chunk):
                continue
            if not cache.claims.take(digest):
                theirs.append(chunk)
            elif self._land_shared(cache, chunk):
                # Whoever had the claim before has just ended it, and kept the chunk.
                cache.claims.release(digest)
            else:
                mine.append(chunk)
        self._reader.counters.followed += len(theirs)

    def _land_shared(self, cache: Cache, chunk: int) -> bool:
        """Land a chunk that another container has kept, or another image has; say whether."""
        if cache.has(chunk) and not self._reader.land_cached([chunk]):
            return True
        digest = self._index.digest(chunk)
        plain = cache.places.find(digest, self._index.plain_sizes[chunk])
        if plain is None:
            return False
        if cache.write(chunk, plain):
            cache.places.add(digest, cache.offset(chunk))
        self._reader.counters.shared += 1
        self._reader.land(chunk, plain)
        return True

    def _follow(self, chunks: list[int]) -> None:
        """Have chunks that others fetch landed when they have come, or fetched after all."""
        until = monotonic() + FOLLOW_S
        with self._lock:
            self._followed.update(dict.fromkeys(chunks, until))
            begins = not self._is_following
            self._is_following = True
        if begins:
            try:
                start_new_thread(self._follow_others, ())
            except RuntimeError:
                # The container may have no more threads (--pids-limit).
                self._follow_others()

    def _follow_others(self) -> None:
        """Look for what others fetch until there is nothing left to look for: a thread."""
        pause_s, longest_s = FOLLOW_PAUSE_S
        while True:
            sleep(pause_s)
            with self._lock:
                followed = dict(self._followed)
                if not followed:
                    self._is_following = False
                    return
            landed: list[int] = []
            free: list[int] = []
            overdue: list[int] = []
            try:
                self._look_for(followed, landed, free, overdue)
            except OSError as error:
                self._stop_sharing(error)
                landed, overdue = list(followed), []
                free = self._reader.unended(landed)
            except Exception as error:
                # A fault of ours: as in a fetcher.
                self._log(f"following failed: {error!r}")
                landed, free, overdue = list(followed), [], []
                self._reader.crash(
                    self._reader.unended(landed), BootfsError(f"following: {error!r}")
                )
            with self._lock:
                for chunk in (*landed, *free, *overdue):
                    # It may have been given up and be followed anew since it landed.
                    if self._followed.get(chunk) == followed[chunk]:
                        del self._followed[chunk]
            ranges = plan_ranges(self._index, overdue)
            for one in ranges:
                one.heeds_claims = False
            ranges += plan_ranges(self._index, free)
            if ranges:
                self.queue(ranges)
            pause_s = FOLLOW_PAUSE_S[0] if landed else min(pause_s * 2, longest_s)

    def _look_for(
        self, followed: dict[int, float], landed: list[int], free: list[int], overdue: list[int]
    ) -> None:
        """Land what has come and add it to ``landed``, what nobody fetches any more to ``free``.

        Raises:
            OSError: the cache's tables fail.

        """
        cache = self._cache
        assert cache is not None
        now = monotonic()
        for chunk, until in followed.items():
            if self._land_shared(cache, chunk):
                landed.append(chunk)
            elif cache.claims.is_free(self._index.digest(chunk)):
                free.append(chunk)
            elif now >= until:
                overdue.append(chunk)
