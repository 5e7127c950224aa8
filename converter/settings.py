"""What containers of an image without a config of its own are started with."""

from __future__ import annotations

import argparse
import json
import re
import shlex
from dataclasses import dataclass

from converter.images.view import JsonObject

_NAME = re.compile(r"[^=\0]+=[^\0]*\Z")


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings as the user gave them; None and empty ones were not given."""

    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()
    """``NAME=VALUE`` each."""
    user: str = ""
    workdir: str = ""

    def __bool__(self) -> bool:
        """Whether any was given."""
        return self != Settings()

    def encode(self) -> JsonObject:
        """Return the settings as an image's config holds them, without what was not given."""
        found = {
            "Entrypoint": None if self.entrypoint is None else list(self.entrypoint),
            "Cmd": None if self.cmd is None else list(self.cmd),
            "Env": list(self.env) or None,
            "User": self.user or None,
            "WorkingDir": self.workdir or None,
        }
        return {name: value for name, value in found.items() if value is not None}


def add_options(command: argparse.ArgumentParser) -> None:
    """Give a command the options that `settings_of` reads."""
    group = command.add_argument_group("settings of containers, for a SOURCE dir: or tar:")
    for name, what in (("--entrypoint", "ENTRYPOINT"), ("--cmd", "CMD")):
        group.add_argument(
            name, metavar="COMMAND", type=parse_command,
            help=f"{what}, as a shell would split it, or a JSON list of texts",
        )  # fmt: skip
    group.add_argument(
        "--env", metavar="NAME=VALUE", action="append", type=parse_variable, default=[],
        help="a variable of the environment; may be given again",
    )  # fmt: skip
    group.add_argument("--user", metavar="USER[:GROUP]", default="", help="who it runs as")
    group.add_argument("--workdir", metavar="DIRECTORY", default="", help="where it starts")


def settings_of(options: argparse.Namespace) -> Settings:
    """Return the settings among parsed options."""
    return Settings(
        options.entrypoint, options.cmd, tuple(options.env), options.user, options.workdir
    )


def parse_command(text: str) -> tuple[str, ...]:
    """Return the words of a command.

    Raises:
        ArgumentTypeError: it has none.

    """
    try:
        words = json.loads(text) if text.lstrip().startswith("[") else shlex.split(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no command: {error}") from None
    if not words or not all(isinstance(word, str) for word in words):
        raise argparse.ArgumentTypeError(f"{text!r} is no command; write 'a b' or '[\"a\", \"b\"]'")
    return tuple(words)


def parse_variable(text: str) -> str:
    """Return a variable of an environment.

    Raises:
        ArgumentTypeError: it is none.

    """
    if not _NAME.match(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no variable; write NAME=VALUE")
    return text
