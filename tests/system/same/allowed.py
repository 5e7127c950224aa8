"""Which differences are listed in docs/differences.md, and by which entry."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.system.same.modes import MODES

if TYPE_CHECKING:
    from tests.system.same.comparing import Difference

LIST = Path("docs/differences.md")


@dataclass(frozen=True)
class Allowed:
    """A form of a listed difference; each field a regular expression for the whole."""

    entry: str
    """The id in docs/differences.md."""
    cases: str
    section: str
    plain: str | None
    """None: there is no such line."""
    booted: str | None

    def matches_case(self, case: str) -> bool:
        """Whether a case may show it."""
        return re.fullmatch(self.cases, case) is not None

    def fits(self, case: str, difference: Difference) -> bool:
        """Whether a difference has this form."""
        return (
            self.matches_case(case)
            and re.fullmatch(self.section, difference.section) is not None
            and _fits(self.plain, difference.plain)
            and _fits(self.booted, difference.booted)
        )


def _fits(pattern: str | None, line: str | None) -> bool:
    if pattern is None or line is None:
        return pattern is line
    return re.fullmatch(pattern, line) is not None


FOR_MOMENTS = {"nonblocking-open"}
"""Entries that a case shows or not, as it comes soon enough; tests of their own see them."""
ANY = ".*"
STARTED_BY_NOBODY = "|".join(
    (
        "docker: Error response from daemon: .*",
        "",
        "Run 'docker run --help' for more information",
        "exec /probe/.*",
    )
)
"""What the engine says of a program that it cannot start."""
NOT_EXECUTED = "command-(no-interpreter|no-shebang|empty-file|broken|below-a-file)"
STARTS = "(image|command|mount)-(?!.*workdir-(by-link|dangling)).*"
"""Cases in which something may not start."""
READ_ONLY = "run-read-only|mount-read-only-root|command-workdir-new-read-only"
NOT_STARTED = "bootfs: the image's programs are not there, since bootfs was not started: give .*"
REFUSED = r"bootfs: /\.bootfs/init runs only as PID 1 .*"

ALLOWED = (
    Allowed("root-mount", ANY, "mounts", "/ / .*", "/ / .*"),
    Allowed("root-mount", "file-operations", "output", "overlay", "fuse.*"),
    Allowed("fuse-device", ANY, "control groups", None, "c 10:229 rwm"),
    Allowed("fuse-device", ANY, "devices", None, "crw.* root root a:e5 '/dev/fuse'"),
    Allowed("fuse-device", ANY, "calls", "mknod and open fuse: EPERM", "mknod and open fuse: 0"),
    Allowed("fuse-device", ANY, "calls", "open /dev/fuse .*: ENOENT", "open /dev/fuse .*"),
    Allowed(
        "seccomp-filters", ANY, "status|first process",
        "Seccomp_filters:\t1", "Seccomp_filters:\t2",
    ),
    Allowed("apparmor", "run-.*", "security", "docker-default .*", "unconfined"),
    Allowed("own-variables", "run-network-none", "(first )?environment", "BLOB_STORE=.*", None),
    Allowed("directory-size", ANY, "directories", r"\d+ links, .*", r"\d+ links, .*"),
    Allowed("direct-io", "file-operations", "direct", None, ".*Invalid argument"),
    Allowed("copy-file-range", "file-operations", "range", ".*", ".*Invalid cross-device link"),
    Allowed("file-flags", "file-operations", "flags", "-.*", None),
    Allowed("file-flags", "file-operations", "flags", None, ".*Operation not supported.*"),
    Allowed("file-flags", "file-operations", "flags", "-.*", ".*Operation not supported.*"),
    Allowed(
        "extents", "file-operations", "extents",
        ".*: found", ".*: FIBMAP requires root privileges",
    ),
    Allowed("birth-time", "file-operations", "birth", "known", "0"),
    Allowed("acl", "file-operations", "acl", ANY, ".*Operation not supported"),
    Allowed("copy-up-rights", "run-cap-drop-all.*", "writing", "/(content|team) written", None),
    Allowed("copy-up-rights", "run-cap-drop-all-user", "calls", "chattr .*: 0", "chattr .*: EPERM"),
    Allowed("first-process", "run-.*", "first process", ANY, None),
    Allowed("first-process", "run-.*", "first process", None, ANY),
    Allowed("first-process", "run-.*", "first process", ANY, ANY),
    Allowed("first-process", "run-.*", "first environment", ANY, None),
    Allowed("first-process", "run-.*", "first environment", None, ".*: Permission denied"),
    Allowed("first-process", "run-.*", "this process", ANY, None),
    Allowed("first-process", "run-.*", "this process", None, ANY),
    Allowed("first-process", "run-.*", "namespaces", ".* as process 1", None),
    Allowed("first-process", ANY, "calls", "(kill 1|open /proc/1/.*): 0", ".*: (EACCES|EPERM)"),
    # Whoever may trace it sees what it has become.
    Allowed(
        "first-process", "run-(everything|cap-add)", "first environment",
        None, r"\\x[c-f][0-9a-f][A-Z0-9_]*=.*",
    ),
    Allowed("first-process", "command-killed", "exit code", "3", "137"),
    Allowed("first-process", "terminal", "output", r"1 1 \d+ 1", r"(\d+) \1 \d+ \1"),
    Allowed("own-files", ANY, "mounts", None, "/.* /.bootfs/(cache|rw) .*"),
    Allowed("own-files", "run-.*", "root", None, "drwxr-xr-x root root '/.bootfs'"),
    Allowed("own-files", "executed-in-it|file-operations", "(0 )?output", None, r"\.bootfs"),
    Allowed("own-files", "recreated-container", "first|second", None, r"\.bootfs"),
    Allowed("own-files", "whole-tree", "output", None, r"[a-z] .* /\.bootfs(/.*)?"),
    Allowed("own-files", "privileged-container", "output", r"\d+", r"\d+"),
    Allowed("hard-links", "file-operations", "output", None, "/opt/far/away/moved/one"),
    Allowed("read-only-option", READ_ONLY, "errors", None, "bootfs: .*"),
    Allowed("read-only-option", READ_ONLY, "exit code", "0|1", "125"),
    Allowed("read-only-option", READ_ONLY, ANY, ANY, None),
    Allowed("few-capabilities", "run-cap-drop-all.*", "exit code", "0", "125"),
    Allowed("few-capabilities", "run-cap-drop-all.*", ANY, ANY, None),
    Allowed(
        "few-capabilities", "run-cap-drop-all.*", "errors",
        None, "bootfs: cannot make /.* in the root: .*; add --cap-add .*",
    ),
    Allowed(
        "few-open-files", "run-limits", "errors",
        None, r"bootfs: mode eager: only 1024 files may be open \(--ulimit nofile\) .*",
    ),
    Allowed("read-only-volume", "mount-named-read-only", "exit code", "1", "125"),
    Allowed("read-only-volume", "mount-named-read-only", ANY, ANY, None),
    Allowed(
        "read-only-volume", "mount-named-read-only", "errors",
        None, "bootfs: cannot fill the new volume /content, which is mounted read-only: .*",
    ),
    Allowed(
        "beneath-mounts", "mount-(nested|bind-over).*|volume-declared-(nested|on-a-link)", "output",
        "f 644 4242 4343 2 5 .* /content/link ", "f 644 4242 4343 1 5 .* /content/link ",
    ),
    Allowed("sigstop", "stopped-by-signal", "stopped", "True", "False"),
    Allowed("entrypoint-option", "entrypoint-of-the-user", "exit code", "0", "127"),
    Allowed("entrypoint-option", "entrypoint-of-the-user", "output", "uid 0 .*", None),
    Allowed("entrypoint-option", "entrypoint-of-the-user", "errors", None, NOT_STARTED),
    Allowed("own-place", "mount-over-ours", "exit code", ANY, "125"),
    Allowed("own-place", "mount-over-ours", ANY, ANY, None),
    Allowed("own-place", "mount-over-ours", "errors", None, "bootfs: .*"),
    Allowed("init-option", "init-of-the-engine.*", "exit code", ANY, "126"),
    Allowed("init-option", "init-of-the-engine.*", "output", ANY, None),
    Allowed("init-option", "init-of-the-engine.*", "errors", None, REFUSED),
    Allowed("pid-option", "processes-of-.*", "exit code", "0", "126"),
    Allowed("pid-option", "processes-of-.*", "output", ANY, None),
    Allowed("pid-option", "processes-of-.*", "errors", None, REFUSED),
    Allowed("no-new-privileges", "no-new-privileges-as-a-user", "exit code", "0", "125"),
    Allowed("no-new-privileges", "no-new-privileges-as-a-user", "output", "uid=4242.*", None),
    Allowed(
        "no-new-privileges", "no-new-privileges-as-a-user", "errors",
        None, "bootfs: cannot become root .*: remove --security-opt no-new-privileges .*",
    ),
    Allowed(
        "nonblocking-open", "executed-in-it-as-seen-by-the-kernel", "calls",
        "open /probe/others to (read|write): 0", "open /probe/others to (read|write): EAGAIN",
    ),
    Allowed("start-errors", STARTS, "errors", STARTED_BY_NOBODY, None),
    Allowed("start-errors", STARTS, "errors", None, "bootfs: .*"),
    Allowed(
        "start-errors", STARTS, "errors", STARTED_BY_NOBODY, "bootfs: .*"
    ),
    Allowed("start-codes", NOT_EXECUTED, "exit code", "1|125|255", "126|127"),
    Allowed("nocopy", "mount-(named|mount)-nocopy", "output", "directory .* /content", None),
    Allowed("nocopy", "mount-(named|mount)-nocopy", "output", None, ".* /content.*"),
    Allowed(
        "nested-mount-point", "mount-nested-new-deep", "output",
        "d 2755 0 4343 /srv/some/deep/shared/new", "d 755 0 0 /srv/some/deep/shared/new",
    ),
    Allowed(
        "tmpfs-mode", "mount-tmpfs-deep", "output",
        "directory 755 0 0 /var/lib/dpkg/info", "directory 1777 0 0 /var/lib/dpkg/info",
    ),
    Allowed("exec-rights", "executed-in-it-as-.*", "status", "Cap...:.*", "Cap...:.*"),
    Allowed("exec-rights", "executed-in-it-as-.*", "calls", ".*: (EPERM|ENOSYS)", ".*: .*"),
    Allowed(
        "exec-rights", "executed-in-it-as-.*", "calls",
        "seccomp filter: EACCES", "seccomp filter: 0",
    ),
    Allowed(
        "exec-variables", "executed-in-it-as-.*", "environment", None, "(BLOB_STORE|BOOTFS_).*"
    ),
    Allowed(
        "exec-processes", "executed-in-it-as-.*", "names", None, "ld.so|bootfs-(daemon|keeper)"
    ),
    Allowed(
        "exec-processes", "executed-in-it-as-.*", "calls",
        "open /proc/1/.*: 0", "open /proc/1/.*: EACCES",
    ),
    Allowed("top", "top", "top", None, r".*(/\.bootfs/|bootfs-).*"),
    Allowed(
        "read-only-cache", "volumes-from", "read-only: errors",
        None, "bootfs: cache .*: Read-only file system; reading without a cache",
    ),
    Allowed("copy", "copied-out", "made|image", "0", "1"),
    Allowed("copy", "copied-in", "exit code", "0", "1"),
    Allowed("copy", "copied-in", "output", "in", None),
    Allowed("copy", "copied-in", "errors", None, "cat: /etc/in: No such file or directory"),
    Allowed("copy", "exported", "names", ANY, None),
    Allowed("diff", "changes", "changes", "[ACD] /.*", None),
    Allowed("diff", "changes", "changes", None, ""),
    Allowed("diff-of-all", "changes", "changes", "C /probe/others", "A /probe/others"),
    Allowed("diff-of-all", "changes", "changes", "C /probe/others", None),
    Allowed("diff-of-all", "changes", "changes", None, "A /probe/others"),
    Allowed("commit", "committed", "output", "new", "/probe/empty"),
    Allowed("commit", "committed", "errors", "ls: .*/probe/empty.*", "cat: /root/new: .*"),
    Allowed("build-on", "built-on", "runs", "True", "False"),
    Allowed("build-on", "built-on", "exit code", "0", "1"),
    Allowed("build-on", "built-on", "output", "added", None),
    Allowed("build-on", "built-on", "errors", None, "cat: /etc/added: No such file or directory"),
    Allowed("image-config", "inspected", "config", "Entrypoint .*", "Entrypoint .*bootfs/init.*"),
    Allowed("image-config", "inspected", "config", "Volumes .*", "Volumes .*bootfs/rw.*"),
    Allowed("image-config", "inspected", "config", "Labels .*", "Labels .*io.bootfs.release.*"),
    Allowed("image-config", "listed", "output", '"sleep 100"', '"/.bootfs/init sleep 100"'),
)  # fmt: skip
"""Every form in which a listed difference shows."""

UNSEEN = {"apparmor": lambda: not Path("/sys/kernel/security/apparmor").exists()}
"""What does not occur on every machine: entry, and whether it cannot here."""


@functools.cache
def read_entries() -> dict[str, tuple[str, ...]]:
    """Give the modes of each entry of docs/differences.md, by its id."""
    rows = [line.split("|") for line in LIST.read_text().splitlines() if line.startswith("| `")]
    modes = {row[1].strip(" `"): tuple(row[2].replace(" ", "").split(",")) for row in rows}
    return {entry: tuple(MODES) if named == ("all",) else named for entry, named in modes.items()}


def entry_of(case: str, mode: str, difference: Difference) -> str | None:
    """Give the entry that lists a difference, if one does."""
    entries = read_entries()
    for allowed in ALLOWED:
        if mode in entries.get(allowed.entry, ()) and allowed.fits(case, difference):
            return allowed.entry
    return None
