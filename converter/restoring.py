"""The source image's config, made again from a boot image's."""

from __future__ import annotations

import copy

from converter import RELEASE
from converter.bootimage import LABEL, OWN_VOLUMES
from converter.bootview import BootView
from converter.images.view import JsonObject
from store.errors import FormatError


def restore_config(view: BootView) -> JsonObject:
    """Return the config of an ordinary image with the tree of a boot image in one layer.

    The settings of containers are the source's, as are the steps of its history, none of
    which made a layer now.

    Raises:
        FormatError: the boot image's labels are damaged.

    """
    config = copy.deepcopy(view.image_config)
    settings = config["config"] = config.get("config") or {}
    settings.pop("Entrypoint", None)
    entrypoint = view.noted("source.entrypoint")
    if isinstance(entrypoint, list) and all(isinstance(part, str) for part in entrypoint):
        settings["Entrypoint"] = entrypoint
    elif entrypoint is not None:
        raise FormatError(f"label {LABEL}source.entrypoint", 0, "not a list of texts")
    for name, own in (("Volumes", OWN_VOLUMES), ("Labels", ())):
        kept = {
            key: value
            for key, value in (settings.get(name) or {}).items()
            if key not in own and not (name == "Labels" and key.startswith(LABEL))
        }
        settings.pop(name, None)
        if kept:
            settings[name] = kept
    # Of docker's, only what docker-compose 1 asks a boot image for.
    config.pop("container_config", None)
    config["history"] = [*_steps(view), {"created_by": f"bootfs {RELEASE}: export"}]
    return config


def _steps(view: BootView) -> list[JsonObject]:
    history = view.noted("source.history")
    steps = history if isinstance(history, list) else []
    return [{**step, "empty_layer": True} for step in steps if isinstance(step, dict)]
