import io
import json
import tarfile
from typing import Any

import pytest

from converter.bootimage import (
    LABEL,
    ImageFiles,
    build_config,
    build_own_layer,
    public_name,
)
from converter.enginenames import DIRECTORY_COUNT, LINK_COUNT, OWN_COUNT
from converter.images.view import ImageView, Layer
from converter.runtime.sources import read_placeholder
from converter.tree import Node, empty_root
from converter.treepaths import find
from store.errors import ConvertError
from store.format.bootconfig import parse_boot_config
from tests.support.trees import make_directory, make_file, make_link

FILES = ImageFiles(b"frames", b"index", bytes(range(32)), b"origins")


def view(**settings: Any) -> ImageView:
    return ImageView(
        name="docker-daemon:debian:12",
        config={
            "architecture": "amd64",
            "os": "linux",
            "created": "2020-01-01T00:00:00Z",
            "author": "somebody",
            "container": "abc",
            "config": settings,
            "history": [{"created_by": "a step"}],
        },
        manifest_digest="sha256:" + "1" * 64,
        layers=(),
    )


def entries(layer: Layer) -> dict[str, tarfile.TarInfo]:
    assert isinstance(layer.plain, bytes)
    with tarfile.open(fileobj=io.BytesIO(layer.plain)) as tar:
        return {entry.name: entry for entry in tar}


def content(layer: Layer, name: str) -> bytes:
    assert isinstance(layer.plain, bytes)
    with tarfile.open(fileobj=io.BytesIO(layer.plain)) as tar:
        file = tar.extractfile(name)
        assert file is not None
        return file.read()


def test_what_a_boot_needs_is_in_the_layer() -> None:
    source = view(Entrypoint=["/bin/sh", "-c"], Volumes={"/data": {}}, WorkingDir="/srv/app")
    layer = build_own_layer(source, empty_root(), FILES, "http://store")
    found = entries(layer)
    for name in (".bootfs/cache", ".bootfs/rw", ".bootfs/mnt/fuse", "proc", "sys", "dev", "etc"):
        assert found[name].isdir()
    for name in ("data", "srv", "srv/app"):
        assert found[name].isdir() and found[name].mode == 0o755
    assert content(layer, ".bootfs/image/bootstrap") == b"frames"
    assert content(layer, ".bootfs/image/chunk-index") == b"index"
    config = parse_boot_config(content(layer, ".bootfs/image/config"))
    assert config.entrypoint == [b"/bin/sh", b"-c"]
    assert config.volumes == [b"/data"]
    assert config.blob_store == b"http://store"
    assert config.chunk_index == FILES.chunk_index_digest


def test_equal_input_gives_equal_bytes() -> None:
    tree = make_directory(etc=make_directory(passwd=make_file(b"root:x:0:0::/:/bin/sh\n")))
    made = [build_own_layer(view(), tree, FILES, "").digest for _ in range(2)]
    assert made[0] == made[1]


def test_accounts_are_those_of_the_tree_also_behind_links() -> None:
    tree = make_directory(
        etc=make_directory(passwd=make_link(b"../usr/passwd"), group=make_link(b"/usr/../usr/g")),
        usr=make_directory(passwd=make_file(b"users"), g=make_file(b"groups")),
    )
    layer = build_own_layer(view(), tree, FILES, "")
    assert content(layer, "etc/passwd") == b"users"
    assert content(layer, "etc/group") == b"groups"
    assert "etc/passwd" not in entries(build_own_layer(view(), empty_root(), FILES, ""))


def test_mount_points_look_as_in_the_tree() -> None:
    data = Node(0o041770, uid=5, gid=6)
    layer = build_own_layer(view(Volumes={"/data": {}}), make_directory(data=data), FILES, "")
    entry = entries(layer)["data"]
    assert (entry.mode, entry.uid, entry.gid) == (0o1770, 5, 6)


@pytest.mark.parametrize(
    "settings",
    [
        {"Entrypoint": "text"},
        {"Entrypoint": [1]},
        {"Entrypoint": ["a\0b"]},
        {"Entrypoint": ["\ud800"]},
        {"Volumes": {"/a/../../b": {}}},
        {"Volumes": {"/a\0": {}}},
        {"WorkingDir": "/../x"},
        {"WorkingDir": 5},
        {"WorkingDir": "/" + "w" * 256},
        {"Volumes": {"/a/" + "\N{LATIN SMALL LETTER E WITH ACUTE}" * 128: {}}},
    ],
)
def test_a_config_that_no_engine_takes_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConvertError):
        build_own_layer(view(**settings), empty_root(), FILES, "")


@pytest.mark.parametrize("target", [b"n" * 256, b"n/" * 2047 + b"n"])
def test_a_mount_point_that_links_make_too_long_is_refused(target: bytes) -> None:
    tree = make_directory(link=make_link(target))
    with pytest.raises(ConvertError, match="longer, with the links on its way, than any path"):
        build_own_layer(view(WorkingDir="/link/x"), tree, FILES, "")


def test_the_config_is_the_sources_but_for_what_boots() -> None:
    kept = {
        "Cmd": ["-x"],
        "Env": ["A=b"],
        "User": "1000",
        "WorkingDir": "/srv",
        "ExposedPorts": {"80/tcp": {}},
        "StopSignal": "SIGINT",
        "Healthcheck": {"Test": ["CMD", "true"]},
        "OnBuild": ["RUN true"],
    }
    source = view(Entrypoint=["/e"], Volumes={"/v": {}}, Labels={"mine": "1"}, **kept)
    config = build_config(source, [], FILES.chunk_index_digest, 5)
    settings = config["config"]
    assert {name: settings[name] for name in kept} == kept
    assert settings["Entrypoint"] == ["/.bootfs/init"]
    assert set(settings["Volumes"]) == {"/v", "/.bootfs/cache", "/.bootfs/rw"}
    assert settings["Labels"]["mine"] == "1"
    assert json.loads(settings["Labels"][LABEL + "source.entrypoint"]) == ["/e"]
    assert json.loads(settings["Labels"][LABEL + "source.history"]) == [{"created_by": "a step"}]
    assert (config["author"], config["created"]) == ("somebody", "2020-01-01T00:00:00Z")
    assert "container" not in config
    assert "container_config" not in config
    assert source.config["config"]["Entrypoint"] == ["/e"]


def test_a_composer_finds_the_sources_volumes_where_docker_built_it() -> None:
    source = view(Volumes={"/v": {}})
    source.config["container_config"] = {"Hostname": "abc", "Cmd": ["a step"]}
    config = build_config(source, [], FILES.chunk_index_digest, 5)
    assert config["container_config"] == {"Volumes": {"/v": {}}}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("docker-daemon:debian:12", "docker-daemon:debian:12"),
        ("oci:/home/me/layout:v1", "oci:layout:v1"),
        ("oci:layout/", "oci:layout"),
        ("docker-archive:/tmp/x.tar:a/b:1", "docker-archive:x.tar:a/b:1"),
        ("oci-archive:../y.tar", "oci-archive:y.tar"),
    ],
)
def test_public_names_have_no_directories(name: str, expected: str) -> None:
    assert public_name(name) == expected


def test_links_are_followed_inside_the_tree_and_not_for_ever() -> None:
    file = make_file(b"x")
    tree = make_directory(
        a=make_directory(f=file, up=make_link(b"../../../../a/f"), loop=make_link(b"loop")),
        b=make_link(b"/a"),
        c=make_link(b"b/./"),
    )
    for path in (b"a/f", b"/b/f", b"c/f", b"a/up", b"..//c/../a/f"):
        assert find(tree, path) is file, path
    for path in (b"a/loop", b"a/f/below", b"none", b"a/none/.."):
        assert find(tree, path) is None, path


def test_links_are_there_for_the_engine_to_follow() -> None:
    deep = make_directory(a=make_directory(b=make_directory(link=make_link(b"/run"))))
    tree = make_directory(
        run=make_directory(),
        bin=make_link(b"usr/bin"),
        usr=make_directory(bin=make_directory(), file=make_link(b"bin/nothing")),
        var=make_directory(run=make_link(b"../run"), loop=make_link(b"loop")),
        deep=deep,
    )
    tree.children[b"run"].mode = 0o040711
    source = view(WorkingDir="/var/run/below", Volumes={"/bin/volume": {}})
    found = entries(build_own_layer(source, tree, FILES, ""))
    links = {name: entry.linkname for name, entry in found.items() if entry.issym()}
    assert links == {
        "bin": "usr/bin",
        "usr/file": "bin/nothing",
        "var/loop": "loop",
        "var/run": "../run",
    }
    for name in ("run", "run/below", "usr", "usr/bin", "usr/bin/volume", "var"):
        assert found[name].isdir(), name
    assert found["run"].mode == 0o711
    assert not {"var/run/below", "bin/volume", "deep/a/b/link"} & set(found)


def test_a_link_has_its_attributes() -> None:
    link = make_link(b"x")
    link.uid, link.gid, link.mtime_ns = 5, 6, 1_500_000_000_000_000_001
    entry = entries(build_own_layer(view(), make_directory(link=link), FILES, ""))["link"]
    assert (entry.uid, entry.gid, entry.mtime) == (5, 6, 1_500_000_000)


def program(mode: int = 0o755) -> Node:
    return make_file(b"\x7fELF", mode=mode)


def test_programs_have_placeholders() -> None:
    tree = make_directory(
        bin=make_link(b"usr/bin"),
        usr=make_directory(
            bin=make_directory(
                sh=make_link(b"dash"),
                dash=program(0o4755),
                awk=make_link(b"/etc/alternatives/awk"),
                mawk=program(),
                notes=make_file(b"no program"),
                directory=make_directory(inner=program()),
            ),
            lib=make_directory(node=make_directory(bin=make_directory(cli=program()))),
            local=make_directory(bin=make_directory(npm=make_link(b"../../lib/node/bin/cli"))),
        ),
        etc=make_directory(alternatives=make_directory(awk=make_link(b"/usr/bin/mawk"))),
        opt=make_directory(
            tool=make_directory(bin=make_directory(tool=program())),
            check=program(),
            entry=program(),
            other=program(),
        ),
    )
    tree.children[b"opt"].children[b"mine"] = make_file(b"", mode=0o755)
    source = view(
        Entrypoint=["/opt/entry", "-x"],
        Cmd=["relative"],
        Healthcheck={"Test": ["CMD", "/opt/check"]},
        Env=["PATH=/opt/tool/bin:/usr/local/bin:/bin:relative"],
    )
    layer = build_own_layer(source, tree, FILES, "")
    found = entries(layer)
    placeholders = {name for name, entry in found.items() if entry.islnk()}
    assert placeholders == {
        *("opt/check", "opt/entry", "opt/tool/bin/tool", "usr/bin/dash", "usr/bin/mawk"),
        "usr/lib/node/bin/cli",
    }
    assert {found[name].linkname for name in placeholders} == {".bootfs/image/placeholder"}
    # Nobody gets a right by it.
    assert {found[name].mode for name in placeholders} == {0o755}
    assert found[".bootfs/image/placeholder"].mode == 0o755
    assert content(layer, ".bootfs/image/placeholder") == read_placeholder("x86_64")
    names = list(found)
    assert names.index(".bootfs/image/placeholder") < min(map(names.index, placeholders))
    links = {name for name, entry in found.items() if entry.issym()}
    assert links >= {"bin", "usr/bin/sh", "usr/bin/awk", "etc/alternatives/awk"}
    assert "usr/local/bin/npm" in links


def test_another_architecture_has_its_own_placeholder() -> None:
    source = view()
    source.config["architecture"] = "arm64"
    layer = build_own_layer(source, empty_root(), FILES, "")
    assert content(layer, ".bootfs/image/placeholder") == read_placeholder("aarch64")


def test_a_health_check_that_is_none_is_left_alone() -> None:
    for check in (None, "x", {"Test": None}, {"Test": ["CMD"]}, {"Test": ["CMD", "/\ud800"]}):
        build_own_layer(view(Healthcheck=check), empty_root(), FILES, "")


@pytest.mark.parametrize("kind", ["links", "programs", "directories"])
def test_what_is_there_for_the_engine_has_a_limit(kind: str) -> None:
    made = {"links": make_link(b"x"), "programs": program(), "directories": make_directory()}
    many = make_directory(**{f"n{number}": made[kind] for number in range(3000)})
    place = make_directory(local=make_directory(bin=many)) if kind == "programs" else many
    tree = make_directory(usr=place) if kind == "programs" else make_directory(srv=place)
    few = build_own_layer(view(), make_directory(), FILES, "")
    layer = build_own_layer(view(), tree, FILES, "")
    limit = {"links": LINK_COUNT, "programs": OWN_COUNT, "directories": DIRECTORY_COUNT}[kind]
    assert limit <= len(entries(layer)) - len(entries(few)) <= limit + 3


def test_what_packages_have_by_the_hundred_is_left_out() -> None:
    inner = make_directory(deep=make_directory(), link=make_link(b"deep"), file=program())
    tree = make_directory(
        usr=make_directory(
            share=make_directory(some=inner), local=make_directory(some=inner), bin=inner
        ),
        srv=make_directory(some=inner),
        etc=make_directory(alternatives=make_directory(vi=make_link(b"/usr/bin/vim"))),
    )
    found = set(entries(build_own_layer(view(), tree, FILES, "")))
    assert {"usr/share", "usr/local/some", "srv/some/deep", "srv/some/link"} <= found
    assert not {"usr/share/some", "usr/bin/deep", "usr/bin/link", "etc/alternatives/vi"} & found


def test_where_a_volume_or_the_working_directory_is_no_program_or_link_stands() -> None:
    tree = make_directory(opt=make_directory(bin=make_directory(x=program(), y=make_link(b"z"))))
    source = view(
        WorkingDir="/opt/bin/x", Volumes={"/opt/bin/z": {}}, Env=["PATH=/opt/bin:/usr/bin"]
    )
    found = entries(build_own_layer(source, tree, FILES, ""))
    assert found["opt/bin/x"].isdir() and found["opt/bin/z"].isdir()
    assert found["opt/bin/y"].issym()


def test_directories_are_there_with_their_modes() -> None:
    run = make_directory(deeper=make_directory(deep=make_directory(deepest=make_directory())))
    tree = make_directory(run=run, file=make_file(b"x"))
    tree.children[b"run"].mode = 0o042710
    tree.children[b"run"].gid = 4242
    run.children[b"deeper"].mode = 0o040700
    found = entries(build_own_layer(view(), tree, FILES, ""))
    assert (found["run"].mode, found["run"].gid) == (0o2710, 4242)
    assert found["run/deeper"].mode == 0o700
    assert "run/deeper/deep" in found
    assert not {"run/deeper/deep/deepest", "file"} & set(found)
