"""Run a boot image by the local engine until its workload is ready, through its API."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from docker.errors import NotFound as EngineNotFound
from docker.types import LogConfig

from converter.conditions import EXIT, LOG, SECONDS, Condition
from converter.images.daemon import open_engine
from converter.images.recorded import read_container_traces
from converter.images.view import JsonObject
from converter.runoptions import RunOptions
from store.errors import BootfsError, NotFound, TimedOut, UsageError
from store.format.trace import Trace

_PAUSE_S = 0.05
_LINES = 1000
"""So many of the last lines are looked at, some twenty times a second."""
_SHOWN_LINES = 8
BOOT_OPTIONS: dict[str, list[str]] = {
    "cap_add": ["SYS_ADMIN"],
    "devices": ["/dev/fuse"],
    "security_opt": ["apparmor=unconfined"],
}
"""What a boot image needs for mode ``erofs``."""


class _Api(Protocol):
    """What is used of docker-py's ``APIClient``."""

    def create_host_config(self, **options: Any) -> JsonObject: ...

    def create_container(self, image: str, command: list[str] | None, **options: Any) -> Any: ...

    def start(self, container: str) -> None: ...

    def logs(self, container: str, **options: Any) -> bytes: ...

    def inspect_container(self, container: str) -> JsonObject: ...

    def remove_container(self, container: str, **options: Any) -> None: ...


@dataclass(frozen=True, slots=True)
class Run:
    """What to run, and until when."""

    image_id: str
    image: bytes
    """Raw digest of the chunk index."""
    command: list[str]
    """Instead of the image's arguments; empty: those."""
    options: RunOptions
    until: Condition
    timeout_s: float
    allows_failure: bool


@dataclass(slots=True)
class Recorded:
    """One run: what it read until its workload was ready."""

    traces: list[Trace]
    ready_s: float
    """From the start of the container."""
    warnings: list[str] = field(default_factory=list)


class _Output:
    """What a container has written by now, both streams together, as far as it is kept."""

    def __init__(self, engine: _Api, name: str) -> None:
        self._engine = engine
        self._name = name

    def text(self) -> str:
        """Return the last lines of it."""
        said = self._engine.logs(self._name, stdout=True, stderr=True, tail=_LINES)
        return said.decode("utf-8", "backslashreplace")

    def last(self) -> str:
        """Return some of the last lines, for messages."""
        lines = [f"  {line}" for line in self.text().splitlines()[-_SHOWN_LINES:]]
        return "\n".join(["; it said last:", *lines]) if lines else "; it said nothing"


def record_run(run: Run, report: Callable[[str], None]) -> Recorded:
    """Run a container until its workload is ready, and return what it read by then.

    Container and volumes are removed, however this ends.  ``report`` is told of traces that
    cannot be read.

    Raises:
        UsageError: the container has no address, and the condition needs one.
        TimedOut: the workload was not ready in time.
        BootfsError: it ended before, or failed.
        NotFound: nothing was recorded.
        Unreachable, AccessDenied, RemoteError: the engine does not answer, or refused.

    """
    name = f"bootfs-trace-{uuid.uuid4().hex[:12]}"
    with open_engine(name) as client:
        engine = cast("_Api", client)
        with _container(engine, name, run) as output:
            ready_s = _wait(engine, name, run, output)
            traces = _take(name, run, report)
            said = [line for line in output.text().splitlines() if line.startswith("bootfs:")]
    return Recorded(traces, ready_s, [line for line in said if "record" in line])


@contextmanager
def _container(engine: _Api, name: str, run: Run) -> Iterator[_Output]:
    """Give the output of a container that was started; it is removed with its volumes."""
    # One that can be read, whatever the engine does with others.
    host = {**run.options.host, "log_config": LogConfig(type=LogConfig.types.JSON)}
    for key, values in BOOT_OPTIONS.items():
        host[key] = [*values, *host.get(key, [])]
    try:
        engine.create_container(
            run.image_id,
            run.command or None,
            name=name,
            environment=run.options.environment,
            host_config=engine.create_host_config(**host),
            **run.options.container,
        )
        engine.start(name)
        yield _Output(engine, name)
    finally:
        with suppress(EngineNotFound):  # it may not have been made
            engine.remove_container(name, v=True, force=True)


def _wait(engine: _Api, name: str, run: Run, output: _Output) -> float:
    """Return after how many seconds the workload was ready."""
    started = time.monotonic()
    until = run.until
    limit_s = max(run.timeout_s, until.seconds + 1 if until.kind == SECONDS else 0)
    while True:
        state = engine.inspect_container(name)
        passed_s = time.monotonic() - started
        has_ended = not state["State"]["Running"]
        if until.kind == LOG and until.text in output.text():
            return passed_s
        if until.kind == SECONDS and passed_s >= until.seconds:
            return passed_s
        if not has_ended and until.needs_address and until.is_answered(_address(state)):
            return time.monotonic() - started
        if has_ended:
            _check_end(int(state["State"]["ExitCode"]), run, output)
            return passed_s
        if passed_s > limit_s:
            raise TimedOut(
                f"the workload was not ready ({until}) in {run.timeout_s:g} s; give another "
                f"--until, or a longer --timeout{output.last()}"
            )
        time.sleep(_PAUSE_S)


def _check_end(code: int, run: Run, output: _Output) -> None:
    """Return when a container may end as it did.

    Raises:
        BootfsError: it was to go on, or it failed.

    """
    if run.until.kind not in (EXIT, SECONDS):
        raise BootfsError(
            f"the workload ended, with exit status {code}, before it was ready ({run.until})"
            f"{output.last()}"
        )
    if code and not run.allows_failure:
        raise BootfsError(
            f"the workload failed with exit status {code}; --allow-failure takes what it read "
            f"all the same{output.last()}"
        )


def _address(state: JsonObject) -> str:
    """Return where a container can be reached from this machine.

    Raises:
        UsageError: nowhere.

    """
    if state["HostConfig"]["NetworkMode"] == "host":
        return "127.0.0.1"
    networks = state["NetworkSettings"]["Networks"] or {}
    for network in networks.values():
        address = network.get("IPAddress") or network.get("GlobalIPv6Address")
        if address:
            return str(address)
    raise UsageError(
        "the container has no address to connect to; give --until log:TEXT, or another --network"
    )


def _take(name: str, run: Run, report: Callable[[str], None]) -> list[Trace]:
    try:
        traces = [found.trace for found in read_container_traces(name, run.image, report)]
    except NotFound:
        traces = []
    if not any(trace.reads for trace in traces):
        raise NotFound(
            "the run recorded no read of the image: is it one of a release that cannot record? "
            "convert it again"
        )
    return traces
