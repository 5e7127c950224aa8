"""Chunks by number: from memory, from the cache, or over the network, always verified.

Concurrent wants of one chunk share one fetch (single flight), in this process and,
where there is a cache, in all containers on it; wants that lie near one another in a
pack share one request.  Decisions are made under the lock, I/O outside it.  Who fetches
is in `store.read.fetchers`.
"""

from __future__ import annotations

from _thread import allocate_lock
from time import monotonic

from store.errors import BootfsError, TimedOut
from store.format.digest import check_digest, digest_of, printable
from store.read.counts import Counts
from store.read.link import Link
from store.read.ranges import RANGE_LIMIT, Range, plan_ranges

MEMORY_LIMIT = 8 << 20
"""Plain bytes of verified chunks kept in memory, least recently used dropped first."""
RUN_LIMIT = 2 << 20
"""Stored bytes that are on their way at most for who reads on and on.  Twice that is under way at
times, so 4 MiB in a round trip."""
KEPT_SHARE = 16
"""Where memory is scarce, so much more plain bytes are kept than stored ones are read ahead."""
RUNS = 64
"""Ends of what was read ahead that are remembered, those of the last."""
BROUGHT_S = 2.0
"""So long at most does a read wait for chunks that somebody brings unasked."""
AGAIN = 3
"""Times that a chunk which was wrong is read from the cache before it is taken for damaged."""
LAST_WORD_S = 0.25
"""So much longer than its limit does a read wait, for a fetch to say why it has failed."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from store.format.chunkindex import ChunkIndex
    from store.interfaces import Ahead, Aside, Source
    from store.read.cache import Cache
    from store.read.fetchers import Fetchers


class Flight:
    """A fetch under way.  ``landed`` is held until ``result`` or ``error`` is set."""

    __slots__ = ("ahead", "error", "is_wanted", "landed", "result")

    def __init__(self, ahead: Ahead | None = None) -> None:
        self.ahead = ahead
        """Who brings it before anybody has asked; a reader may take it over."""
        self.is_wanted = False
        """A reader waits for what is brought so."""
        self.landed = allocate_lock()
        self.landed.acquire()
        self.result: bytes | memoryview | None = None
        self.error: BootfsError | None = None


def have_landed(flights: list[Flight]) -> bool:
    """Wait for flights to end; return whether all went well."""
    for flight in flights:
        with flight.landed:
            if flight.result is None:
                return False
    return True


class ChunkReader:
    """The chunks of one image.  May be used by many threads at once."""

    def __init__(
        self,
        index: ChunkIndex,
        source: Source,
        cache: Cache | None,
        log: Callable[[str], None],
        memory_limit: int = MEMORY_LIMIT,
        read_limit_s: float = 0.0,
        counts: Counts | None = None,
    ) -> None:
        """Read chunks of ``index`` from ``source``, and from ``cache`` where there is one.

        A read that has to wait fails after ``read_limit_s``, whatever the fetches do that it
        waits for; 0 is for as long as they take.  What is done is counted in ``counts``.
        """
        self._read_limit_s = read_limit_s
        self.index = index
        self.counts = Counts() if counts is None else counts
        self.counters = self.counts.counters
        self.begin_wait: Callable[[], None] = lambda: None
        """Called by a reader before it waits for a fetch or a disk."""
        self.fetched: Callable[[], None] = lambda: None
        """Called for each chunk that was fetched, before its readers have it."""
        self.aside: Aside | None = None
        """Where what is brought unasked is kept, which memory has no room for."""
        self._source = source
        self._cache = cache
        self._log = log
        self._lock = allocate_lock()
        self._flights: dict[int, Flight] = {}
        self._memory: dict[int, bytes | memoryview] = {}
        self.memory_limit = self._memory_left = memory_limit
        """Plain bytes that are kept; what is wanted ahead should be well below."""
        self._fetchers: Fetchers | None = None
        self._making = allocate_lock()
        self._waited_s = monotonic()
        """When somebody last began to wait for a fetch."""
        self._ahead: Ahead | None = None
        """Who may soon say what it brings."""
        self._link = Link()
        self._runs: dict[int, int] = {}
        """Chunk that follows what was read ahead, to how many stored bytes that was."""
        self._marks: dict[int, int] = {}
        """Chunk in what was read ahead for who reads on, to the chunk that follows all of it."""
        self.waited: Callable[[float, float], None] | None = None
        """Called when a reader has waited for fetches, and has what it wanted, with the `monotonic`
        times of that."""
        self.find_room: Callable[[], int] = lambda: RUN_LIMIT
        """Returns how many stored bytes memory allows to read ahead; called once, when needed."""
        self._room = 0

    @property
    def room(self) -> int:
        """Stored bytes that are read ahead at most, `RUN_LIMIT` where memory is not scarce.

        First asked for without the lock.
        """
        if not self._room:
            room = min(self.find_room(), RUN_LIMIT)
            with self._lock:
                kept = min(self.memory_limit, room * KEPT_SHARE)
                self._memory_left -= self.memory_limit - kept
                self.memory_limit = kept
            self._room = room
        return self._room

    @property
    def fetchers(self) -> Fetchers:
        """Who fetches for this; made when it is first asked for."""
        if self._fetchers is None:
            with self._making:
                if self._fetchers is None:
                    # Here, since a start from the cache fetches nothing.
                    from store.read.fetchers import Fetchers

                    self._fetchers = Fetchers(self, self._source, self._cache, self._log)
        return self._fetchers

    @property
    def link(self) -> Link:
        """What fetches have shown of the way to the store."""
        return self._link

    def read(
        self, chunks: list[int], joins_failures: bool = False, until: float = 0.0
    ) -> dict[int, bytes | memoryview]:
        """Return the verified plain bytes of ``chunks``.

        When a fetch that others began before fails, it is tried once more for this
        want; with ``joins_failures`` its failure is this want's too.  ``until`` is the
        `monotonic` time at which a want that began before is given up.

        Raises:
            TimedOut: they did not come within the limit; they may be here later.
            BootfsError: one of them can be had from nowhere, or not unharmed.

        """
        if self._marks:
            self._read_on(chunks)
        if len(chunks) > 1:
            cached = self._read_cached(chunks)
            if cached is not None:
                return cached
        undecided = self._ahead
        if undecided is not None and not all(map(self.has_here, chunks)):
            self.begin_wait()
            undecided.wait_until_decided()
            self._ahead = None
        found: dict[int, bytes | memoryview] = {}
        joined: list[tuple[int, Flight]] = []
        mine: list[tuple[int, Flight]] = []
        brought: list[tuple[int, Flight]] = []
        with self._lock:
            for chunk in chunks:
                plain = self._memory.pop(chunk, None)
                if plain is not None:
                    found[chunk] = self._memory[chunk] = plain
                elif chunk in self._flights:
                    flight = self._flights[chunk]
                    joined.append((chunk, flight))
                    if flight.ahead is not None:
                        flight.is_wanted = True
                        brought.append((chunk, flight))
                else:
                    flight = self._flights[chunk] = Flight()
                    mine.append((chunk, flight))
        if mine:
            try:
                missing = self.land_cached([chunk for chunk, _ in mine])
            except BaseException as error:
                # Nobody else lands these: who waits for them must not wait for ever.
                self._crash_unlanded(mine, error)
                raise
        else:
            missing = []
        waits = bool(missing) or any(flight.landed.locked() for _, flight in joined)
        begun_s = monotonic() if waits else 0.0
        if waits:
            self._waited_s = begun_s
            self.begin_wait()
            if self._read_limit_s and not until:
                until = monotonic() + self._read_limit_s + LAST_WORD_S
        if missing:
            try:
                self._start(missing)
            except BaseException as error:
                self._crash_unlanded(mine, error)
                raise
        # Only now: what is to be fetched is on its way.
        wait = self.counts.begin_wait() if waits else None
        try:
            if brought:
                late = self._wait_for_brought(brought, until)
                if late:
                    self._start(late)
            failed = self._collect(mine, joined, found, joins_failures, until)
        finally:
            if wait is not None:
                self.counts.end_wait(wait)
        waited = self.waited
        if waits and waited is not None and not failed:
            # Where it failed, it is not the link that was waited for.
            waited(begun_s, monotonic())
        if failed:
            # Somebody else's fetch, perhaps a guess that began long ago, ran into its
            # limit: this want has what is left of its own.  Whatever flight it finds now
            # began after this want, so a second failure is an answer; without that,
            # the last of fifty readers would wait for fifty limits.
            found.update(self.read(failed, joins_failures=True, until=until))
        return found

    def _wait_for_brought(self, brought: list[tuple[int, Flight]], until: float) -> list[int]:
        """Wait for flights that others bring, for as long as is worth it; return those to fetch.

        That is `BROUGHT_S` at most for all of them together, and well before ``until``, so
        that a request of one's own has most of the limit.
        """
        now = monotonic()
        ends = now + min(BROUGHT_S, (until - now) / 4 if until else BROUGHT_S)
        late: list[int] = []
        for chunk, flight in brought:
            ahead = flight.ahead
            patience_s = min(ahead.patience_s(chunk) if ahead is not None else 0.0, ends - now)
            has_landed = flight.landed.acquire(timeout=max(patience_s, 0.0))
            now = monotonic()
            if has_landed:
                flight.landed.release()
                continue
            with self._lock:
                if self._flights.get(chunk) is flight and flight.ahead is not None:
                    flight.ahead = None
                    late.append(chunk)
            if ahead is not None:
                ahead.missed()
        return late

    def expect_decision(self, ahead: Ahead) -> None:
        """Have readers of what is not here wait until ``ahead`` says what it brings."""
        self._ahead = ahead

    def expect(self, chunks: list[int], ahead: Ahead) -> None:
        """Have readers of ``chunks`` that are not here wait for ``ahead`` to bring them."""
        with self._lock:
            for chunk in chunks:
                if chunk not in self._flights and not self.has_here(chunk):
                    self._flights[chunk] = Flight(ahead)

    def land_ahead(self, chunk: int, plain: bytes) -> None:
        """Land what somebody brings unasked, if it is not here yet.

        Raises:
            DigestMismatch: it is not that chunk.

        """
        with self._lock:
            if chunk not in self._flights:
                return
        digest = self.index.digest(chunk)
        check_digest(plain, digest, f"hot pack: chunk {printable(digest)}")
        aside = self.aside
        is_aside = aside is not None and aside.put(chunk, plain)
        self.fetchers.keep(chunk, digest, plain)
        self.fetched()
        self.counters.fetched_chunks += 1
        self.land(chunk, plain, is_kept=not is_aside)

    def abandon(self, ahead: Ahead) -> None:
        """Fetch what ``ahead`` does not bring after all and somebody waits for."""
        with self._lock:
            left = [(c, f) for c, f in self._flights.items() if f.ahead is ahead]
            for chunk, flight in left:
                flight.ahead = None
                if not flight.is_wanted:
                    del self._flights[chunk]
                    flight.error = BootfsError("not brought after all")
                    flight.landed.release()
        self.fetchers.change_claims([chunk for chunk, _ in left], ends=True)
        wanted = [chunk for chunk, flight in left if flight.is_wanted]
        if wanted:
            try:
                self.fetchers.queue(plan_ranges(self.index, wanted))
            except BaseException as error:
                self._crash_unlanded(left, error)
                raise

    def _collect(
        self,
        mine: list[tuple[int, Flight]],
        joined: list[tuple[int, Flight]],
        found: dict[int, bytes | memoryview],
        joins_failures: bool,
        until: float,
    ) -> list[int]:
        """Wait for flights and put their results into ``found``; return what others failed at.

        Raises:
            TimedOut: one has not landed at the `monotonic` time ``until``, 0 for never.
            BootfsError: one of ``mine`` failed, or of ``joined`` when there is no more time.

        """
        for chunk, flight in mine:
            self._wait_for(chunk, flight, until)
            if flight.result is None:
                raise flight.error or BootfsError(f"chunk {chunk}: fetch ended without result")
            found[chunk] = flight.result
        failed = []
        for chunk, flight in joined:
            self._wait_for(chunk, flight, until)
            if flight.result is not None:
                found[chunk] = flight.result
            elif joins_failures or (until and monotonic() > until - LAST_WORD_S):
                raise flight.error or BootfsError(f"chunk {chunk}: fetch ended without result")
            else:
                failed.append(chunk)
        return failed

    def _wait_for(self, chunk: int, flight: Flight, until: float) -> None:
        if flight.landed.acquire(timeout=max(until - monotonic(), 0.0) if until else -1):
            flight.landed.release()
            return
        digest = printable(self.index.digest(chunk))
        raise TimedOut(f"chunk {digest}: not here within {self._read_limit_s:g} s")

    def _read_cached(self, chunks: list[int]) -> dict[int, bytes | memoryview] | None:
        """Return neighbouring chunks, all of them cached and unharmed, or None.

        The way of every long read of a warm image: no flights, one read of the file.
        """
        cache = self._cache
        first, count = chunks[0], len(chunks)
        if cache is None or chunks[-1] - first != count - 1:
            return None
        if chunks != list(range(first, first + count)):
            return None
        plain = self._read_cache(cache, first, count)
        if plain is None:
            return None
        found, damaged = self._verify_run(first, count, plain)
        return None if damaged else found

    def want(self, chunks: list[int]) -> list[Flight]:
        """Begin to fetch those of ``chunks`` that are not here, without waiting for them.

        Returns what is under way of them; each of these lands, well or not.
        """
        with self._lock:
            under_way = [self._flights[c] for c in chunks if c in self._flights]
            missing = [c for c in chunks if c not in self._flights and not self.has_here(c)]
            mine = [(chunk, Flight()) for chunk in dict.fromkeys(missing)]
            self._flights.update(mine)
        if mine:
            try:
                self.fetchers.queue(plan_ranges(self.index, [chunk for chunk, _ in mine]))
            except BaseException as error:
                self._crash_unlanded(mine, error)
                raise
        return [*under_way, *(flight for _, flight in mine)]

    def wait_for(self, chunks: list[int], limit_s: float) -> bool:
        """Return whether what is under way of ``chunks`` has ended, well or not, in ``limit_s``."""
        with self._lock:
            flights = [self._flights[c] for c in chunks if c in self._flights]
        until = monotonic() + limit_s
        for flight in flights:
            if not flight.landed.acquire(timeout=max(until - monotonic(), 0.0)):
                return False
            flight.landed.release()
        return True

    def wait_until_landed(self) -> None:
        """Return when all fetches that are under way now have ended, well or not."""
        with self._lock:
            flights = list(self._flights.values())
        for flight in flights:
            with flight.landed:
                pass

    def is_quiet_for_s(self) -> float:
        """Return how long ago a reader last began to wait, or the image was opened."""
        return monotonic() - self._waited_s

    def has_here(self, chunk: int) -> bool:
        """Whether a read of the chunk would need no fetch, as far as one knows without it."""
        return (
            chunk in self._memory
            or (self._cache is not None and self._cache.has(chunk))
            or (self.aside is not None and self.aside.has(chunk))
        )

    def _start(self, chunks: list[int]) -> None:
        """See that the flights of ``chunks``, which are not cached, land by fetchers."""
        ranges = plan_ranges(self.index, chunks)
        if self._source.read_ahead:
            self._extend(ranges)
        self.fetchers.queue(ranges)

    def _extend(self, ranges: list[Range]) -> None:
        """Add the chunks that follow ``ranges`` in their pack, as far as a guess is worth it.

        They come in the same request, after what is wanted now, or beside it in further
        ones.  What comes in the time of another request is worth it (docs/decisions/0026-link.md),
        and twice as much as the last time for a reader that got here by reading on.
        """
        least = self._source.read_ahead
        if self._cache is not None:
            least = max(least, min(self._link.in_a_round_trip, RANGE_LIMIT, self.room))
        with self._lock:
            first = ranges[-1].chunks[0]
            budget = self._runs.pop(first, 0) * 2
            if budget <= least:
                goes_on = first - 1 in self._memory or first - 1 in self._flights
                budget = least * 2 if goes_on else least
            self._add_ahead(ranges, ranges[-1].chunks[-1] + 1, budget)

    def _read_on(self, chunks: list[int]) -> None:
        """Have more fetched where a reader has come to the middle of what was read ahead for it."""
        ranges: list[Range] = []
        with self._lock:
            for chunk in [self._marks.pop(c) for c in chunks if c in self._marks]:
                budget = self._runs.pop(chunk, 0) * 2
                start = self.index.offsets[chunk]
                more = [Range(self.index.packs[chunk], start, start, [])]
                self._add_ahead(more, chunk, budget)
                ranges += more if more[0].chunks else []
        if ranges:
            self.fetchers.queue(ranges)

    def _add_ahead(self, ranges: list[Range], chunk: int, budget: int) -> None:
        """Add the chunks from ``chunk`` on to the last of ``ranges``; with the lock.

        ``budget`` stored bytes at most, and as far as they lie one after the other in the
        pack and are neither here nor under way.
        """
        index = self.index
        packs, offsets, stored = index.packs, index.offsets, index.stored_sizes
        last = ranges[-1]
        pack = last.pack
        # What nothing but memory keeps may have gone when it is read.
        room = self.room if self._cache is not None else 0
        budget = min(budget, max(room, 2 * self._source.read_ahead))
        left = budget
        first = chunk
        while (
            chunk < index.chunk_count
            and packs[chunk] == pack
            and offsets[chunk] == last.end
            and stored[chunk] <= left
            and chunk not in self._flights
            and not self.has_here(chunk)
        ):
            if last.chunks and last.end - last.start >= RANGE_LIMIT:
                last = Range(pack, last.end, last.end, [])
                ranges.append(last)
            left -= stored[chunk]
            last.end += stored[chunk]
            last.chunks.append(chunk)
            self._flights[chunk] = Flight()
            chunk += 1
        if chunk in (first, index.chunk_count):
            return
        self._runs[chunk] = budget
        if len(self._runs) > RUNS:
            del self._runs[next(iter(self._runs))]
        if budget >= 4 * self._source.read_ahead:
            self._marks[(first + chunk) // 2] = chunk
            if len(self._marks) > RUNS:
                del self._marks[next(iter(self._marks))]

    def _read_cache(self, cache: Cache, first: int, count: int) -> memoryview | None:
        """Read from the cache; what must come from the disk is a wait like one for a fetch."""
        if not cache.is_at_hand(first, count):
            self.begin_wait()
        return cache.read(first, count)

    def land_cached(self, chunks: list[int]) -> list[int]:
        """Land those of ``chunks`` that are kept unharmed; return the others."""
        cache = self._cache
        aside = self.aside
        if aside is not None:
            chunks = [chunk for chunk in chunks if not self._land_aside(aside, chunk)]
        if cache is None:
            return chunks
        sizes = self.index.plain_sizes
        missing: list[int] = []
        at = 0
        while at < len(chunks):
            first = chunks[at]
            end = at + 1
            if not cache.has(first):
                missing.append(first)
                at = end
                continue
            size = sizes[first]
            while end < len(chunks) and chunks[end] == first + end - at and cache.has(chunks[end]):
                size += sizes[chunks[end]]
                if size > RANGE_LIMIT:
                    break
                end += 1
            plain = self._read_cache(cache, first, end - at)
            if plain is None:
                missing += chunks[at:end]
            else:
                found, damaged = self._verify_run(first, end - at, plain)
                for chunk, piece in found.items():
                    # Many at once are for the kernel to keep, and a piece here would keep
                    # them all.
                    self.land(chunk, piece, is_kept=end - at == 1)
                missing += damaged
            at = end
        return missing

    def _land_aside(self, aside: Aside, chunk: int) -> bool:
        plain = aside.get(chunk)
        if plain is None or digest_of(plain) != self.index.digest(chunk):
            return False
        self.land(chunk, plain)
        return True

    def _verify_run(
        self, first: int, count: int, plain: memoryview
    ) -> tuple[dict[int, bytes | memoryview], list[int]]:
        """Split what the cache holds of ``count`` chunks from ``first``.

        Returns the pieces that are what they should be, and the chunks whose are not: the
        cache has forgotten those, so that they are fetched again.
        """
        index = self.index
        found: dict[int, bytes | memoryview] = {}
        damaged: list[int] = []
        end = 0
        for chunk in range(first, first + count):
            start = end
            end += index.plain_sizes[chunk]
            piece: memoryview | None = plain[start:end]
            expected = index.digest(chunk)
            if digest_of(plain[start:end]) != expected:
                piece = self._read_again(chunk, expected)
            if piece is None:
                damaged.append(chunk)
            else:
                found[chunk] = piece
        self.counters.cache_hits += len(found)
        return found, damaged

    def _read_again(self, chunk: int, expected: bytes) -> memoryview | None:
        """Return a cached chunk that was wrong a moment ago; None, and forgotten, if it still is.

        It may have been given up and brought again while it was read, and once more after that
        where a cache is far too small.
        """
        cache = self._cache
        assert cache is not None
        piece = None
        for _ in range(AGAIN):
            if not cache.looks_present(chunk):
                # Given up, and perhaps being written at this moment.
                return None
            piece = cache.read(chunk)
            if piece is not None and digest_of(piece) == expected:
                return piece
        was_given_up = cache.forget(chunk)
        if piece is not None and any(piece) and not was_given_up:
            # A hole is a chunk that was given up, or never reached the disk.
            self.counters.cache_bad += 1
            self._log(f"cache: chunk {printable(expected)} is damaged; fetching it again")
        return None

    def land(self, chunk: int, plain: bytes | memoryview, is_kept: bool = True) -> None:
        """Give a chunk, whole and verified, to its readers, and keep it in memory for others."""
        with self._lock:
            flight = self._flights.pop(chunk, None)
            if is_kept and chunk not in self._memory:
                self._memory[chunk] = plain
                self._memory_left -= len(plain)
                while self._memory_left < 0:
                    oldest = next(iter(self._memory))
                    self._memory_left += len(self._memory.pop(oldest))
        if flight is not None:
            flight.result = plain
            flight.landed.release()

    def _crash_unlanded(self, flights: list[tuple[int, Flight]], error: BaseException) -> None:
        """End those of ``flights`` that are still ours to end."""
        with self._lock:
            left = [chunk for chunk, flight in flights if self._flights.get(chunk) is flight]
        self.crash(left, BootfsError(f"fetch not begun: {error!r}"))

    def unended(self, chunks: list[int]) -> list[int]:
        """Return those of ``chunks``, which are all under way by us, that have not landed."""
        with self._lock:
            return [chunk for chunk in chunks if chunk in self._flights]

    def crash(self, chunks: list[int], error: BootfsError) -> None:
        """Tell the readers of ``chunks`` that these do not come, and why."""
        for chunk in chunks:
            with self._lock:
                flight = self._flights.pop(chunk, None)
            if flight is not None:
                flight.error = error
                flight.landed.release()
