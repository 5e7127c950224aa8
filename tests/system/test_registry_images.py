"""Images that an engine pushed, converted without it, and boot images that an engine pulls."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from converter.cli import main
from converter.images.transports import open_image
from converter.reference import parse_reference
from converter.spool import Spool
from store.write.registry import open_repository
from tests.support.engine import BOOT_OPTIONS, Engine, docker
from tests.support.servers import Registry

pytestmark = pytest.mark.usefixtures("own_cache")


def test_from_registry_to_registry_and_booted(
    registry: Registry, engine: Engine, base_image: str, tmp_path: Path
) -> None:
    name = f"{registry.host_port}/{engine.image_name().partition(':')[0]}"
    source, boot = f"{name}:source", f"{name}:boot"
    store = tmp_path / "store"
    docker("tag", base_image, source)
    try:
        docker("push", source)
        assert (
            main(["convert", f"docker://{source}", f"docker://{boot}", "--store", str(store)]) == 0
        )
        docker("pull", "-q", boot)
        options = (*BOOT_OPTIONS, "-v", f"{store}:/store:ro", "-e", "BLOB_STORE=/store")
        command = ("sh", "-c", "cat /etc/os-release && cd /usr/bin && sha256sum -- * | sha256sum")
        assert engine.run(boot, *command, options=options).stdout == (
            engine.run(base_image, *command).stdout
        )
    finally:
        docker("rmi", source, boot, check=False)


def test_what_the_engine_pushed_is_what_it_has(
    registry: Registry, engine: Engine, base_image: str, tmp_path: Path
) -> None:
    name = f"{registry.host_port}/{engine.image_name().partition(':')[0]}:v1"
    docker("tag", base_image, name)
    try:
        docker("push", name)
        with Spool(tmp_path) as spool:
            pushed = open_image(parse_reference(f"docker://{name}"), spool)
            held = open_image(parse_reference(base_image), spool)
            assert pushed.config == held.config
            assert [x.diff_id for x in pushed.layers] == [x.diff_id for x in held.layers]
        # Docker pushes manifests of schema 2.
        url, _, tag = f"docker://{name}".rpartition(":")
        with closing(open_repository(url)) as repository:
            manifest = repository.fetch_manifest(tag)
        assert json.loads(manifest.data)["mediaType"] == manifest.media_type
        assert manifest.digest == pushed.manifest_digest
    finally:
        docker("rmi", name, check=False)
