"""Run a container and note when it says something: READY, or else its first line."""

from __future__ import annotations

import queue
import subprocess
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

READY = b"READY"
OUR_OWN = b"bootfs"
"""How lines begin that the supervisor writes, not the workload."""

PATIENCE_S = 30.0
"""How long a workload may take until its first line, or its end."""

HOPE_S = 3.0
"""How long after its first line READY is waited for."""


class Mark(Enum):
    """The moment that a run is timed to; the value says it in words."""

    READY = "its line READY"
    LINE = "its first line"
    EXIT = "its end"
    NOTHING = "nothing: it wrote no line and did not end"


@dataclass(frozen=True)
class Run:
    """One run, up to the best mark that it reached."""

    marks: dict[Mark, float]
    """Seconds from the start of `docker run`."""
    exit_code: int | None
    """None: it was still running, and was stopped."""
    output: str

    @property
    def best(self) -> Mark:
        """Give the first mark of READY, LINE, EXIT that was reached."""
        return next((mark for mark in Mark if mark in self.marks), Mark.NOTHING)


def run_container(options: Sequence[str], image: str, *, until: Mark | None = None) -> Run:
    """Run `image` until it reaches `until`, or (None) until its best mark is known.

    What still runs afterwards is stopped and removed.
    """
    name = f"bootfs-demo-{uuid.uuid4().hex[:8]}"
    lines: queue.Queue[tuple[float, bytes | None]] = queue.Queue()
    marks: dict[Mark, float] = {}
    output: list[bytes] = []
    begun = time.monotonic()
    with subprocess.Popen(
        ["docker", "run", "--rm", "--name", name, *options, image],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:

        def listen() -> None:
            assert process.stdout
            for line in process.stdout:
                lines.put((time.monotonic() - begun, line))
            lines.put((time.monotonic() - begun, None))

        listener = threading.Thread(target=listen)
        listener.start()
        deadline = PATIENCE_S
        while True:
            try:
                at, line = lines.get(timeout=max(0.0, deadline - (time.monotonic() - begun)))
            except queue.Empty:
                break
            if line is None:
                marks[Mark.EXIT] = at
                break
            output.append(line)
            if line.strip() == READY:
                marks[Mark.READY] = at
            if not line.startswith(OUR_OWN) and Mark.LINE not in marks:
                marks[Mark.LINE] = at
                if until is None:
                    deadline = at + HOPE_S
            if Mark.READY in marks or (until is not None and until in marks):
                break
        exit_code = _finish(process, name, ends_soon=Mark.EXIT in marks or Mark.READY in marks)
        listener.join()
    return Run(marks, exit_code, b"".join(output).decode(errors="replace"))


def _finish(process: subprocess.Popen[bytes], name: str, *, ends_soon: bool) -> int | None:
    try:
        return process.wait(HOPE_S if ends_soon else 0)
    except subprocess.TimeoutExpired:
        subprocess.run(["docker", "rm", "-f", "-v", name], capture_output=True, check=False)
        process.wait()
        return None
