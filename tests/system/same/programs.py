"""What an image starts, as whom and where: ENTRYPOINT, CMD, USER, WORKDIR, and what fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.system.same.cases import add, case

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.system.same.sides import Side

WHERE = "pwd; stat -c '%n %F %a %u %g' . ..; id; env | sort"

EXEC_FORM = 'ENTRYPOINT ["static", "fixed", ""]'
WITH_CMD = 'ENTRYPOINT ["static"]\nCMD ["usual", "a b"]'
GO = (
    "RUN apt-get -qq update && apt-get -qq install -y --no-install-recommends gosu >/dev/null"
    " && ! ldd $(command -v gosu) >/dev/null 2>&1\n"
    'ENTRYPOINT ["gosu"]\nCMD ["--version"]'
)
"""A statically linked Go program, which becomes another user."""
NOTHING = "ENTRYPOINT []\nCMD []"

IMAGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "exec-form": (EXEC_FORM, ()),
    "exec-form-given": (EXEC_FORM, ("given", "")),
    "exec-form-and-cmd": (WITH_CMD, ()),
    "exec-form-instead-of-cmd": (WITH_CMD, ("given",)),
    "shell-form": ("ENTRYPOINT echo $GIVEN $0 $#", ("ignored",)),
    "cmd-shell-form": ('SHELL ["/bin/bash", "-ec"]\nCMD echo ${GIVEN^^} $0 $#', ()),
    "go": (GO, ()),
    "go-as-user": (GO, ("worker:audio", "bash", "-c", f"{WHERE}; grep ^Cap /proc/self/status")),
    "no-program": (NOTHING, ()),
    "no-program-but-given": (NOTHING, ("static", "x")),
    "relative-to-workdir": ('WORKDIR /probe\nENTRYPOINT ["./script"]', ("x",)),
    "user-without-entry": (f"USER 12345:54321\nCMD {WHERE}", ()),
    "user-and-workdir": (f"WORKDIR /made/by/build\nUSER worker:audio\nCMD {WHERE}", ()),
    "workdir-removed": (
        f"WORKDIR /gone/away\nRUN rm -r /gone\nENV HOME=/other PATH=/usr/bin:/bin QUOTED=\"'x'\"\n"
        f"USER worker\nCMD {WHERE}",
        (),
    ),
}
"""Instructions after those of the probe's image, and arguments."""

COMMANDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "by-path": (("static", "x"), ()),
    "script": (("script", "an argument", ""), ()),
    "script-of-script": (("nested", "x"), ()),
    "link": (("/probe/link",), ()),
    "unreadable": (("unreadable",), ("--user", "worker")),
    "setuid": (("setuid",), ("--user", "12345:54321")),
    "user-unknown": (("id",), ("--user", "nonesuch")),
    "group-unknown": (("id",), ("--user", "worker:nonesuch")),
    "not-found": (("nonesuch",), ()),
    "not-found-path": (("/nonesuch/x",), ()),
    "below-a-file": (("/etc/passwd/x",), ()),
    "empty-name": (("",), ()),
    "not-executable": (("/probe/garbage",), ()),
    "not-executable-by-path": (("garbage",), ()),
    "directory": (("/etc",), ()),
    "no-interpreter": (("orphan",), ()),
    "no-shebang": (("bare",), ()),
    "empty-file": (("empty",), ()),
    "broken": (("broken",), ()),
    "dangling": (("dangling",), ()),
    "loop": (("loop",), ()),
    "hidden": (("/probe/hidden/static",), ("--user", "worker")),
    "relative": (("./static",), ("-w", "/probe")),
    "relative-missing": (("./static",), ("-w", "/")),
    "below": (("hidden/static",), ("-w", "/probe")),
    "path-of-option": (("static",), ("-e", "PATH=/nowhere:/probe/garbage:/probe/hidden:/probe")),
    "path-empty": (("static",), ("-e", "PATH=", "-w", "/probe")),
    "path-relative": (("static",), ("-e", "PATH=probe:hidden", "-w", "/")),
    "path-with-here": (("static",), ("-e", "PATH=:/usr/bin", "-w", "/probe")),
    "path-absent": (("static",), ("-e", "PATH", "-w", "/probe")),
    "workdir": (("bash", "-c", WHERE), ("-w", "/content/below")),
    "workdir-new": (("bash", "-c", WHERE), ("-w", "/new/below", "--user", "worker")),
    "workdir-new-read-only": (("bash", "-c", WHERE), ("-w", "/new/below", "--read-only")),
    "workdir-by-link": (("bash", "-c", WHERE), ("-w", "/content/symbolic/new")),
    "workdir-closed": (("bash", "-c", WHERE), ("-w", "/team/closed", "--user", "12345")),
    "workdir-a-file": (("pwd",), ("-w", "/etc/passwd")),
    "workdir-dangling": (("pwd",), ("-w", "/probe/dangling")),
    "many-arguments": (("bash", "-c", "echo $#; echo $* | wc -c", *map(str, range(4000))), ()),
    "exit-code": (("bash", "-c", "exit 255"), ()),
    "killed": (("bash", "-c", "kill -9 $$; exit 3"), ()),
    "both-streams": (("bash", "-c", "echo out; echo err >&2; printf 'no newline'"), ()),
}
"""Arguments and options, with the probe's image."""


def _image(instructions: str, arguments: tuple[str, ...]) -> Callable[[Side], str]:
    return lambda side: side.run(*arguments, image=instructions)


def _command(arguments: tuple[str, ...], options: tuple[str, ...]) -> Callable[[Side], str]:
    return lambda side: side.run(*arguments, options=options)


for _name, (_instructions, _arguments) in IMAGES.items():
    add(f"image-{_name}", _image(_instructions, _arguments))
for _name, (_arguments, _options) in COMMANDS.items():
    add(f"command-{_name}", _command(_arguments, _options))


@case(everywhere=True)
def entrypoint_of_the_user(side: Side) -> str:
    """With --entrypoint the engine starts something else than bootfs."""
    return side.run("x", options=("--entrypoint", "static"))


@case(everywhere=True)
def entrypoint_by_variable(side: Side) -> str:
    """What docs/differences.md says to do instead gives what the source image gives."""
    if side.mode is None:
        given = side.run("x", options=("--entrypoint", "static"))
        none = side.run(options=("--entrypoint", "static"))
        cleared = side.run("setuid", options=("--entrypoint", ""), image=EXEC_FORM)
    else:
        ours = ("--entrypoint", "/.bootfs/init", "-e", "BOOTFS_ENTRYPOINT=static")
        given = side.run("x", options=ours)
        none = side.run(options=ours)
        cleared = side.run("setuid", options=("-e", "BOOTFS_ENTRYPOINT="), image=EXEC_FORM)
    return given + none.replace("== ", "== none: ") + cleared.replace("== ", "== cleared: ")


@case(everywhere=True)
def init_of_the_engine(side: Side) -> str:
    """With --init the engine's own init is process 1."""
    script = (
        "tr '\\0' ' ' </proc/1/cmdline; echo; cat /proc/1/comm; echo parent $PPID;"
        " (sleep 0.2 & ) ; sleep 0.6; set -- /proc/[0-9]*; echo $#; exit 7"
    )
    return side.run("bash", "-c", script, options=("--init",))


@case()
def init_of_the_engine_as_a_user(side: Side) -> str:
    """The same for a container that does not start as root."""
    return side.run("bash", "-c", "cat /proc/1/comm; id", options=("--init", "--user", "worker"))


@case()
def processes_of_the_host(side: Side) -> str:
    """With --pid host there is no PID namespace of the container's own."""
    return side.run("bash", "-c", "test $$ != 1 && echo many", options=("--pid", "host"))


@case()
def processes_of_another_container(side: Side) -> str:
    """With --pid container: there is one of another container."""
    other = side.start("sleep", "100")
    script = "tr '\\0' ' ' </proc/1/cmdline"
    return side.run("bash", "-c", script, options=("--pid", f"container:{other.name}"))


@case(everywhere=True)
def no_new_privileges_as_a_user(side: Side) -> str:
    """Nobody becomes root by a setuid program, nor does bootfs."""
    return side.run("id", options=("--security-opt", "no-new-privileges", "--user", "worker"))


@case(everywhere=True)
def privileged_container(side: Side) -> str:
    """What some capability opens, and nothing takes away again."""
    options = ("--privileged", "--user", "worker")
    seen = "grep -E '^(Cap|Seccomp|NoNew)' /proc/self/status; ls /dev | wc -l; mount | wc -l"
    return side.run("bash", "-c", seen, options=options)


@case(everywhere=True)
def terminal(side: Side) -> str:
    """A terminal with its size, its modes, and what is typed."""
    script = (
        "tty; until stty size | grep 33; do sleep 0.05; done; stty -a | tr ' ' '\\n' | grep -c .;"
        " cut -d' ' -f5-8 /proc/$$/stat;"
        # Not into a pipe, of which the shell has an end for a moment.
        " ls -l /proc/$$/fd >/tmp/fds; awk 'NR > 1 {print $9, $11}' /tmp/fds;"
        " stat -c '%A %U %G' /dev/console $(tty);"
        " read line; echo read=$line; env | grep -E 'TERM|HOME'; set -m; sleep 100 & jobs -l |"
        " sed 's/[0-9]* Running/PID Running/'; kill %1; exit 4"
    )
    return side.run_on_terminal("bash", "-c", script, typed=b"typed\n")


@case()
def terminal_as_a_user(side: Side) -> str:
    """A terminal of somebody else than root, who opens it again."""
    script = "stat -c '%A %u %g' $(tty) /dev/console; echo x >$(tty); echo y >/dev/console; echo $?"
    return side.run_on_terminal("sh", "-c", script, options=("--user", "worker"))


@case()
def terminal_modes(side: Side) -> str:
    """What is typed can be edited, as the terminal's modes say."""
    # The engine tells the size when the workload has begun.
    script = (
        "until stty size | grep -q 33; do sleep 0.05; done; read line; echo read=$line;"
        " stty -a | head -2"
    )
    return side.run_on_terminal("bash", "-c", script, typed=b"one\x7fx\n")
