"""A hot pack on its way: all that a start will read, in one request and in that order.

A thread of its own asks for the image's profiles, chooses one, and streams its hot pack.
Chunks are verified and land as they are decompressed, so their readers wait for the
stream and not for a request of their own; where it is late, they do not wait for long.
A profile that is wrong, or none, costs time and nothing else (docs/decisions/0022-profiles.md).
"""

from __future__ import annotations

from _thread import allocate_lock, start_new_thread
from time import monotonic, sleep

from zstandard import ZstdDecompressor, ZstdError

from store.errors import (
    AccessDenied,
    BootfsError,
    FormatError,
    IntegrityError,
    NotFound,
    RemoteError,
)
from store.format.names import hot_pack_name, profiles_name
from store.format.profile import DOCUMENT_LIMIT, WINDOW, choose_profile, parse_profiles
from store.format.status import HOT_PACK
from store.read.fetch import have_landed
from store.read.fetchers import RENEW_S

DECISION_S = 1.0
"""So long at most does the first reader wait to hear whether what it wants is in a hot pack."""
NEAR_S = 0.25
"""What the stream brings within this time is waited for; a request of one's own takes as long."""
NEAR_SHARE = 0.25
"""So is what lies within this share of the hot pack: starts do not read in just the same order,
and who fetches what is on its way takes from the same link."""
FIRST_PATIENCE_S = 1.0
"""For so long do readers wait for the first byte."""
STALL_S = 0.5
"""Nobody waits for a stream that has brought nothing for so long."""
PACE_S = 0.25
"""How fast it is, is taken anew each time."""
CLAIMED = 4 << 20
"""Plain bytes ahead that other containers on the cache are told to wait for."""
WINDOW_STORED = 1 << 20
"""Stored bytes that are asked for together where a profile has no hot pack."""
PIECE = 128 << 10
"""Plain bytes that the decompressor gives at once."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from store.format.profile import Profile
    from store.interfaces import Streaming
    from store.read.cache import Cache
    from store.read.fetch import ChunkReader, Flight


class HotPack:
    """What is on its way for one start; see `store.interfaces.Ahead`."""

    def __init__(
        self,
        reader: ChunkReader,
        source: Streaming,
        cache: Cache | None,
        image: bytes,
        wanted: tuple[str, list[bytes]],
        log: Callable[[str], None],
        fetch_limit: int = 0,
    ) -> None:
        """Be for ``image``, by its chunk index's digest.

        ``wanted`` is the name of a profile, empty where the command beside it decides.  Of
        one without a hot pack so many plain bytes, ``fetch_limit``, are fetched, 0 for all.
        """
        self._fetch_limit = fetch_limit
        self.profile: Profile | None = None
        """What was chosen."""
        self.is_without = False
        """It is known that there is none."""
        self.is_over = False
        """It brings nothing, or nothing more."""
        self.is_others = False
        """Another container on this cache brings it."""
        self.without: Callable[[], None] = lambda: None
        """Called by the thread when that is known."""
        self.landed: Callable[[int], None] = lambda count: None
        """Called by the thread with the number of chunks of the profile that are here by now."""
        self.ended: Callable[[], None] = lambda: None
        """Called by the thread when it brings nothing more, whatever it has brought."""
        self._reader = reader
        self._source = source
        self._cache = cache
        self._image = image
        self._wanted = wanted
        self._log = log
        self._decided = allocate_lock()
        self._decided.acquire()
        self._ends: dict[int, int] = {}
        """Chunk to where it ends in the plain bytes of the hot pack."""
        self._total = 0
        """Plain bytes of the hot pack."""
        self._next = 0
        self._pending = bytearray()
        self._plain = 0
        """Plain bytes that have come."""
        self._expected_s = 0.0
        """When somebody first waited for it."""
        self._arrived_s = self._paced_s = 0.0
        self._paced = 0
        self._rate = 0.0
        """Plain bytes/s, lately."""
        self._received = 0
        self._renewed_s = 0.0
        self._is_renewed = False
        self._claimed = 0
        """Chunks from the first on that others were told of."""
        self._decompress: Callable[[bytes | memoryview], object] = lambda piece: None

    @property
    def is_streamed(self) -> bool:
        """Whether all that the start reads comes in one piece, to this container or another."""
        profile = self.profile
        return self.is_others or (profile is not None and profile.hot_pack_size > 0)

    def start(self) -> None:
        """Begin, in a thread of its own; without one it is as if there were no profile."""
        try:
            start_new_thread(self.run, ())
        except RuntimeError:
            # The container may have no more threads.
            self._log(
                "profile: no thread to fetch it by: what the start reads is fetched when it is "
                "read, which takes longer, and nothing else is lost; give the container a larger "
                "--pids-limit"
            )
            self.is_over = True
            self._decided.release()
            self.is_without = True

    def wait_until_decided(self) -> None:
        """Return when one knows what is on its way, or that is not known in time."""
        self.decides_within(DECISION_S)

    def decides_within(self, limit_s: float) -> bool:
        """Return whether one knows what is on its way within ``limit_s``, as soon as one does."""
        is_decided = self._decided.acquire(timeout=limit_s)
        if is_decided:
            self._decided.release()
        return is_decided

    def patience_s(self, chunk: int) -> float:
        """Return how long to wait for a chunk that is on its way; 0 where that is no use."""
        now = monotonic()
        if not self._plain:
            # Once for all of them: some servers have all of it before they give any.
            self._expected_s = self._expected_s or now
            return max(self._expected_s + FIRST_PATIENCE_S - now, 0.0)
        if now - self._arrived_s > STALL_S:
            return 0.0
        left = self._ends[chunk] - self._plain
        left_s = left / self._rate if self._rate else 0.0
        is_near = left_s <= NEAR_S or left <= NEAR_SHARE * self._total
        return NEAR_S + 2 * left_s if is_near else 0.0

    def missed(self) -> None:
        """Have other containers leave the hot pack to this one while its first byte is late.

        From that byte on the thread that takes them sees to it.
        """
        if self._received or self._is_renewed:
            return
        self._is_renewed = True
        try:
            start_new_thread(self._renew_until_begun, ())
        except RuntimeError:
            # The container may have no more threads: others may fetch it too.
            return

    def _renew_until_begun(self) -> None:
        while not self._received and not self.is_over:
            if self.profile is not None:
                self._reader.fetchers.renew_claims([], self.profile.hot_pack)
            sleep(RENEW_S)

    def run(self) -> None:
        """Bring everything, or what can be had of it."""
        profile = None
        try:
            try:
                profile = self._choose()
                if profile is not None:
                    self._check(profile)
                if profile is not None and profile.hot_pack_size:
                    self._reader.expect(list(profile.chunks), self)
            finally:
                self._decided.release()
                if self.profile is None and not self.is_others:
                    self.is_without = True
                    self.without()
            if profile is not None and profile.hot_pack_size:
                self._stream(profile)
            elif profile is not None:
                self._fetch(profile)
        except (BootfsError, OSError, ZstdError) as error:
            self._log(f"profile: {error}; going on without")
        except Exception as error:
            # A fault of ours: readers fetch for themselves.
            self._log(f"profile: {error!r}; going on without")
        finally:
            self.is_over = True
            self._reader.abandon(self)
            if profile is not None:
                self._reader.fetchers.release_claim(profile.hot_pack)
            self.ended()

    def _choose(self) -> Profile | None:
        """Return the profile of this start; None where there is none, or others fetch it."""
        document = bytearray()
        name = profiles_name(self._image)
        chosen, command = self._wanted
        try:
            self._source.stream(name, DOCUMENT_LIMIT, document.extend)
        except (NotFound, AccessDenied, RemoteError) as error:
            # Some stores say that something must not be read where there is nothing.  Where
            # the store is away, whoever wants a chunk says so.
            if chosen:
                self._log(f"no profile {chosen!r}: {error}")
            return None
        where = f"{self._source.location}/{name}"
        profile = choose_profile(
            parse_profiles(bytes(document), self._image, where), chosen, command
        )
        if profile is None:
            if chosen:
                self._log(f"no profile {chosen!r} in {where}")
            return None
        is_streamed = profile.hot_pack_size > 0
        cache = self._cache
        if is_streamed and cache is not None and not cache.claims.take(profile.hot_pack):
            # Another container on this cache fetches all this now.
            self.is_others = True
            return None
        return profile

    def _check(self, profile: Profile) -> None:
        """Take a profile whose chunks there are.

        Raises:
            FormatError: it names chunks that there are not, or one of them twice.

        """
        index = self._reader.index
        end = 0
        for chunk in profile.chunks:
            if chunk >= index.chunk_count or chunk in self._ends:
                raise FormatError(
                    f"{self._source.location}/{profiles_name(self._image)}", 0,
                    f"profile {profile.name!r} names chunk {chunk} wrongly",
                )  # fmt: skip
            end += index.plain_sizes[chunk]
            self._ends[chunk] = end
        self._total = end
        self.profile = profile

    def _fetch(self, profile: Profile) -> None:
        """Fetch a profile's chunks from the packs, some ahead of those that have landed.

        One window is under way while the next is asked for, so that who wants something
        else meanwhile finds fetchers and most of the link.
        """
        stored = self._reader.index.stored_sizes
        before: list[Flight] = []
        window: list[int] = []
        size = 0
        if self._fetch_limit:
            # Who reads whole files knows better what comes next.
            plain = self._reader.index.plain_sizes
            for chunk in profile.chunks:
                size += plain[chunk]
                if size > self._fetch_limit:
                    break
                window.append(chunk)
            self._reader.want(window)
            return
        for place, chunk in enumerate(profile.chunks):
            window.append(chunk)
            size += stored[chunk]
            if size < WINDOW_STORED and place + 1 < len(profile.chunks):
                continue
            flights = self._reader.want(window)
            if not have_landed(before):
                return
            before, window, size = flights, [], 0
        if have_landed(before):
            self.landed(len(profile.chunks))

    def _stream(self, profile: Profile) -> None:
        """Land all chunks as they come.

        Raises:
            BootfsError, ZstdError: something is wrong; what landed is right.

        """
        name = hot_pack_name(profile.hot_pack)
        decompressor = ZstdDecompressor(max_window_size=WINDOW)
        # A write is all that it calls, whatever its annotations want.
        plain: Any = _Plain(self._write)
        self._decompress = decompressor.stream_writer(plain, write_size=PIECE).write
        begun_s = monotonic()
        is_failed = True
        try:
            self._source.stream(name, profile.hot_pack_size, self._arrived)
            is_failed = False
        finally:
            counts = self._reader.counts
            counts.add_request(HOT_PACK, 0, self._received, self._next, begun_s, is_failed)
        if self._next < len(profile.chunks):
            where = f"{self._source.location}/{name}"
            raise IntegrityError(f"{where}: {self._next} of {len(profile.chunks)} chunks")

    def _arrived(self, piece: memoryview) -> None:
        profile = self.profile
        assert profile is not None
        now = monotonic()
        self._arrived_s = now
        self._received += len(piece)
        if now - self._paced_s >= PACE_S:
            if self._paced_s:
                self._rate = (self._plain - self._paced) / (now - self._paced_s)
            self._paced_s, self._paced = now, self._plain
        self._claim(profile, now)
        self._decompress(piece)
        self.landed(self._next)

    def _claim(self, profile: Profile, now: float) -> None:
        """Tell other containers of what comes soon.  Here, while the kernel takes what comes."""
        first = self._claimed
        while self._claimed < len(profile.chunks):
            if self._ends[profile.chunks[self._claimed]] > self._plain + CLAIMED:
                break
            self._claimed += 1
        if self._claimed > first:
            self._reader.fetchers.claim(list(profile.chunks[first : self._claimed]))
        if now - self._renewed_s >= RENEW_S:
            self._renewed_s = now
            under_way = list(profile.chunks[self._next : self._claimed])
            self._reader.fetchers.renew_claims(under_way, profile.hot_pack)

    def _write(self, piece: memoryview) -> None:
        """Take plain bytes, and land what is whole.

        Raises:
            IntegrityError: they are not what they should be, or more.

        """
        profile = self.profile
        assert profile is not None
        reader = self._reader
        pending = self._pending
        pending += piece
        at = 0
        while self._next < len(profile.chunks):
            chunk = profile.chunks[self._next]
            size = reader.index.plain_sizes[chunk]
            if at + size > len(pending):
                break
            reader.land_ahead(chunk, bytes(memoryview(pending)[at : at + size]))
            at += size
            self._next += 1
            self._plain += size
        else:
            if at < len(pending):
                where = f"{self._source.location}/{hot_pack_name(profile.hot_pack)}"
                raise IntegrityError(f"{where}: more than its chunks")
        del pending[:at]


class _Plain:
    """What a decompressor writes to."""

    def __init__(self, write: Callable[[memoryview], None]) -> None:
        self._write = write

    def write(self, piece: memoryview) -> int:
        self._write(piece)
        return len(piece)
