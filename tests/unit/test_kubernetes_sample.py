"""The manifests of sample/kubernetes: what the published schemas and our own parser say of them."""

import base64
import copy
import json
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from converter.cli import build_parser
from tests.support.pods import SAMPLE, pod_of, read_manifests

VERSIONS = [f"1.{minor}" for minor in range(30, 38)]
MANIFESTS = read_manifests()
BOOTED = ("app-lease.yaml", "app-erofs.yaml")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_is_what_the_schema_allows(name: str, version: str) -> None:
    kubernetes_validate.validate(MANIFESTS[name], version, strict=True)


def test_what_no_schema_names_is_found() -> None:
    wrong = copy.deepcopy(MANIFESTS["convert-job.yaml"])
    pod_of(wrong)["containers"][0]["securityContext"]["privilege"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_the_script_says_what_is_right_and_what_is_wrong(tmp_path: Path) -> None:
    done = subprocess.run([SAMPLE / "run", "1.37"], capture_output=True, text=True, check=True)
    assert (done.stdout + done.stderr).count(" passed ") == len(MANIFESTS)
    here = tmp_path / "sample/kubernetes"
    here.mkdir(parents=True)
    (tmp_path / ".venv").symlink_to(SAMPLE.parents[1] / ".venv")
    for path in SAMPLE.iterdir():
        text = path.read_text().replace("privileged: true", "priviledged: true")
        (here / path.name).write_text(text)
        (here / path.name).chmod(path.stat().st_mode)
    done = subprocess.run([here / "run", "1.37"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "priviledged" in done.stdout + done.stderr


def test_the_job_s_command_line_is_one_of_ours() -> None:
    (container,) = pod_of(MANIFESTS["convert-job.yaml"])["containers"]
    assert container["command"] == ["/opt/bootfs/bin/bootfs", "convert"]
    options = build_parser().parse_args(["convert", *container["args"]])
    assert options.destination == f"{options.source}-lazy"
    assert options.store == "registry"
    images = {pod_of(MANIFESTS[name])["containers"][0]["image"] for name in BOOTED}
    assert images == {options.destination.removeprefix("docker://")}


@pytest.mark.parametrize("name", BOOTED)
def test_a_pod_has_its_credentials_as_files_alone(name: str) -> None:
    pod = pod_of(MANIFESTS[name])
    (container,) = pod["containers"]
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert mounts["/.bootfs/auth"]["readOnly"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    secret = volumes[mounts["/.bootfs/auth"]["name"]]["secret"]
    assert secret["secretName"] == MANIFESTS["registry-secret.yaml"]["metadata"]["name"]
    assert secret["items"] == [{"key": ".dockerconfigjson", "path": "config.json"}]
    assert not [v for v in container["env"] if "valueFrom" in v]
    assert not pod.get("automountServiceAccountToken", True)


def test_the_secret_is_what_docker_keeps() -> None:
    secret: dict[str, Any] = MANIFESTS["registry-secret.yaml"]
    config = json.loads(secret["stringData"][".dockerconfigjson"])
    assert base64.b64decode(config["auths"]["registry.example"]["auth"]) == b"reader:change-me"
    assert secret["type"] == "kubernetes.io/dockerconfigjson"
