"""Fuzz: python -m tests.fuzz TARGET… [--seconds N] [--jobs N] [--found DIR] [--keep]

Needs atheris (`pip install -e .[fuzz]`).  Without TARGET all are fuzzed.  New inputs go to
``DIR/TARGET``, findings to ``DIR/TARGET.finding-*``; ``--keep`` puts what reaches new code into
the corpus of the repository.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import resource
import subprocess
import sys
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from random import Random

PARALLEL = 1
INPUT_LIMIT_S = 10
"""What one input may take: all are small, and a second is far too long already."""
FOUND = 77
"""What a run that found something ends with, as libFuzzer's own findings do."""
MEMORY_BESIDE = 700 << 20
"""Address space of the fuzzer itself beyond what it has at the start, in bytes."""
_DONE = re.compile(r"#(\d+)\s+\w+\s+cov: (\d+) ft: (\d+) corp: (\d+)/")


def main() -> int:
    """Run one target in this process, or several in processes of their own."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", metavar="TARGET", nargs="*")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default: 60)")
    parser.add_argument("--jobs", type=int, default=PARALLEL, help="targets at a time")
    parser.add_argument("--found", type=Path, default=Path(".fuzz"), help="default: .fuzz")
    parser.add_argument("--keep", action="store_true", help="add what is new to the corpus")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if find_spec("atheris") is None:
        parser.error("atheris is missing: pip install -e .[fuzz]")
    options.found.mkdir(parents=True, exist_ok=True)
    if options.here:
        fuzz(options.targets[0], options.seconds, options.found)
    from tests.fuzz.targets import TARGETS

    unknown = set(options.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    names = options.targets or list(TARGETS)
    print(f"{'target':<16} {'executions':>10} {'a second':>8} {'edges':>6} {'new':>4}  findings")
    with ThreadPoolExecutor(options.jobs) as pool:
        runs = pool.map(lambda name: run(name, options.seconds, options.found), names)
        is_clean = True
        for name, found in zip(names, runs, strict=True):
            new = keep(name, options.found) if options.keep else 0
            executions, edges, findings = found
            rate = executions / options.seconds
            print(f"{name:<16} {executions:>10,} {rate:>8,.0f} {edges:>6,} {new:>4}  {findings}")
            sys.stdout.flush()
            is_clean = is_clean and not findings
    return 0 if is_clean else 1


def run(name: str, seconds: int, found: Path) -> tuple[int, int, str]:
    """Fuzz one target in a process of its own; return executions, edges and findings."""
    before = {path.name for path in found.glob(f"{name}.finding-*")}
    command = [sys.executable, "-m", "tests.fuzz", name, "--here", "--seconds", str(seconds)]
    log = found / f"{name}.log"
    with log.open("wb") as output:
        done = subprocess.run(
            [*command, "--found", str(found)], stdout=output, stderr=subprocess.STDOUT, check=False
        )
    executions = edges = 0
    for match in _DONE.finditer(log.read_text(errors="replace")):
        executions, edges = int(match[1]), int(match[2])
    findings = {path.name for path in found.glob(f"{name}.finding-*")} - before
    if done.returncode and not findings:
        return executions, edges, f"ended with {done.returncode}: see {log}"
    return executions, edges, ", ".join(sorted(findings))


def fuzz(name: str, seconds: int, found: Path) -> None:
    """Fuzz one target in this process, which ends with it."""
    import atheris

    # What is imported by then is not instrumented: the dressers' libraries need not be.
    with atheris.instrument_imports(include=["store", "boot", "converter"]):
        from tests.fuzz.targets import TARGETS
    from tests.fuzz.corpus import CORPUS

    target = TARGETS[name]

    def mutate(data: bytes, longest: int, seed: int) -> bytes:
        try:
            return changed(data, longest, seed)
        except Exception:
            # Of ours, not of what is fuzzed.  The fuzzer would take it for a hang.
            traceback.print_exc()
            os._exit(99)

    def changed(data: bytes, longest: int, seed: int) -> bytes:
        random = Random(seed)
        made = bytes(data)
        kind = random.random()
        if kind < 0.6:
            made = atheris.Mutate(made, longest)
        if kind > 0.5:
            made = target.edit(made, random)
        if target.words and random.random() < 0.4:
            at = random.randrange(len(made) + 1)
            end = at + random.choice((0, 0, random.randrange(20)))
            made = made[:at] + random.choice(target.words) + made[end:]
        if random.random() < 0.95:
            made = target.dress(made, random)
        return made[:longest]

    def check(data: bytes) -> None:
        try:
            target.check(data)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            traceback.print_exc()
            digest = hashlib.sha256(data).hexdigest()[:16]
            (found / f"{name}.finding-{digest}").write_bytes(data)
            os._exit(FOUND)

    new = found / name
    new.mkdir(exist_ok=True)
    arguments = [
        sys.argv[0],
        f"-max_total_time={seconds}",
        f"-max_len={target.longest}",
        f"-timeout={INPUT_LIMIT_S}",
        f"-rss_limit_mb={(MEMORY_BESIDE + target.memory) >> 20}",
        f"-artifact_prefix={found}/{name}.finding-",
        "-print_final_stats=1",
        f"-seed={int(time.time()) & 0x7FFFFFFF}",
        str(new),
        str(CORPUS / name),
    ]
    # What one input claims for itself alone, at once: the limit of resident memory comes late.
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = used + MEMORY_BESIDE + target.memory
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    atheris.Setup(arguments, check, custom_mutator=mutate)
    atheris.Fuzz()


def keep(name: str, found: Path) -> int:
    """Put into the corpus what a run found; return how many inputs are new there."""
    from tests.fuzz.corpus import add_to_corpus
    from tests.fuzz.targets import TARGETS

    inputs = [path.read_bytes() for path in (found / name).iterdir()]
    return add_to_corpus(TARGETS[name], inputs)


if __name__ == "__main__":
    sys.exit(main())
