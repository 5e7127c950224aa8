"""Several stores with the same objects: the first that works is asked, and another where it fails.

Imported only where ``BLOB_STORE`` names more than one.  Reasons and numbers:
docs/decisions/0012-mirrors.md.
"""

from __future__ import annotations

from _thread import allocate_lock
from time import monotonic, sleep

from store.errors import (
    AccessDenied,
    BootfsError,
    IntegrityError,
    NotFound,
    RemoteBusy,
    RemoteError,
    TimedOut,
    Unreachable,
    UsageError,
)
from store.format.shownurl import shown
from store.read.retry import FIRST_WAIT_S, LONGEST_WAIT_S, jittered, pause_before

PATIENCE_S = 5.0
"""A mirror that is silent for so long is left for the next: time for a SYN lost twice (1, 3 s)."""
TRIAL_PATIENCE_S = 1.0
"""The same where a mirror that had failed is tried again: somebody waits for that."""
SLOWEST_PACE = 4 << 10
"""Bytes/s; at less than that, after `PATIENCE_S`, the next mirror is asked."""
FIRST_REST_S = 1.0
LONGEST_REST_S = 60.0
"""How long a mirror that failed is left alone, twice as long each time, less up to a half."""
LONGEST_ASKED_REST_S = 600.0
"""The same where it asks to be left alone, by Retry-After."""
FORGIVEN_S = 2 * LONGEST_REST_S
"""So long after its last failure, a mirror's next one counts as its first."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from store.interfaces import Mirror


class Rest:
    """A mirror is left alone, as a whole or for one object, since it failed."""

    __slots__ = ("count", "failed_s", "is_left", "until_s", "wait_s")

    def __init__(self) -> None:
        self.count = 0
        """How many times it was left."""
        self.is_left = False
        self.failed_s = 0.0
        """When it failed last, by `monotonic`."""
        self.until_s = 0.0
        """When it is tried again."""
        self.wait_s = 0.0


class Unopened:
    """A mirror that could not be opened; in place of its source."""

    read_ahead = 0

    def __init__(self, location: str, error: BootfsError) -> None:
        self.location = location
        self._error = error

    def dial(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    def fetch(
        self, name: str, offset: int, size: int, arrived: Callable[[memoryview], None] | None = None
    ) -> bytes:
        """Raise why it was not opened, as an error that asking again cannot help."""
        raise RemoteError(str(self._error))

    def fetch_once(
        self,
        name: str,
        offset: int,
        size: int,
        arrived: Callable[[memoryview], None] | None,
        limit_s: float,
        patience_s: float,
    ) -> bytes:
        """Raise the same."""
        return self.fetch(name, offset, size, arrived)

    def stream(self, name: str, limit: int, arrived: Callable[[memoryview], None]) -> int:
        """Raise the same."""
        raise RemoteError(str(self._error))


class Mirrors:
    """Objects of stores that hold the same; a `Source`.

    The first mirror is asked, in the order that the user gave, that is not left alone.
    One that fails is left alone for a while: as a whole, or where it only lacks an object
    or has other bytes of it, for this object.
    """

    def __init__(
        self,
        urls: str,
        read_limit_s: float,
        log: Callable[[str], None],
        open_mirror: Callable[[str], Mirror],
    ) -> None:
        """Open them all, each by ``open_mirror`` with its URL.

        Raises:
            UsageError: one of them is no store.
            AccessDenied, Unreachable: none of them can be opened.

        """
        self.location = shown(urls)
        self._limit_s = read_limit_s
        self._log = log
        self._lock = allocate_lock()
        self._rests: dict[tuple[Mirror, str], Rest] = {}
        """By mirror, and the object's name; empty for all objects."""
        self._mirrors: list[Mirror] = []
        problems: list[BootfsError] = []
        for url in urls.split("|"):
            try:
                if not url:
                    raise UsageError(
                        f"{shown(urls)!r}: a store without a name beside a '|'; leave that out"
                    )
                self._mirrors.append(open_mirror(url))
            except (AccessDenied, Unreachable) as error:
                problems.append(error)
                self._mirrors.append(Unopened(shown(url), error))
            except UsageError:
                self.close()
                raise
        if len(problems) == len(self._mirrors):
            raise _in_common(problems, "; ".join(map(str, problems)))
        self.read_ahead = self._mirrors[0].read_ahead

    def dial(self) -> None:
        """Connect to the first; the others are for when it fails."""
        self._mirrors[0].dial()

    def close(self) -> None:
        """Let go of what is open; no fetch may be under way."""
        for mirror in self._mirrors:
            mirror.close()

    def fetch(
        self, name: str, offset: int, size: int, arrived: Callable[[memoryview], None] | None = None
    ) -> bytes:
        """Return exactly ``size`` bytes of object ``name``; see `Source`.

        What ``arrived`` raises about wrong bytes is a failure of the mirror that gave them.
        """
        deadline = monotonic() + self._limit_s
        wait_s = FIRST_WAIT_S
        failures: dict[Mirror, str] = {}
        kinds: dict[Mirror, BootfsError] = {}
        wrong: set[Mirror] = set()
        turns = self._turns(name)
        while True:
            again: list[tuple[float, Mirror]] = []
            for place, (mirror, patience_s) in enumerate(turns):
                begun = monotonic()
                # Each of those that are left gets a share, and a share remains.
                share_s = (deadline - begun) / (len(turns) - place + 1)
                attempt = _Attempt(mirror, arrived, min(patience_s, share_s))
                try:
                    body = attempt.fetch(name, offset, size, deadline - begun)
                except BootfsError as error:
                    # A chunk that is wrong was told to be of all of them.
                    what = str(error).replace(f"{self.location}/", f"{mirror.location}/")
                    self._failed(mirror, name, error, what, begun)
                    failures[mirror], kinds[mirror] = what, error
                    is_first = isinstance(error, IntegrityError) and mirror not in wrong
                    if is_first:
                        wrong.add(mirror)
                    if error.retryable or is_first:
                        again.append((monotonic() + _asked_for_s(error), mirror))
                else:
                    self._worked(mirror, name, begun)
                    return body
            what = f"no mirror gives {name}: {'; '.join(failures.values())}"
            if not again:
                raise _in_common(list(kinds.values()), what)
            asked_s = min(again, key=_when)[0] - monotonic()
            pause_s = pause_before(deadline, wait_s, asked_s)
            if pause_s < 0:
                raise TimedOut(f"no success within {self._limit_s:g} s: {what}")
            sleep(pause_s)
            wait_s = min(wait_s * 2, LONGEST_WAIT_S)
            now = monotonic()
            turns = [(mirror, PATIENCE_S) for when, mirror in again if when <= now]
            turns = turns or [(min(again, key=_when)[1], PATIENCE_S)]

    def stream(self, name: str, limit: int, arrived: Callable[[memoryview], None]) -> int:
        """Give ``arrived`` a whole object as it comes, from the first mirror that begins to.

        See `Streaming`.  Where it fails nobody is left alone for it: what is streamed is
        only ever a help, and may be missing.
        """
        problems: list[BootfsError] = []
        begun = False

        def saw(piece: memoryview) -> None:
            nonlocal begun
            begun = True
            arrived(piece)

        for mirror, _ in self._turns(name):
            try:
                return mirror.stream(name, limit, saw)
            except BootfsError as error:
                if begun:
                    raise
                problems.append(error)
        what = f"no mirror gives {name}: {'; '.join(map(str, problems))}"
        raise _in_common(problems, what)

    def _turns(self, name: str) -> list[tuple[Mirror, float]]:
        """Return who is to be asked in turn, and how patiently: those that are left alone last.

        One whose rest is over is claimed for the caller, who tries it.
        """
        now = monotonic()
        turns: list[tuple[Mirror, float]] = []
        resting: list[tuple[float, Mirror]] = []
        with self._lock:
            for mirror in self._mirrors:
                rests = [r for key in ("", name) if (r := self._rests.get((mirror, key)))]
                left = [rest for rest in rests if rest.is_left]
                until_s = max((rest.until_s for rest in left), default=0.0)
                if until_s > now:
                    resting.append((until_s, mirror))
                elif not left:
                    turns.append((mirror, PATIENCE_S))
                else:
                    for rest in left:
                        rest.until_s = now + TRIAL_PATIENCE_S
                    turns.append((mirror, TRIAL_PATIENCE_S))
        if turns:
            # Nobody better comes after the last.
            turns[-1] = (turns[-1][0], PATIENCE_S)
        resting.sort(key=_when)
        return turns + [(mirror, PATIENCE_S) for _, mirror in resting]

    def _failed(
        self, mirror: Mirror, name: str, error: BootfsError, what: str, begun: float
    ) -> None:
        """Leave a mirror alone that failed in a try ``begun`` then."""
        is_of_object = isinstance(error, NotFound | IntegrityError)
        key = (mirror, name if is_of_object else "")
        with self._lock:
            rest = self._rests.setdefault(key, Rest())
            if rest.is_left and begun < rest.failed_s:
                return  # others failed at the same time
            now = monotonic()
            is_old = now - rest.failed_s > FORGIVEN_S
            rest.wait_s = FIRST_REST_S if is_old else min(rest.wait_s * 2, LONGEST_REST_S)
            rest.failed_s = now
            asked_s = min(_asked_for_s(error), LONGEST_ASKED_REST_S)
            rest.until_s = now + max(jittered(rest.wait_s), asked_s)
            is_news = not rest.is_left
            rest.is_left = True
            rest.count += is_news
            self._choose_read_ahead()
            times = f" (time {rest.count})" if rest.count > 1 else ""
        if is_news:
            objects = f" for {name}" if is_of_object else ""
            self._log(f"mirror {mirror.location} is left{objects}{times}: {what}")

    def _worked(self, mirror: Mirror, name: str, begun: float) -> None:
        """Return to a mirror where a try ``begun`` since its last failure went well."""
        for key in ("", name):
            rest = self._rests.get((mirror, key))
            if rest is None or not rest.is_left:
                continue
            with self._lock:
                if not rest.is_left or begun < rest.failed_s:
                    continue
                rest.is_left = False
                self._choose_read_ahead()
                times = f" (time {rest.count})" if rest.count > 1 else ""
            objects = f" for {key}" if key else ""
            self._log(f"mirror {mirror.location} is back{objects}{times}")

    def _choose_read_ahead(self) -> None:
        """Take that of the mirror that is asked now; with the lock."""
        for mirror in self._mirrors:
            rest = self._rests.get((mirror, ""))
            if rest is None or not rest.is_left:
                self.read_ahead = mirror.read_ahead
                return


class _Attempt:
    """One try at one mirror, given up where bytes come too slowly."""

    def __init__(
        self, mirror: Mirror, arrived: Callable[[memoryview], None] | None, patience_s: float
    ) -> None:
        self._mirror = mirror
        self._arrived = arrived
        self._patience_s = patience_s
        self._begun = monotonic()
        self._size = 0

    def fetch(self, name: str, offset: int, size: int, limit_s: float) -> bytes:
        self._size = size
        return self._mirror.fetch_once(
            name, offset, size, self._saw, max(limit_s, 0.001), max(self._patience_s, 0.001)
        )

    def _saw(self, body: memoryview) -> None:
        passed_s = monotonic() - self._begun
        is_slow = len(body) < min(self._size, passed_s * SLOWEST_PACE)
        if passed_s > self._patience_s and is_slow:
            raise TimedOut(
                f"{self._mirror.location}: only {len(body)} of {self._size} bytes "
                f"in {passed_s:.1f} s"
            )
        if self._arrived is not None:
            self._arrived(body)


def _asked_for_s(error: BootfsError) -> float:
    """Return how long the other side wants to be left alone."""
    return (error.retry_after_s or 0.0) if isinstance(error, RemoteBusy) else 0.0


def _when(entry: tuple[float, Mirror]) -> float:
    return entry[0]


def _in_common(errors: list[BootfsError], what: str) -> BootfsError:
    """Return an error that says ``what``, of the class that says what all of ``errors`` do."""
    for error in errors:
        if all(isinstance(other, type(error)) for other in errors):
            error.args = (what,)
            return error
    are_wrong = all(isinstance(error, IntegrityError) for error in errors)
    return IntegrityError(what) if are_wrong else RemoteError(what)
