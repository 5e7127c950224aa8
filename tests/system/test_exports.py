"""Boot images turned back into ordinary ones: the engine takes them, runs them, shows the same."""

from __future__ import annotations

import json
import stat
import subprocess
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest

from bench.images import IMAGES, build_image
from converter.cli import main
from converter.images.transports import open_image
from converter.layers import merge_layers
from converter.layertar import iter_layer
from converter.reference import parse_reference
from converter.spool import Spool
from converter.tree import Content, Node, Segment
from tests.support.dump import Entry, compare, dump_tree
from tests.support.engine import Engine, docker
from tests.support.layers import block_device, char_device, directory, docker_archive, file, tar_of
from tests.support.require import require
from tests.support.trees import MemoryBlob, make_directory

if TYPE_CHECKING:
    from tests.support.converted import Conversions, Converted

pytestmark = [pytest.mark.system, pytest.mark.requires("docker", "root")]

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")
SETTINGS = ("Cmd", "Entrypoint", "Env", "User", "WorkingDir", "Labels", "ExposedPorts", "Volumes",
            "Healthcheck", "StopSignal", "OnBuild", "Shell")  # fmt: skip
HARD = """\
RUN mkdir -p /srv/deep && cp /bin/true /srv/true && chmod 6755 /srv/true \\
 && ln /srv/true /srv/same \\
 && ln -s true /srv/link && mkfifo /srv/pipe && chown -R 4242:4343 /srv/deep \\
 && touch -d '2001-02-03 04:05:06.123456789' /srv/deep && head -c 9000000 /dev/urandom >/srv/noise
RUN rm /etc/debian_version && chmod 700 /srv
ENTRYPOINT ["/bin/sh", "-c"]
CMD ["echo from $A; id -u"]
ENV A="a value"
USER 4242:4343
WORKDIR /srv/deep
LABEL one=1
EXPOSE 80/tcp
VOLUME /data
STOPSIGNAL SIGINT
HEALTHCHECK --interval=7s CMD true
"""


def read_image(reference: str, spool: Spool) -> Node:
    return merge_layers(open_image(parse_reference(reference), spool).layers, spool)


def tree_of(reference: str) -> dict[bytes, Entry]:
    with Spool() as spool:
        tree = dump_tree(read_image(reference, spool))
    # A container's root is a directory of its own layer.
    del tree[b""]
    return tree


def settings_of(image: str) -> dict[str, object]:
    config = json.loads(docker("image", "inspect", image).stdout)[0]["Config"]
    # An engine's null, none and empty are the same.
    return {name: config.get(name) or None for name in SETTINGS}


def packages_of(reference: str) -> dict[str, str]:
    """Return names and versions in dpkg's own database, as scanners read it from the layers."""
    with Spool() as spool:
        node = read_image(reference, spool)
        for name in (b"var", b"lib", b"dpkg", b"status"):
            node = node.children[name]
        text = node.content.pread(0, node.content.size).decode()
    packages = {}
    for paragraph in text.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in paragraph.splitlines() if line[:1].isalpha()
            and ": " in line
        )  # fmt: skip
        if fields.get("Status") == "install ok installed":
            packages[f"{fields['Package']}:{fields['Architecture']}"] = fields["Version"]
    return packages


def export(image: Converted, conversions: Conversions, destination: str) -> None:
    arguments = ["export", f"docker-daemon:{image.boot}", destination]
    assert main([*arguments, "--store", str(conversions.directory)]) == 0


@pytest.fixture(scope="module")
def hard(conversions: Conversions, base_image: str) -> Converted:
    return conversions.convert(conversions.engine.build(f"FROM {base_image}\n{HARD}"))


@pytest.fixture(scope="module")
def exported(hard: Converted, conversions: Conversions) -> str:
    name = conversions.engine.image_name()
    export(hard, conversions, f"docker-daemon:{name}")
    return name


def test_the_tree_is_the_source_s(hard: Converted, exported: str) -> None:
    assert (
        compare(tree_of(f"docker-daemon:{hard.source}"), tree_of(f"docker-daemon:{exported}")) == []
    )


def test_check_finds_no_difference(
    hard: Converted, exported: str, conversions: Conversions, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["check", exported, hard.boot, "--store", str(conversions.directory)]
    assert main(command) == 0
    assert capsys.readouterr().out.endswith(" entries compared, 0 differences\n")


def test_the_settings_are_the_source_s(hard: Converted, exported: str) -> None:
    assert settings_of(exported) == settings_of(hard.source)
    assert len(json.loads(docker("image", "inspect", exported).stdout)[0]["RootFS"]["Layers"]) == 1


def test_it_runs_as_the_source_does(engine: Engine, hard: Converted, exported: str) -> None:
    runs = [
        engine.run(image, *command)
        for image in (hard.source, exported)
        for command in ((), ("ls -ln /srv /srv/deep; getfattr -d -m - /srv; pwd",))
    ]
    assert runs[0].stdout == runs[2].stdout == "from a value\n4242\n"
    assert (runs[1].stdout, runs[1].returncode) == (runs[3].stdout, runs[3].returncode)


def test_dpkg_lists_the_same_packages(
    engine: Engine, conversions: Conversions, tmp_path: Path
) -> None:
    image = conversions.convert(build_image(IMAGES["deb"]))
    export(image, conversions, f"oci:{tmp_path}/exported:tag")
    export(image, conversions, f"docker-archive:{tmp_path}/exported.tar:example/deb:1")
    wanted = packages_of(f"docker-daemon:{image.source}")
    assert len(wanted) > 50
    assert packages_of(f"oci:{tmp_path}/exported:tag") == wanted
    loaded = engine.image_name()
    subprocess.run(
        ["skopeo", "--insecure-policy", "copy", "-q", f"oci:{tmp_path}/exported:tag",
         f"docker-daemon:{loaded}"],
        check=True,
    )  # fmt: skip
    asking = ("--entrypoint", "dpkg-query")
    lists = [engine.run(name, "-W", options=asking).stdout for name in (image.source, loaded)]
    assert lists[0] == lists[1] and lists[0].count("\n") == len(wanted)


def test_an_engine_keeps_what_only_layers_can_hold(
    engine: Engine, conversions: Conversions, tmp_path: Path
) -> None:
    require("skopeo")
    name = engine.image_name()
    hollow = Segment(2 << 20, 70_000, MemoryBlob(Random(2).randbytes(70_000)), 0)
    holes = Node(stat.S_IFREG | 0o644, content=Content(9 << 20, (hollow,)))
    below = b"".join(iter_layer(make_directory(holes=holes), sparse=True))
    layer = tar_of(
        directory("d/", uid=5, pax={"mtime": "1000000000.000000007"}),
        char_device("d/null", 1, 3, mode=0o666),
        block_device("d/disk", 8, 17, mode=0o660),
        file("d/ping", b"p" * 9_000, mode=0o755, xattrs={"security.capability": CAPABILITY}),
        file("d/data", Random(1).randbytes(70_000), pax={"mtime": "-1.5"}),
    )
    (tmp_path / "s.tar").write_bytes(docker_archive(below, layer))
    image = conversions.convert(f"docker-archive:{tmp_path}/s.tar")
    export(image, conversions, f"docker-daemon:{name}")
    export(image, conversions, f"oci:{tmp_path}/o")
    wanted = tree_of(f"docker-archive:{tmp_path}/s.tar")
    assert compare(wanted, tree_of(f"docker-daemon:{name}")) == []
    assert compare(wanted, tree_of(f"oci:{tmp_path}/o")) == []
    # The layer that the engine gives back is the one it was given: it checks the digest.
    copying = ["skopeo", "--insecure-policy", "copy", "-q", f"docker-daemon:{name}"]
    subprocess.run([*copying, f"oci:{tmp_path}/again"], check=True)
    assert compare(wanted, tree_of(f"oci:{tmp_path}/again")) == []


def test_holes_are_kept_where_that_is_asked_for(conversions: Conversions, tmp_path: Path) -> None:
    holes = Node(stat.S_IFREG | 0o644, content=Content(1 << 34))
    layer = b"".join(iter_layer(make_directory(holes=holes), sparse=True))
    (tmp_path / "s.tar").write_bytes(docker_archive(layer))
    image = conversions.convert(f"docker-archive:{tmp_path}/s.tar")
    arguments = [f"docker-daemon:{image.boot}", f"oci:{tmp_path}/o", "--sparse"]
    assert main(["export", *arguments, "--store", str(conversions.directory)]) == 0
    with Spool() as spool:
        (exported,) = open_image(parse_reference(f"oci:{tmp_path}/o"), spool).layers
        tree = merge_layers([exported], spool)
        assert tree.children[b"holes"].content == Content(1 << 34)
        assert exported.size < 10_000


def test_a_conversion_to_the_engine_is_recognised(
    hard: Converted, conversions: Conversions, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["convert", hard.source, hard.boot, "--store", str(conversions.directory)]
    assert main([*command, "--level", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["unchanged"]
    assert main([*command, "--level", "1", "--json", "--force"]) == 0
    forced = json.loads(capsys.readouterr().out)
    assert not forced["unchanged"] and forced["new_chunks"] == 0
    assert main([*command, "--level", "1", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["unchanged"] and again["boot_image"] == forced["boot_image"]
