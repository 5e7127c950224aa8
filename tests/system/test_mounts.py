"""What the workload sees of mounts, limits, rights and processes, line by line as without us."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.engine import docker

if TYPE_CHECKING:
    from tests.support.converted import Converted
    from tests.support.engine import Engine

pytestmark = pytest.mark.system

VARYING = re.compile(
    r"(Tgid|Ngid|Pid|PPid|NStgid|NSpid|NSpgid|NSsid|Vm\w+|Rss\w+|HugetlbPages|SigQ"
    r"|(non)?voluntary_ctxt_switches|x86_\w+)\s*:"
)


def both(
    engine: Engine, image: Converted, script: str, options: tuple[str, ...] = ()
) -> tuple[list[str], list[str]]:
    """Give the lines of `script` run the plain way, and booted."""
    command = ("bash", "-c", script)
    plain = image.run_source(engine, *command, options=options)
    booted = image.run(engine, *command, options=options)
    assert booted.stderr == plain.stderr
    assert booted.returncode == plain.returncode
    return plain.stdout.splitlines(), booted.stdout.splitlines()


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--user", "4242"),
        ("--user", "4242:4343", "--security-opt", "seccomp=unconfined"),
        ("--cap-drop", "NET_RAW", "--cap-add", "NET_ADMIN"),
    ],
    ids=["root", "user", "unconfined", "capabilities"],
)
def test_status(engine: Engine, workshop: Converted, options: tuple[str, ...]) -> None:
    script = "cat /proc/self/status; sed -n '/Cap\\|Sig\\|Shd/p' /proc/1/status"
    plain, booted = both(engine, workshop, script, options)
    for lines in (plain, booted):
        lines[:] = [line for line in lines if not VARYING.match(line)]
    # Our filter stands behind the engine's, unless the user wants none.
    expected = [re.sub(r"^(Seccomp_filters:\t)1$", r"\g<1>2", line) for line in plain]
    assert booted == expected


def canonical(line: str, container: str = "") -> str:
    """Give a line of mountinfo without what differs between any two containers."""
    left, _, right = line.partition(" - ")
    _, _, _, root, target, options, *_ = left.split(" ")
    kind, source, super_options = right.split(" ")
    if target == "/":
        source, super_options = "", super_options.split(",")[0]
    root = re.sub(r"[0-9a-f]{64}", "ID", root)
    return f"{root} {target} {options} {kind} {source} {super_options}"


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--read-only",),
        ("--tmpfs", "/scratch:size=1m,mode=700", "-v", "/new/place", "--shm-size", "1m"),
        ("--security-opt", "systempaths=unconfined"),
    ],
    ids=["usual", "read-only", "more", "unmasked"],
)
def test_mounts(engine: Engine, workshop: Converted, options: tuple[str, ...]) -> None:
    plain, booted = both(engine, workshop, "cat /proc/self/mountinfo", options)
    shown = [re.sub(r"volumes/\w+", "volumes/NAME", canonical(line)) for line in booted]
    expected = [re.sub(r"volumes/\w+", "volumes/NAME", canonical(line)) for line in plain]
    assert sorted(shown) == sorted(expected)
    root = next(line for line in booted if line.split(" ")[4] == "/")
    assert all(".bootfs" not in line for line in booted if line != root)
    assert ".bootfs" not in root.partition(" - ")[0]


def test_nothing_of_ours_is_in_the_root(engine: Engine, workshop: Converted) -> None:
    script = "ls -A / /dev/fd/ | grep -v '^[0-9]'; ls -d /.bootfs; env | grep -i bootfs_"
    plain, booted = both(engine, workshop, script)
    assert booted == plain


def test_limits_descriptors_and_processes(engine: Engine, workshop: Converted) -> None:
    script = (
        "ulimit -a; ulimit -Ha; umask; cat /proc/self/oom_score_adj /proc/self/coredump_filter"
        " /proc/self/personality; ls /proc/self/fd; echo /proc/[0-9]*; nice"
        " ; cat /proc/1/cmdline; ls /proc/1/fd; cat /proc/1/oom_score_adj"
    )
    options = ("--ulimit", "nofile=512:1024", "--oom-score-adj", "77")
    plain, booted = both(engine, workshop, script, options)
    assert booted == plain


@pytest.mark.parametrize("user", ["0", "4242"])
def test_rights_are_plain_docker_s(engine: Engine, workshop: Converted, user: str) -> None:
    script = "\n".join(
        f"echo '{command}'; {command} 2>&1; echo $?"
        for command in (
            "mount -t tmpfs none /mnt",
            "umount /dev/shm",
            "unshare -m true",
            "unshare -U true",
            "unshare -n true",
            "nsenter -t 1 -m true",
            "hostname other",
            "mknod /tmp/device c 1 3 && cat /tmp/device",
            "mknod /tmp/fuse c 10 200 && cat /tmp/fuse",
            "chroot / true",
            "dmesg",
            "setpriv --dump | grep -v Secure",
            "cat /proc/kcore /proc/keys /proc/sysrq-trigger",
            "echo 1 >/proc/sys/vm/drop_caches",
        )
    )
    plain, booted = both(engine, workshop, script, ("--user", user))
    assert booted == plain


LISTING = (
    "cd /content && find . -mindepth 1 ! -type d -exec stat -c '%n %F %a %u %g %h %s %Y' {} +"
    " | sort"
)
"""Without directories: engines do not keep their times."""


@pytest.mark.parametrize(
    "volumes",
    [(), ("NAME:/content:ro",), ("NAME:/content", "/content/below"), ("/content/new/place",)],
    ids=["anonymous", "read-only", "nested", "nested and new"],
)
def test_volumes_get_the_image_s_content(
    engine: Engine, workshop: Converted, volumes: tuple[str, ...]
) -> None:
    script = f"stat -c '%a %u %g' /content /content/below; {LISTING}"
    shown = []
    for run in (workshop.run_source, workshop.run):
        name = engine.volume()
        options = [word for v in volumes for word in ("-v", v.replace("NAME", name))]
        done = run(engine, "bash", "-c", script, options=options)
        assert done.stderr == ""
        shown.append(done.stdout.splitlines())
    assert shown[1] == shown[0]
    assert len(shown[1]) == 6


def test_named_volumes_get_content_once(engine: Engine, workshop: Converted) -> None:
    volume = engine.volume()
    options = ("-v", f"{volume}:/content/below")
    first = workshop.start(
        engine, "sh", "-c", "ls -A /content/below; rm -f /content/below/*", options=options
    )
    first.wait()
    assert first.logs() == "file\n"
    docker("start", first.name)
    first.wait()
    # Emptied by the workload it stays empty for this container.
    assert first.logs() == "file\n"


def test_bind_mounts_stay_as_they_are(engine: Engine, workshop: Converted, tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").write_text("of the host\n")
    options = (
        *("-v", f"{tmp_path}/directory:/content"),
        *("-v", f"{tmp_path}/file:/etc/some.conf:ro"),
        *("-v", f"{tmp_path}/file:/var/run/below/a/link"),
        *("-v", f"{tmp_path}/file:/usr/local/bin/script"),
    )
    script = (
        "cat /etc/some.conf /run/below/a/link /usr/local/bin/script;"
        " (echo x >/etc/some.conf) 2>&1; rm -f /content/made; touch /content/made"
    )
    plain, booted = both(engine, workshop, script, options)
    assert booted == plain
    assert (tmp_path / "directory" / "made").exists()


def test_hosts_names_and_resolver(engine: Engine, workshop: Converted) -> None:
    options = (
        *("--hostname", "machine", "--add-host", "other:192.0.2.1", "--dns", "192.0.2.2"),
        *("--dns-search", "example.org"),
    )
    script = (
        "hostname; cat /etc/hostname; grep other /etc/hosts; cat /etc/resolv.conf;"
        " getent hosts other"
    )
    plain, booted = both(engine, workshop, script, options)
    assert booted == plain


def test_without_network_from_a_mounted_directory(
    engine: Engine, workshop: Converted, conversions_directory: Path
) -> None:
    options = (
        "--network",
        "none",
        "-v",
        f"{conversions_directory}:/store:ro",
        "-e",
        "BLOB_STORE=/store",
    )
    done = workshop.run(engine, "sha256sum", "-c", "/big.sum", options=options)
    assert (done.returncode, done.stdout, done.stderr) == (0, "/big: OK\n", "")


def test_a_read_only_root_takes_new_mount_points(engine: Engine, workshop: Converted) -> None:
    options = ("--read-only", "-v", "/brand/new", "-w", "/made/for/work", "--tmpfs", "/run")
    script = "pwd; touch /x; touch /brand/new/x /run/x; ls /brand/new /run/x"
    plain, booted = both(engine, workshop, script, options)
    assert booted == plain


def test_the_right_to_mount_can_be_kept(engine: Engine, workshop: Converted) -> None:
    script = "mount -t tmpfs none /mnt && touch /mnt/x && echo mounted"
    kept = workshop.run(engine, "sh", "-c", script, options=("-e", "BOOTFS_KEEP_CAPS=SYS_ADMIN"))
    assert kept.stdout == "mounted\n"


def test_the_writable_layer_is_made_apart_and_nothing_else_beside_it(
    engine: Engine, workshop: Converted
) -> None:
    container = workshop.start(engine, "sh", "-c", "echo up; exec sleep 1000")
    container.wait_for_line("up")
    mounts = container.inspect()["Mounts"]
    (place,) = (m["Source"] for m in mounts if m["Destination"] == "/.bootfs/rw")
    (layer,) = Path(place).glob("*/*/upper")
    assert (
        {"upper", "work"}
        <= {path.name for path in layer.parent.iterdir()}
        <= {
            *("upper", "work", "filled"),
        }
    )
    # As the image's root.
    status = layer.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (0, 0, 0o755)
    made_anew = docker("restart", "-t", "0", container.name)
    assert made_anew.returncode == 0
    assert layer.stat().st_ino == status.st_ino


def test_copies_of_the_image_s_directories_lie_elsewhere_in_each_container(
    engine: Engine, workshop: Converted
) -> None:
    groups = set()
    for _ in range(4):
        container = workshop.start(engine, "sh", "-c", "touch /tmp/x; echo up; exec sleep 1000")
        container.wait_for_line("up")
        mounts = container.inspect()["Mounts"]
        (place,) = (m["Source"] for m in mounts if m["Destination"] == "/.bootfs/rw")
        (copied,) = Path(place).glob("*/*/upper/tmp")
        # ext4 has some thousands of inodes in a group, one after the other.
        groups.add(copied.stat().st_ino >> 13)
        container.remove()
    assert len(groups) > 1
