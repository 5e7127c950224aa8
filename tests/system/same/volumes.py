"""Volumes, bind mounts and tmpfs: what is in them, whose it is, and what may be done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.system.same.cases import add, case

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.system.same.sides import Side

LISTING = (
    "for place in $PLACES; do stat -c '%F %a %u %g %n' $place;"
    " find $place -mindepth 1 ! -type d"
    " -printf '%y %m %U %G %n %s %TY-%Tm-%Td %TH:%TM:%TS %p %l\\n' | sort -k9;"
    " find $place -mindepth 1 -type d -printf '%y %m %U %G %p\\n' | sort -k5;"
    " done; echo == mounts; tr '\\r' _ </proc/self/mountinfo; echo == writing;"
    " for place in $PLACES; do touch $place/new 2>&1; (echo x >>$place) 2>&1; done"
)
"""Without times and links of directories, which engines do not keep."""

MOUNTED: dict[str, tuple[str, tuple[str, ...]]] = {
    "named": ("/content", ("-v", "NAME:/content")),
    "named-read-only": ("/content", ("-v", "NAME:/content:ro")),
    "named-nocopy": ("/content", ("-v", "NAME:/content:nocopy")),
    "named-by-mount": ("/content", ("--mount", "type=volume,source=NAME,target=/content")),
    "mount-nocopy": (
        "/content",
        ("--mount", "type=volume,source=NAME,target=/content,volume-nocopy"),
    ),
    "named-new-path": ("/new/path", ("-v", "NAME:/new/path")),
    "named-below": ("/content/below/deep", ("-v", "NAME:/content/below/deep")),
    "named-workdir-by-link": (
        "/content",
        ("-v", "NAME:/content", "-w", "/content/symbolic"),
    ),
    "named-over-accounts": ("/etc", ("-v", "NAME:/etc")),
    "named-by-link": ("/content/symbolic", ("-v", "NAME:/content/symbolic")),
    "anonymous": ("/content", ("-v", "/content")),
    "anonymous-of-user": ("/team", ("-v", "/team", "--user", "worker")),
    "nested": ("/content", ("-v", "NAME:/content", "-v", "/content/below")),
    "nested-other-order": ("/content", ("-v", "/content/below", "-v", "NAME:/content")),
    "nested-new-deep": (
        "/srv/some/deep/shared",
        ("-v", "NAME:/srv/some/deep/shared", "-v", "/srv/some/deep/shared/new/place"),
    ),
    "nested-new": ("/content", ("-v", "NAME:/content", "-v", "/content/new/place")),
    "bind": ("/content", ("-v", "DIRECTORY/some:/content")),
    "bind-read-only": ("/content", ("-v", "DIRECTORY/some:/content:ro")),
    "bind-missing-source": ("/content", ("-v", "DIRECTORY/made:/content")),
    "bind-new-path": ("/new/path", ("-v", "DIRECTORY/some:/new/path")),
    "bind-odd-name": ("/new/odd*", ("-v", "DIRECTORY/some:/new/odd\r\\ name")),
    "bind-by-mount": (
        "/new/path",
        ("--mount", "type=bind,source=DIRECTORY/some,target=/new/path,readonly"),
    ),
    "bind-missing-by-mount": (
        "/new/path",
        ("--mount", "type=bind,source=DIRECTORY/nothing,target=/new/path"),
    ),
    "bind-shared": ("/new/path", ("-v", "DIRECTORY/some:/new/path:rslave")),
    "bind-by-link": ("/var/run/x", ("-v", "DIRECTORY/some:/var/run/x")),
    "bind-in-bind": (
        "/content",
        ("-v", "DIRECTORY/some:/content", "-v", "DIRECTORY/other:/content/inner:ro"),
    ),
    "bind-over-volume": (
        "/content",
        ("-v", "NAME:/content", "-v", "DIRECTORY/some:/content/below"),
    ),
    "file-onto-file": ("/etc/passwd", ("-v", "DIRECTORY/some/file:/etc/passwd:ro")),
    "file-onto-link": ("/probe/link", ("-v", "DIRECTORY/some/file:/probe/link")),
    "file-new": ("/new/path", ("-v", "DIRECTORY/some/file:/new/path")),
    "file-onto-directory": ("/content", ("-v", "DIRECTORY/some/file:/content")),
    "directory-onto-file": ("/etc/passwd", ("-v", "DIRECTORY/some:/etc/passwd")),
    "engine-file-replaced": ("/etc/hosts", ("-v", "DIRECTORY/some/file:/etc/hosts")),
    "tmpfs": ("/content /run /new", ("--tmpfs", "/content", "--tmpfs", "/run", "--tmpfs", "/new")),
    "tmpfs-with-options": (
        "/tmp /new", ("--tmpfs", "/tmp:rw,size=1m,exec", "--tmpfs", "/new:mode=700,uid=4242"),
    ),
    "tmpfs-by-mount": (
        "/content/below",
        ("--mount", "type=tmpfs,target=/content/below,tmpfs-size=1m"),
    ),
    "tmpfs-deep": ("/var/lib/dpkg/info", ("--tmpfs", "/var/lib/dpkg/info")),
    "read-only-root": (
        "/content /new /run",
        ("--read-only", "-v", "NAME:/content", "-v", "/new", "--tmpfs", "/run"),
    ),
    "over-ours": ("/.bootfs", ("-v", "NAME:/.bootfs")),
    "device": ("/dev/other", ("-v", "/dev/zero:/dev/other")),
    "dev-shm": ("/dev/shm", ("--tmpfs", "/dev/shm:size=2m")),
    "proc-of-host": ("/host", ("-v", "/proc/sys:/host:ro")),
}  # fmt: skip
"""The paths that are shown, and the options."""

DECLARED = {
    "declared": "VOLUME /content /team /declared/new",
    "declared-and-changed": (
        "RUN mkdir /data && echo first >/data/file && chown -R worker /data\nVOLUME /data\n"
        "RUN echo lost >/data/lost"
    ),
    "declared-on-a-link": "VOLUME /content/symbolic",
    "declared-over-the-workdir": "VOLUME /content\nWORKDIR /content/below/deep",
    "declared-nested": 'VOLUME ["/content", "/content/below"]',
}
"""Instructions of an image that declares volumes."""


def _prepared(side: Side) -> None:
    some, other = side.directory / "some", side.directory / "other"
    for place in (some, other):
        place.mkdir()
        (place / "file").write_text(f"worker:x:4242:4242::/{place.name}:/bin/sh\n")
        (place / "file").chmod(0o640)
    some.chmod(0o751)


def _mounted(places: str, options: tuple[str, ...]) -> Callable[[Side], str]:
    def do(side: Side) -> str:
        _prepared(side)
        given = list(options)
        if "NAME" in " ".join(given):
            given = [word.replace("NAME", side.engine.volume()) for word in given]
        return side.run("bash", "-c", LISTING, options=["-e", f"PLACES={places}", *given])

    return do


def _declared(instructions: str) -> Callable[[Side], str]:
    places = "PLACES=/content /team /declared /data"
    return lambda side: side.run("bash", "-c", LISTING, options=("-e", places), image=instructions)


for _name, (_places, _options) in MOUNTED.items():
    add(f"mount-{_name}", _mounted(_places, _options), everywhere=_name == "named-workdir-by-link")
for _name, _instructions in DECLARED.items():
    add(f"volume-{_name}", _declared(_instructions))


@case()
def volumes_from(side: Side) -> str:
    """Two containers share volumes, and nothing else."""
    image = DECLARED["declared"]
    name = side.engine.volume()
    first = side.start(
        "bash", "-c", "echo first >/content/of-first; echo x >/root/mine; echo done; sleep 100",
        options=("-v", f"{name}:/named"), image=image,
    )  # fmt: skip
    first.wait_for_line("done")
    script = (
        "ls -A /content /named /root; echo second >/content/of-second; touch /named/x;"
        " grep -E ' /(content|named) ' /proc/self/mountinfo | wc -l"
    )
    second = side.run("bash", "-c", script, options=("--volumes-from", first.name), image=image)
    seen = first.run("ls", "-A", "/content", "/named", "/root").stdout
    read_only = side.run(
        "touch", "/content/x", options=("--volumes-from", f"{first.name}:ro"), image=image
    )
    return f"{second}== seen\n{seen}{read_only.replace('== ', '== read-only: ')}"


@case()
def volume_of_two_containers(side: Side) -> str:
    """A named volume keeps what was written, and is filled once."""
    name = side.engine.volume()
    options = ("-v", f"{name}:/content")
    first = side.run("bash", "-c", "rm -rf /content/*; echo x >/content/x", options=options)
    second = side.run("ls", "-A", "/content", options=options)
    return first + second.replace("== ", "== second: ")


@case()
def recreated_container(side: Side) -> str:
    """A container made anew with the volumes of the last one, as compose makes it, is fresh."""
    image = DECLARED["declared"]
    script = (
        "ls -A / | grep -v -e dockerenv; cat /root/state /content/state; echo x >>/root/state;"
        " echo x >>/content/state"
    )
    first = side.engine.start(side.image(image), "bash", "-c", script, options=side.options())
    first.wait()
    second = side.engine.start(
        side.image(image), "bash", "-c", script,
        options=side.options(("--volumes-from", first.name)),
    )  # fmt: skip
    second.wait()
    return f"== first\n{first.logs()}== second\n{second.logs()}"
