"""The source image's config, checked in one place before anything is made of it.

A config may come with any JSON in any field.  What bootfs reads or writes anew, and the
settings that every container is started with, must have their types; all else is kept as
it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from converter.images.view import JsonObject
from converter.runtime.contents import ARCHITECTURES
from store.errors import ConvertError

PATH_LIMIT = 4095
"""The longest path that the kernel takes, in bytes."""

_SYSTEM = "linux"
_ARCHITECTURES = tuple(ARCHITECTURES.values())
"""What runtime layers are made for; the first is that of an image that names none."""
_TEXTS = ("Hostname", "Domainname", "User", "WorkingDir", "StopSignal")
_LISTS = ("Entrypoint", "Cmd", "Env", "Shell", "OnBuild")
_SETS = ("Volumes", "ExposedPorts")
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})",
    re.ASCII,
)


def check_config(config: JsonObject) -> dict[str, Any]:
    """Return the settings of a container that a config holds, all of the types they must have.

    A setting that is missing or null is not among them.

    Raises:
        ConvertError: the config has a value that no engine takes.

    """
    for name in ("os", "architecture", "variant"):
        _check(config.get(name), name, "a text", _is_text)
    _check(config.get("created"), "created", "a time such as 2026-01-31T00:00:00Z", _is_time)
    _check(config.get("history"), "history", "a list of objects", _is_list_of_objects)
    _check(config.get("config"), "config", "an object", _is_object)
    settings = {
        name: value for name, value in (config.get("config") or {}).items() if value is not None
    }
    for name in _TEXTS:
        _check(settings.get(name), name, "a text", _is_text)
    for name in _LISTS:
        _check(settings.get(name), name, "a list of texts", _is_list_of_texts)
    for name in _SETS:
        _check(settings.get(name), name, "an object of empty objects", _is_set)
    _check(settings.get("Labels"), "Labels", "an object of texts", _is_object_of_texts)
    for path in [*settings.get("Volumes", {}), settings.get("WorkingDir", "")]:
        encoded = encode_text(path)
        if b".." in encoded.split(b"/") or len(encoded) > PATH_LIMIT:
            raise ConvertError(
                f"the source image has {path[:80]!r} as a volume or working directory, which is "
                f"above the root or longer than {PATH_LIMIT:,} bytes; build it with another"
            )
    return settings


def check_platform(config: JsonObject) -> None:
    """Return when a config is of the platform that boot images can be made for, or names none.

    Raises:
        ConvertError: it is of another.

    """
    architecture_of(config)


def architecture_of(config: JsonObject) -> str:
    """Return the architecture of a config of a platform that boot images can be made for.

    Raises:
        ConvertError: it is of another.

    """
    for name, known in (("os", (_SYSTEM,)), ("architecture", _ARCHITECTURES)):
        stated = config.get(name) or known[0]
        if stated not in known:
            platforms = [f"{_SYSTEM}/{one}" for one in _ARCHITECTURES]
            raise ConvertError(
                f"the source image's {name} is {stated!r}; bootfs converts images for "
                f"{' and '.join(platforms)} alone, pull the image with "
                f"`--platform {platforms[0]}`"
            )
    return str(config.get("architecture") or _ARCHITECTURES[0])


def encode_text(text: str) -> bytes:
    """Return a text of a config as an argument or path.

    Raises:
        ConvertError: none can hold it.

    """
    try:
        encoded = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        encoded = b"\0"
    if b"\0" in encoded:
        raise ConvertError(
            f"the source image's config has {text[:80]!r}, which no argument or path is; "
            "build the image without it"
        )
    return encoded


def _check(value: object, name: str, kind: str, fits: Callable[[object], bool]) -> None:
    if value is not None and not fits(value):
        raise ConvertError(
            f"the source image's {name} is {_shown(value)}, not {kind}; "
            "its config is damaged, build or pull the image again"
        )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_time(value: object) -> bool:
    # An empty one stands for none in configs of old engines.
    if value == "":
        return True
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        return False
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _is_list_of_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _is_list_of_objects(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _is_object_of_texts(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def _is_set(value: object) -> bool:
    return isinstance(value, dict) and all(
        item is None or isinstance(item, dict) for item in value.values()
    )
