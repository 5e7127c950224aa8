"""Compare what two runs printed, line by line, without what differs between any two runs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher

VARYING_STATUS = re.compile(
    r"(Tgid|Ngid|Pid|PPid|TracerPid|NStgid|NSpid|NSpgid|NSsid|Vm\w+|Rss\w+|SigQ"
    r"|(non)?voluntary_ctxt_switches|x86_\w+)\s*:.*"
)
REPLACED = (
    # Names that tests give, and ids that the engine gives.
    (re.compile(r"bootfs-test-[0-9a-f]{10}-\d+"), "NAME"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "ID"),
    (re.compile(r"\b[0-9a-f]{12}\b"), "HOST"),
    # Addresses on the engine's networks.
    # `getent hosts` fills up to a width, and addresses are not equally long.
    (re.compile(r"\b172\.\d+\.\d+\.\d+ {2,}"), "ADDRESS  "),
    (re.compile(r"\b172\.\d+\.\d+\.\d+\b"), "ADDRESS"),
    # What is in it is compared too; an address may be a digit longer than another.
    (re.compile(r"\b\d+ +/etc/hosts$"), "SIZE /etc/hosts"),
    (re.compile(r"\b02:42(:[0-9a-f]{2}){4}\b"), "HARDWARE"),
    # Numbers of processes, but 0 and 1; of pipes, sockets and terminals.
    (re.compile(r"/proc/(?!1\b)\d+"), "/proc/PID"),
    (re.compile(r"\b(pid|parent) (?!0\b|1\b)\d+"), r"\1 PID"),
    (re.compile(r"\b(pipe|socket|anon_inode):\[\d+\]"), r"\1:[N]"),
    (re.compile(r"/dev/pts/\d+"), "/dev/pts/N"),
    # Times of this year and later, which are those of the run.
    (
        re.compile(r"\b20(2[6-9]|[3-9]\d)-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?( ?[+-]\d{4}|Z)?"),
        "TIME",
    ),
)
UNORDERED = {
    "mounts",
    "this process",
    "control groups",
    "environment",
    "first environment",
    "names",
}
"""Sections whose lines come in an order that nobody chose."""


@dataclass(frozen=True)
class Difference:
    """A line that the plain run has and the booted one has otherwise, or lacks, or has alone."""

    section: str
    plain: str | None
    booted: str | None

    def __str__(self) -> str:
        lines = (f"{sign} {line}" for sign, line in (("-", self.plain), ("+", self.booted)))
        return f"[{self.section}]\n" + "\n".join(
            line for line in lines if not line.endswith("None")
        )


def differences(plain: str, booted: str) -> list[Difference]:
    """Give the differences of two outputs in sections, each begun by a line ``== NAME``."""
    ours, theirs = sections(plain), sections(booted)
    found = []
    for name in dict.fromkeys([*ours, *theirs]):
        found += _of_section(name, ours.get(name, []), theirs.get(name, []))
    return found


def _of_section(name: str, plain: list[str], booted: list[str]) -> list[Difference]:
    found = []
    matcher = SequenceMatcher(None, plain, booted, autojunk=False)
    for kind, start, end, other_start, other_end in matcher.get_opcodes():
        if kind == "equal":
            continue
        left: list[str | None] = [*plain[start:end]]
        right: list[str | None] = [*booted[other_start:other_end]]
        if len(left) != len(right):
            # Which belongs to which cannot be said.
            left, right = [*left, *(None for _ in right)], [*(None for _ in left), *right]
        found += [Difference(name, one, other) for one, other in zip(left, right, strict=True)]
    return found


def sections(text: str) -> dict[str, list[str]]:
    """Give the lines of each section, normalised."""
    found: dict[str, list[str]] = {"": []}
    lines = found[""]
    for line in text.replace("\r\n", "\n").splitlines():
        if line.startswith("== "):
            name = line.removeprefix("== ")
            lines = found.setdefault(name, [])
        else:
            lines.append(line)
    return {name: _normalised(name, lines) for name, lines in found.items()}


def _normalised(section: str, lines: list[str]) -> list[str]:
    if section == "mounts":
        lines = [_mount(line) for line in lines]
    if section in ("status", "first process"):
        lines = [line for line in lines if not VARYING_STATUS.fullmatch(line)]
    for pattern, instead in REPLACED:
        lines = [pattern.sub(instead, line) for line in lines]
    return sorted(lines) if section in UNORDERED else lines


def _mount(line: str) -> str:
    """Give a line of mountinfo without the numbers of mounts and devices."""
    left, _, right = line.partition(" - ")
    words = left.split(" ")
    if len(words) < 6:
        return line
    peers = [re.sub(r":\d+", ":N", word) for word in words[6:]]
    kind, source, options = right.split(" ", 2)
    if words[4] == "/":
        # Directories of the engine's, named by ids of layers.
        options = re.sub(r"=/[^,]*", "=PATH", options)
    return " ".join([*words[3:6], *peers, "-", kind, source, options])
