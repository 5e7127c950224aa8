"""Manifests of Kubernetes, and the options of `docker run` that give a container the same."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import yaml

from tests.support.engine import BOOT_OPTIONS

SAMPLE = Path(__file__).parents[2] / "sample" / "kubernetes"
Manifest = dict[str, Any]


def read_manifests() -> dict[str, Manifest]:
    """Return the sample's manifests by the name of their file."""
    return {path.name: yaml.safe_load(path.read_text()) for path in sorted(SAMPLE.glob("*.yaml"))}


def pod_of(manifest: Manifest) -> Manifest:
    """Return the spec of the pods that a manifest makes."""
    spec: Manifest = manifest["spec"]
    return spec["template"]["spec"] if "template" in spec else spec


def run_options(pod: Manifest, directory: Path, environment: dict[str, str]) -> list[str]:
    """Return the options that run a pod's only container; its volumes lie in ``directory``.

    What ``environment`` has takes the place of what the pod has of the name.
    """
    (container,) = pod["containers"]
    security = container["securityContext"]
    options = []
    whose = dict(pod.get("securityContext", {}))
    assert whose.pop("runAsNonRoot", False) == ("runAsUser" in whose)
    owner = whose.pop("fsGroup", 0)
    if whose:
        options.append(f"--user={whose.pop('runAsUser')}:{whose.pop('runAsGroup')}")
    assert not whose, f"nothing is known of {whose}"
    if security.pop("privileged", False):
        # What such a pod needs of it: not every machine of tests may give all capabilities.
        options += BOOT_OPTIONS
    if not security.pop("allowPrivilegeEscalation", True):
        options.append("--security-opt=no-new-privileges")
    if security.pop("readOnlyRootFilesystem", False):
        options.append("--read-only")
    for what, names in security.pop("capabilities", {}).items():
        options += [f"--cap-{what}={name}" for name in names]
    # Docker's profile, as the node's own, is what a container gets unless told otherwise.
    assert security.pop("seccompProfile", {"type": "RuntimeDefault"}) == {"type": "RuntimeDefault"}
    assert not security, f"nothing is known of {security}"
    for variable in container.get("env", []):
        value = environment.get(variable["name"], variable["value"])
        options.append(f"--env={variable['name']}={value}")
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for mount in container["volumeMounts"]:
        place = directory / mount["name"]
        place.mkdir(exist_ok=True)
        for item in volumes[mount["name"]].get("secret", {}).get("items", []):
            (place / item["path"]).write_text(json.dumps({"auths": {}}))
        if owner:
            # As the kubelet does: the volume is the group's, and what lies in it.
            for path in (place, *place.iterdir()):
                os.chown(path, 0, owner)
                path.chmod(0o2770 if path.is_dir() else 0o440)
        mode = "ro" if mount.get("readOnly") else "rw"
        options.append(f"--volume={place}:{mount['mountPath']}:{mode}")
    return options
