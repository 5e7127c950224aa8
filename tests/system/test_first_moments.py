"""Containers that are looked at from outside before, and while, their root is made."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.bootedtree import root_of
from tests.support.engine import BOOT_OPTIONS, docker

if TYPE_CHECKING:
    from tests.support.converted import Conversions, Converted
    from tests.support.engine import Container, Engine

pytestmark = pytest.mark.system

FEW = """\
FROM debian:bookworm-slim
RUN useradd -u 4242 worker && mkdir -p /many/5 /many/6 \\
 && printf '#!/bin/sh\\necho "script $(id -un) $*"\\n' >/usr/local/bin/script \\
 && chmod 755 /usr/local/bin/script && ln -s script /usr/local/bin/by-link \\
 && mkdir -p /opt/app && cp /usr/local/bin/script /opt/app/check \\
 && echo image >/etc/app.conf && mkdir -p /etc/app/conf.d && echo image >/etc/app/conf.d/one \\
 && cp /bin/true /usr/local/bin/first && ln /usr/local/bin/first /usr/local/bin/second \\
 && ln -s /etc/app.conf /opt/link && ln -s nowhere /opt/dangling
HEALTHCHECK --interval=200ms --timeout=60s --retries=1 CMD ["/opt/app/check", "well"]
CMD ["sleep", "1000"]
"""
MANY = "RUN cd /many && for d in $(seq 60); do mkdir -p $d; (cd $d; seq 1000 | xargs touch); done\n"
"""So many files that to make them takes seconds, and an early command comes long before."""


@pytest.fixture(scope="module")
def few(conversions: Conversions) -> Converted:
    source = conversions.engine.build(FEW)
    return dataclasses.replace(conversions.convert(source), mode="lease")


@pytest.fixture(scope="module")
def many(conversions: Conversions, few: Converted) -> Converted:
    source = conversions.engine.build(f"FROM {few.source}\n{MANY}")
    return dataclasses.replace(conversions.convert(source), mode="lease")


def create(engine: Engine, image: Converted, *options: str) -> Container:
    """Give a container of an image that has not been started."""
    return engine.create(image.boot, options=image.options(*options))


def is_built(container: Container) -> bool:
    """Whether the tree is made in the container's own root."""
    return Path(root_of(container), ".bootfs/built").exists()


def wait_until_built(container: Container) -> None:
    deadline = time.monotonic() + 120
    while not is_built(container):
        assert time.monotonic() < deadline, container.logs()
        time.sleep(0.05)


COMMANDS = {
    "shell": (("sh", "-c", "id -un; ls /many/*/* | wc -l; awk 'BEGIN { print 1 + 1 }'"), ()),
    "user": (("perl", "-e", "print 6 * 7, qq(\\n)"), ("-u", "worker")),
    "script": (("script", "a", "b c"), ("-u", "worker")),
    "by link": (("by-link",), ()),
    "by path": (("/opt/app/check", "x"), ()),
    "directory": (("pwd",), ("-w", "/etc/app/conf.d")),
    "library": (("getent", "passwd", "worker"), ()),
    "not there": (("nonesuch",), ()),
}
"""What is executed at once, and options of `docker exec`."""


@pytest.mark.parametrize("options", [(), ("--user", "worker")], ids=["root", "user"])
def test_what_is_executed_at_once_waits_for_its_program(
    engine: Engine, many: Converted, options: tuple[str, ...]
) -> None:
    plain = engine.start(many.source, options=options)
    container = create(engine, many, *options)
    docker("start", container.name)
    assert not is_built(container)

    def execute(name: str) -> tuple[int, str]:
        words, given = COMMANDS[name]
        done = container.run(*words, options=given, check=False)
        return done.returncode, done.stdout

    with ThreadPoolExecutor(len(COMMANDS)) as pool:
        early = [pool.submit(execute, name) for name in COMMANDS]
        shown = dict(zip(COMMANDS, (one.result() for one in early), strict=True))
    for name, (words, given) in COMMANDS.items():
        done = plain.run(*words, options=given, check=False)
        assert shown[name] == (done.returncode, done.stdout), name
    assert is_built(container)
    assert container.logs() == ""


def test_a_health_check_of_the_first_moments_is_passed(engine: Engine, many: Converted) -> None:
    options = ("--user", "worker")
    container = create(engine, many, *options)
    docker("start", container.name)
    assert not is_built(container)
    deadline = time.monotonic() + 120
    while not (log := container.inspect()["State"]["Health"]["Log"]):
        assert time.monotonic() < deadline, container.logs()
        time.sleep(0.05)
    assert (log[0]["ExitCode"], log[0]["Output"]) == (0, "script worker well\n")
    assert container.inspect()["State"]["Health"]["Status"] == "healthy"


def show_copied(container: Container) -> str:
    """Give what the files that were copied in hold, and those beside them."""
    script = (
        "cd /; cat etc/app.conf etc/app/conf.d/* opt/new opt/tree/sub/file etc/app/tree/sub/file"
        " many/5/7 many/6/new opt/link opt/nowhere; whoami; stat -c '%n %F %s %a %u %g'"
        " etc/app.conf etc/app opt/new opt/tree opt/tree/sub many/5/7 usr/local/bin/*"
        " usr/bin/whoami opt/link opt/dangling; second; echo $?; head -1 etc/passwd"
    )
    return container.run("sh", "-c", script).stdout


def copy_in(container: Container, directory: Path) -> None:
    """Copy files into a container that has not been started: in place of the image's, and new."""
    tree = directory / "tree"
    (tree / "sub").mkdir(parents=True, exist_ok=True)
    (tree / "sub/file").write_text("in a directory\n")
    (directory / "file").write_text("the user's\n")
    (directory / "passwd").write_text("root:x:0:0:mine:/root:/bin/sh\n")
    whoami = directory / "whoami"
    whoami.write_text("#!/bin/sh\necho nobody you know\n")
    whoami.chmod(0o755)
    for name, place in (
        *(("file", "etc/app.conf"), ("file", "etc/app/conf.d/two"), ("file", "opt/new")),
        *(("file", "many/5/7"), ("file", "many/6/new"), ("file", "usr/local/bin/first")),
        *(("file", "opt/dangling"), ("whoami", "usr/bin/whoami"), ("passwd", "etc/passwd")),
        *(("tree", "opt/tree"), ("tree", "etc/app")),
    ):
        docker("cp", str(directory / name), f"{container.name}:/{place}")


@pytest.mark.parametrize("mode", ["lease", "eager"])
def test_what_was_copied_in_before_the_start_stays(
    engine: Engine, few: Converted, tmp_path: Path, mode: str
) -> None:
    image = dataclasses.replace(few, mode=mode)
    shown = []
    for container in (engine.create(few.source), create(engine, image)):
        copy_in(container, tmp_path)
        docker("start", container.name)
        shown.append(show_copied(container))
        docker("restart", "-t", "0", container.name)
        shown.append(show_copied(container))
    assert shown[0].startswith("the user's\nimage\nthe user's\nthe user's\nin a directory\n")
    assert "nobody you know\n" in shown[0]
    assert shown[1:] == shown[:1] * 3


def test_what_was_copied_in_outlives_starts_that_were_cut_off(
    engine: Engine, many: Converted, tmp_path: Path
) -> None:
    plain, container = engine.create(many.source), create(engine, many)
    copy_in(plain, tmp_path)
    copy_in(container, tmp_path)
    for seconds in (1.0, 2.5):
        docker("start", container.name)
        # Whatever it has made by then.
        time.sleep(seconds)
        docker("kill", container.name)
        container.wait()
    docker("start", plain.name)
    docker("start", container.name)
    assert show_copied(container) == show_copied(plain)
    script = (
        "cd /; sha256sum usr/bin/* usr/sbin/* lib/*/*.so* | sort | sha256sum; ls many/* | wc -l"
    )
    assert container.run("sh", "-c", script).stdout == plain.run("sh", "-c", script).stdout


def test_what_is_copied_in_while_the_tree_is_made_stays(
    engine: Engine, many: Converted, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("late\n")
    container = create(engine, many)
    docker("start", container.name)
    for place in ("/etc/app.conf", "/opt/late", "/usr/bin/whoami"):
        docker("cp", str(tmp_path / "file"), f"{container.name}:{place}")
    assert not is_built(container)
    done = container.run("cat", "/etc/app.conf", "/opt/late", "/usr/bin/whoami")
    assert done.stdout == "late\n" * 3


NEEDED = {"cat", "dash", "sh", "sha256sum", "sleep"}


def replace(name: str, directory: int) -> None:
    """Put a file at a name of an open directory as the engine does: what is there goes first."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)
    fd = os.open(name, os.O_CREAT | os.O_WRONLY, 0o644, dir_fd=directory)
    os.write(fd, b"late\n")
    os.close(fd)


@pytest.mark.parametrize("mode", ["lease", "eager"])
def test_whatever_moment_something_is_copied_in_at(
    engine: Engine, few: Converted, mode: str
) -> None:
    container = create(engine, dataclasses.replace(few, mode=mode))
    docker("start", container.name)
    # PID 1's root is another one when all is built.
    programs = os.open(f"{root_of(container)}/usr/bin", os.O_DIRECTORY)
    names = sorted({*os.listdir(programs)} - NEEDED)
    assert len(names) > 30
    deadline = time.monotonic() + 120
    while not is_built(container):
        assert time.monotonic() < deadline, container.logs()
        for name in names:
            replace(name, programs)
    os.close(programs)
    paths = [f"/usr/bin/{name}" for name in names]
    done = container.run("sha256sum", *paths)
    plain = engine.start(few.source).run("sha256sum", *paths)
    late = hashlib.sha256(b"late\n").hexdigest()
    for line, source in zip(done.stdout.splitlines(), plain.stdout.splitlines(), strict=True):
        assert line in {source, f"{late}  {source.split()[1]}"}
    assert late in done.stdout
    assert container.logs() == ""


PLACES = ("/usr/bin", "/usr/local/bin", "/opt")


@pytest.mark.parametrize("mode", ["erofs", "lease"])
def test_a_new_volume_on_programs_gets_the_image_s(
    engine: Engine, few: Converted, mode: str
) -> None:
    image = dataclasses.replace(few, mode=mode)
    script = (
        f"for place in {' '.join(PLACES)}; do find $place -type f | sort | xargs sha256sum;"
        " find $place | sort | xargs stat -c '%n %F %a %u %g %N'; done | sha256sum"
    )
    shown = set()
    for reference, given in ((few.source, ()), (image.boot, image.options())):
        volumes = [f"{engine.volume()}:{place}" for place in PLACES]
        options = [*given, *(word for volume in volumes for word in ("-v", volume))]
        for _ in range(2):
            done = engine.run(reference, "sh", "-c", script, options=options)
            assert done.returncode == 0, done.stderr
            shown.add(done.stdout)
    assert len(shown) == 1


@pytest.mark.parametrize("mode", ["erofs", "lease"])
def test_mounts_on_programs(engine: Engine, few: Converted, tmp_path: Path, mode: str) -> None:
    image = dataclasses.replace(few, mode=mode)
    script = tmp_path / "mine"
    script.write_text("#!/bin/sh\necho mine\n")
    script.chmod(0o755)
    options = ("-v", f"{script}:/usr/bin/whoami", "-v", f"{script}:/usr/local/bin/brand-new")
    command = ("sh", "-c", "whoami; brand-new; stat -c '%F %a' /usr/bin/who /usr/bin/whoami")
    plain = few.run_source(engine, *command, options=options)
    done = image.run(engine, *command, options=options)
    assert (done.returncode, done.stdout, done.stderr) == (0, plain.stdout, "")
    hiding = ("-v", f"{tmp_path}:/usr/local/bin", "--tmpfs", "/opt/app")
    command = ("sh", "-c", "mine; ls /usr/local/bin /opt/app")
    plain = few.run_source(engine, *command, options=hiding)
    done = image.run(engine, *command, options=hiding)
    assert (done.returncode, done.stdout, done.stderr) == (0, plain.stdout, "")


def test_an_entrypoint_of_the_user_says_what_to_do_instead(engine: Engine, few: Converted) -> None:
    for options in ((), ("--init",)):
        given = ("--entrypoint", "sh", *options, *BOOT_OPTIONS)
        done = engine.run(few.boot, "-c", "true", options=given)
        assert done.returncode == 127
        assert "give --entrypoint /.bootfs/init -e BOOTFS_ENTRYPOINT=PROGRAM" in done.stderr


def test_nothing_of_it_is_left(engine: Engine, few: Converted) -> None:
    placeholder = "/.bootfs/image/placeholder"
    container = few.start(engine)
    wait_until_built(container)
    done = container.run("find", "/", "-xdev", "-samefile", placeholder)
    assert done.stdout == f"{placeholder}\n"
    done = container.run("sh", "-c", "ls -A /.bootfs/mnt/*; cat /.bootfs/copied", check=False)
    assert "No such file" in done.stderr and done.stdout.count("\n") < 6, done.stdout


def test_copies_go_on_in_another_image(engine: Engine, few: Converted, tmp_path: Path) -> None:
    container = create(engine, few)
    copy_in(container, tmp_path)
    name = engine.image_name()
    docker("commit", container.name, name)
    image = dataclasses.replace(few, boot=name)
    plain = engine.create(few.source)
    copy_in(plain, tmp_path)
    docker("start", plain.name)
    other = create(engine, image)
    docker("start", other.name)
    assert show_copied(other) == show_copied(plain)
