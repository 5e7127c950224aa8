"""Damage anywhere is refused with an error of ours, or changes nothing that is promised."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from converter.images.transports import open_image
from converter.images.view import LayerSource
from converter.layers import merge_layers
from converter.reference import parse_reference
from converter.spool import Spool
from converter.tarreader import Budget, iter_entries
from store.errors import BootfsError, UsageError
from tests.support.layers import (
    compressed,
    digest,
    directory,
    docker_archive,
    file,
    files_tar,
    hardlink,
    oci_files,
    symlink,
    tar_of,
)

LAYER = tar_of(
    directory("d/", xattrs={"user.a": b"\xff"}),
    file("d/" + "n" * 120, b"x" * 700, pax={"mtime": "-1.5"}),
    hardlink("h", "d/" + "n" * 120),
    symlink("s", "t" * 120),
    file("sparse", b"abc", pax={"GNU.sparse.size": "10", "GNU.sparse.map": "0,2,5,1"}),
)
ARCHIVES = [
    ("docker-archive", docker_archive(LAYER)),
    ("docker-archive", docker_archive(LAYER, style="docker25")),
    ("docker-archive", compressed(docker_archive(LAYER), "gzip")),
    ("docker-archive", compressed(docker_archive(LAYER), "zstd")),
    ("oci-archive", files_tar(oci_files(LAYER))),
    ("oci-archive", files_tar(oci_files(LAYER, compression="zstd", nested=True))),
]


@st.composite
def damages(draw: st.DrawFn, data: bytes) -> bytes:
    """Flip bits of ``data``, or cut it, or put other bytes into it."""
    damaged = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(damaged) - 1))
        damaged[place] ^= 1 << draw(st.integers(0, 7))
    start = draw(st.integers(0, len(damaged) - 1))
    how = draw(st.sampled_from(["flip", "cut", "insert", "drop"]))
    if how == "cut":
        return bytes(damaged[:start])
    if how == "insert":
        return bytes(damaged[:start]) + draw(st.binary(max_size=600)) + bytes(damaged[start:])
    if how == "drop":
        return bytes(damaged[:start]) + bytes(damaged[start + draw(st.integers(1, 600)) :])
    return bytes(damaged)


@given(st.one_of(damages(LAYER), st.binary(max_size=2000)))
def test_any_bytes_as_a_layer(tar: bytes) -> None:
    with Spool() as spool:
        blob = spool.store("tar", tar)
        source = LayerSource(digest(tar), "", "", blob)
        try:
            for entry in iter_entries(blob, Budget()):
                entry.content.pread(0, min(entry.content.size, 1 << 20))
            merge_layers([source], spool)
        except BootfsError:
            pass


@given(st.sampled_from(ARCHIVES).flatmap(lambda a: st.tuples(st.just(a[0]), damages(a[1]))))
def test_a_damaged_archive_gives_the_right_tree_or_none(damaged: tuple[str, bytes]) -> None:
    transport, archive = damaged
    with Spool() as spool:
        path = Path(spool.path) / "x"
        path.write_bytes(archive)
        try:
            view = open_image(parse_reference(f"{transport}:{path}"), spool)
            diff_ids = [layer.diff_id for layer in view.layers]
            root = merge_layers(view.layers, spool)
        except BootfsError:
            return
        # The list of images of a docker-archive and the index of a layout have no digest.
        assert diff_ids in ([digest(LAYER)], [])
        assert not diff_ids or set(root.children) == {b"d", b"h", b"s", b"sparse"}


@given(st.text(max_size=60))
def test_any_text_is_a_reference_or_a_usage_error(text: str) -> None:
    try:
        reference = parse_reference(text)
    except UsageError:
        return
    assert parse_reference(str(reference)) == reference
