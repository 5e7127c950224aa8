"""Options of `docker run`: everything that the probe sees, with each of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.system.same.cases import add

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.system.same.sides import Side

BARE = ("--cap-drop", "ALL", "--cap-add", "DAC_OVERRIDE", "--cap-add", "SETPCAP")
OWN_NETWORK = ("--network", "bridge")
"""What the engine gives who asks for nothing; not the one that the other cases share."""
ALL_IN = "all"
"""The probe, found by PATH."""

PROBED: dict[str, tuple[str, ...]] = {
    "root": (),
    "user-name": ("--user", "worker"),
    "user-unknown": ("--user", "12345"),
    "user-and-group": ("--user", "4242:4343", "--group-add", "44", "--group-add", "users"),
    "group-of-root": ("--user", "0:4343"),
    "read-only": ("--read-only", "--tmpfs", "/run:size=1m,mode=1777", "--tmpfs", "/tmp"),
    "everything": (
        "--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE", "--security-opt", "seccomp=unconfined",
        "--security-opt", "systempaths=unconfined", "--device", "/dev/fuse",
    ),
    "privileged-user": ("--privileged", "--user", "worker"),
    "cap-drop-all": (*BARE, "--cap-add", "SYS_CHROOT"),
    "cap-drop-all-user": (
        *BARE, "--cap-add", "SYS_CHROOT", "--cap-add", "SETUID", "--cap-add", "SETGID",
        "--user", "worker",
    ),
    "cap-add": ("--cap-add", "NET_ADMIN", "--cap-add", "SYS_PTRACE"),
    "cap-add-user": ("--cap-add", "NET_ADMIN", "--user", "worker"),
    "no-new-privileges": ("--security-opt", "no-new-privileges"),
    "seccomp-unconfined": ("--security-opt", "seccomp=unconfined"),
    "paths-unconfined": ("--security-opt", "systempaths=unconfined"),
    "limits": (
        "--pids-limit", "100", "--memory", "256m", "--memory-swap", "300m", "--cpus", "1.5",
        "--cpu-shares", "512", "--cpuset-cpus", "0", "--shm-size", "1m", "--oom-score-adj", "77",
        "--ulimit", "nofile=512:1024", "--ulimit", "core=0", "--ulimit", "nproc=200",
    ),
    "names": (
        "--hostname", "machine", "--domainname", "example.org", "--add-host", "other:192.0.2.1",
        "--dns", "192.0.2.2", "--dns-search", "example.org", "--dns-option", "ndots:2",
        "--mac-address", "02:42:00:00:00:01",
    ),
    "network-none": ("--network", "none", "-v", "STORE:/store:ro", "-e", "BLOB_STORE=/store"),
    "network-host": ("--network", "host"),
    "ipc-host": ("--ipc", "host"),
    "ipc-none": ("--ipc", "none"),
    "uts-host": ("--uts", "host"),
    "cgroup-private": ("--cgroupns", "private"),
    "environment": (
        "-e", "MINE=1", "-e", "GIVEN=", "-e", "NEWLINE=one\ntwo", "-e", "LD_PRELOAD_NOT=x",
        "-e", "HOME=/nowhere", "-e", "PYTHONPATH=/x", "-w", "/team",
    ),
    "devices": ("--device", "/dev/zero:/dev/other:r", "--device-cgroup-rule", "c 42:* rmw"),
    "sysctl": ("--sysctl", "net.ipv4.ip_forward=0", "--sysctl", "kernel.msgmax=8000"),
    "runtime": ("--runtime", "runc", "--log-driver", "json-file", "--log-opt", "max-size=1m"),
}  # fmt: skip
"""With each, the whole probe is run."""
EVERYWHERE = {"root", "user-name", "read-only"}


def _probe(options: tuple[str, ...]) -> Callable[[Side], str]:
    def do(side: Side) -> str:
        given = [word.replace("STORE:", f"{side.store_directory}:") for word in options]
        own = () if "--network" in options else OWN_NETWORK
        return side.run(ALL_IN, "an argument", "", options=(*own, *given))

    return do


for _name, _options in PROBED.items():
    add(f"run-{_name}", _probe(_options), everywhere=_name in EVERYWHERE)


SWEPT: dict[str, tuple[str, ...]] = {
    "root": (),
    "user": ("--user", "worker"),
    "seccomp-unconfined": ("--security-opt", "seccomp=unconfined"),
}
"""With each, every system call is made."""


def _sweep(options: tuple[str, ...]) -> Callable[[Side], str]:
    return lambda side: side.run("sweep", options=(*OWN_NETWORK, *options))


for _name, _options in SWEPT.items():
    add(f"every-call-{_name}", _sweep(_options), everywhere=_name == "user")
