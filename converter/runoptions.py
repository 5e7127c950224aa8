"""Options of ``docker run`` that ``bootfs trace --option`` passes on to the engine's API."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from store.errors import NotFound, UsageError

OWN = "/.bootfs/cache"
"""Every run has a volume of its own there, or it would not read what a cold start reads."""


@dataclass(slots=True)
class RunOptions:
    """What a container is made with, as docker-py names it."""

    environment: dict[str, str] = field(default_factory=dict)
    container: dict[str, Any] = field(default_factory=dict)
    host: dict[str, Any] = field(default_factory=dict)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        known = " ".join(sorted(word for action in self._actions for word in action.option_strings))
        raise UsageError(f"--option: {message}; these options of docker run are known: {known}")


def parse_run_options(given: Sequence[str]) -> RunOptions:
    """Return what options of ``docker run`` say: each given by itself or several in one text.

    Raises:
        UsageError: there is no such option, or it has no such value.
        NotFound: a file of variables is not there.

    """
    try:
        words = [word for text in given for word in shlex.split(text)]
    except ValueError as error:
        raise UsageError(f"--option: {error}") from None
    found = _build_parser().parse_args(words)
    options = RunOptions()
    for path in found.env_file:
        _read_variables(path, options.environment)
    for setting in found.env:
        name, equals, value = setting.partition("=")
        if equals:
            options.environment[name] = value
        elif name in os.environ:
            options.environment[name] = os.environ[name]
    for name in ("user", "working_dir", "hostname"):
        if getattr(found, name) is not None:
            options.container[name] = getattr(found, name)
    for volume in found.binds:
        parts = volume.split(":")
        if not 2 <= len(parts) <= 3 or not parts[0] or not parts[1].startswith("/"):
            raise UsageError(f"--option: -v {volume}: give HOST:/PATH or HOST:/PATH:ro")
        if os.path.normpath(parts[1]) == OWN:
            raise UsageError(f"--option: -v {volume}: each run has a cache of its own")
    if found.tmpfs:
        options.host["tmpfs"] = dict(one.partition(":")[::2] for one in found.tmpfs)
    if found.sysctls:
        options.host["sysctls"] = dict(one.partition("=")[::2] for one in found.sysctls)
    for name in (
        *("binds", "network_mode", "dns", "mem_limit", "shm_size", "read_only"),
        *("privileged", "cap_add", "cap_drop", "devices", "security_opt", "runtime"),
    ):
        if getattr(found, name):
            options.host[name] = getattr(found, name)
    if found.extra_hosts:
        options.host["extra_hosts"] = dict(one.partition(":")[::2] for one in found.extra_hosts)
    return options


def _build_parser() -> _Parser:
    parser = _Parser(prog="--option", add_help=False, allow_abbrev=False)

    def several(*names: str, dest: str) -> None:
        parser.add_argument(*names, dest=dest, action="append", default=[])

    several("-e", "--env", dest="env")
    several("--env-file", dest="env_file")
    several("-v", "--volume", dest="binds")
    several("--tmpfs", dest="tmpfs")
    several("--add-host", dest="extra_hosts")
    several("--dns", dest="dns")
    several("--cap-add", dest="cap_add")
    several("--cap-drop", dest="cap_drop")
    several("--device", dest="devices")
    several("--security-opt", dest="security_opt")
    several("--sysctl", dest="sysctls")
    parser.add_argument("-u", "--user", dest="user")
    parser.add_argument("-w", "--workdir", dest="working_dir")
    parser.add_argument("-h", "--hostname", dest="hostname")
    parser.add_argument("--network", "--net", dest="network_mode")
    parser.add_argument("-m", "--memory", dest="mem_limit")
    parser.add_argument("--shm-size", dest="shm_size")
    parser.add_argument("--runtime", dest="runtime")
    parser.add_argument("--read-only", dest="read_only", action="store_true")
    parser.add_argument("--privileged", dest="privileged", action="store_true")
    return parser


def _read_variables(path: str, environment: dict[str, str]) -> None:
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        problem = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise NotFound(f"--option: --env-file {path}: {problem}") from None
    for line in lines:
        name, equals, value = line.partition("=")
        if line.strip() and not line.startswith("#"):
            if equals:
                environment[name.strip()] = value
            elif name.strip() in os.environ:
                environment[name.strip()] = os.environ[name.strip()]
