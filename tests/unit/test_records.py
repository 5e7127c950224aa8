"""Records are used where they are sound and the store has the rest; else the source is read."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from converter.cli import main
from converter.records import directory, known
from converter.records.directory import Records
from tests.support.layers import digest, file, oci_layout, tar_of, whiteout
from tests.support.wholestores import make_old, problems_of

RANDOM = Random(21)
BASE = tar_of(
    file("large", RANDOM.randbytes(900_000)),
    *(file(f"etc/{name}", RANDOM.randbytes(9_000)) for name in "acegikmoqs"),
)
UPPER = tar_of(file("etc/b", RANDOM.randbytes(3_000)), file("srv/x", b"x" * 5_000))
OTHER = tar_of(file("etc/n", RANDOM.randbytes(4_000)), whiteout("etc/a"))
RECORDS = "records"


class Place:
    """Images to convert, one store, and the records."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path = path
        self._capsys = capsys

    def convert(self, name: str, *layers: bytes, options: tuple[str, ...] = ()) -> dict[str, Any]:
        """Convert an image into the layout `boot`; what was said to people is ``said``."""
        if layers:
            oci_layout(self.path / name, *layers, compression="gzip")
        status = self._main("convert", f"oci:{self.path}/{name}", self.boot(name), *options)
        out, err = self._capsys.readouterr()
        assert status == 0, err
        return {**json.loads(out), "said": err}

    def fail(self, name: str, *options: str) -> tuple[int, str]:
        """Convert an image that cannot be; return status and message."""
        status = self._main("convert", f"oci:{self.path}/{name}", self.boot(name), *options)
        return status, self._capsys.readouterr().err

    def check(self, name: str) -> None:
        """Compare a converted image with its source."""
        assert self._main("check", f"oci:{self.path}/{name}", self.boot(name)) == 0
        assert json.loads(self._capsys.readouterr().out)["differences"] == []

    def run(self, *arguments: str) -> None:
        assert main([*arguments]) == 0
        self._capsys.readouterr()

    def boot(self, name: str) -> str:
        return f"oci:{self.path}/boot:{name}"

    @property
    def store(self) -> Path:
        return self.path / "store"

    def _main(self, command: str, *arguments: str) -> int:
        return main([command, *arguments, "--store", str(self.store), "--json"])

    def records(self, kind: str) -> list[Path]:
        return sorted((self.path / RECORDS / kind).iterdir())


@pytest.fixture
def place(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    own_cache: None,
) -> Place:
    """Give a place where an image of `BASE` and `UPPER` was converted."""
    monkeypatch.setenv("BOOTFS_RECORDS", str(tmp_path / RECORDS))
    place = Place(tmp_path, capsys)
    first = place.convert("first", BASE, UPPER)
    assert (first["unread_layers"], first["known_bytes"], first["said"]) == (0, 0, "")
    assert len(place.records("layers")) == 2
    assert len(place.records("images")) == 1
    return place


@pytest.fixture
def unreadable(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test where a layer of which there is a record is read after all."""
    monkeypatch.setattr(known, "read_layer", lambda *_: pytest.fail("the layer was read"))


@pytest.mark.usefixtures("unreadable")
def test_what_is_mixed_anew_comes_from_the_store(place: Place) -> None:
    second = place.convert("second", BASE, OTHER)
    # The files of etc are cut in one stream with the new one; the rest is as it was.
    assert second["unread_layers"] == 1
    assert 900_000 < second["known_bytes"] < second["plain_bytes"]
    place.check("second")
    assert problems_of(place.store) == []


def test_much_that_is_mixed_anew_comes_from_the_source(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "_WORTH", 1_000_000)
    second = place.convert("second", BASE, OTHER)
    assert second["unread_layers"] == 0
    assert second["known_bytes"] > 900_000
    place.check("second")


def test_a_store_without_the_chunks_gets_them_from_the_source(place: Place) -> None:
    for pack in place.store.glob("packs/*/*"):
        pack.unlink()
    second = place.convert("second", BASE, OTHER)
    assert (second["unread_layers"], second["known_bytes"]) == (0, 0)
    assert second["new_chunks"] == second["chunks"]
    place.check("second")


def test_what_was_forgotten_and_collected_is_stored_again(place: Place) -> None:
    store = str(place.store)
    place.run("forget", store, place.boot("first"))
    make_old(place.store)
    place.run("collect", store, "--delete")
    assert not list(place.store.glob("packs/*/*"))
    again = place.convert("first", options=("--force",))
    assert (again["known_bytes"], again["new_chunks"]) == (0, again["chunks"])
    place.check("first")
    assert problems_of(place.store) == []


def test_a_chunk_that_is_damaged_in_the_store_is_read_from_the_source(place: Place) -> None:
    for pack in place.store.glob("packs/*/*"):
        data = bytearray(pack.read_bytes())
        # The bodies, not the table behind them.
        (table,) = struct.unpack_from("<Q", data, len(data) - 64)
        data[100:table:50] = bytes(byte ^ 1 for byte in data[100:table:50])
        pack.write_bytes(data)
    second = place.convert("second", BASE, OTHER)
    assert "the source is read instead" in second["said"]
    assert second["unread_layers"] == 0
    # The pack is as damaged as before, and all else is whole.
    (problem,) = problems_of(place.store)
    assert problem.name.startswith("packs/")


def flips(data: bytes) -> list[tuple[str, bytes]]:
    """Return what may become of a file, each with a name."""
    changed = [("empty", b""), ("short", data[:-1]), ("long", data + b"\0"), ("zeros", bytes(99))]
    for at in (0, 9, 40, 44, 60, len(data) // 2, len(data) - 1):
        changed.append((f"bit {at}", data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]))
    return changed


@pytest.mark.parametrize("kind", ["layers", "images"])
def test_a_damaged_record_is_said_and_not_used(place: Place, kind: str) -> None:
    boot = place.convert("second", BASE, OTHER)["boot_image"]
    kept = {path: path.read_bytes() for path in place.records(kind)}
    for number_of_flip, (what, _) in enumerate(flips(bytes(100))):
        for path, data in kept.items():
            path.write_bytes(flips(data)[number_of_flip][1])
        again = place.convert("second", options=("--force",))
        assert again["boot_image"] == boot, what
        assert "the record is not used" in again["said"], what
        number = "unread_layers" if kind == "layers" else "known_bytes"
        assert again[number] == 0, what
        # It was written anew.
        whole = place.convert("second", options=("--force",))
        assert (whole["said"], whole["unread_layers"]) == ("", 2) or kind == "images", what
    place.check("second")


def test_the_record_of_another_layer_is_not_used(place: Place) -> None:
    first, second = place.records("layers")
    held = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(held)
    again = place.convert("first", options=("--force",))
    assert again["unread_layers"] == 0
    assert again["said"].count("it is of another layer") == 2
    place.check("first")


def test_records_that_others_may_write_are_not_used(place: Place) -> None:
    (place.path / RECORDS).chmod(0o770)
    again = place.convert("first", options=("--force",))
    assert (again["unread_layers"], again["known_bytes"]) == (0, 0)
    assert again["said"].count("others may write it") == 1
    assert "BOOTFS_RECORDS names another directory, or none" in again["said"]


def test_where_nothing_can_be_kept_that_is_said_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    (place.path / "in-the-way").touch()
    monkeypatch.setenv("BOOTFS_RECORDS", f"{place.path}/in-the-way")
    again = place.convert("first", options=("--force",))
    assert (again["unread_layers"], again["said"].count("not kept")) == (0, 1)


def test_none_are_used_or_made_where_none_are_wanted(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [path.stat() for path in place.records("layers")]
    monkeypatch.setenv("BOOTFS_RECORDS", "none")
    again = place.convert("first", options=("--force",))
    assert (again["unread_layers"], again["known_bytes"], again["said"]) == (0, 0, "")
    assert [path.stat() for path in place.records("layers")] == before


def test_a_damaged_layer_is_found_when_all_are_read(place: Place) -> None:
    right = place.convert("first", options=("--force",))["boot_image"]
    for blob in (place.path / "first" / "blobs" / "sha256").iterdir():
        data = bytearray(blob.read_bytes())
        if data[:2] == b"\x1f\x8b":
            data[len(data) // 2] ^= 1
            blob.write_bytes(data)
    # What the layer's digest stands for is known: not a byte of it is wrong.
    again = place.convert("first", options=("--force",))
    assert (again["boot_image"], again["unread_layers"]) == (right, 2)
    status, said = place.fail("first", "--force", "--read-all")
    assert status == 11
    assert "sha256" in said
    # Nothing is recorded of what was not verified.
    assert place.convert("first", options=("--force",))["boot_image"] == right


def test_a_layer_that_is_wanted_and_damaged_is_refused(place: Place) -> None:
    oci_layout(place.path / "second", BASE, OTHER, compression="gzip")
    for pack in place.store.glob("packs/*/*"):
        pack.unlink()
    for blob in (place.path / "second" / "blobs" / "sha256").iterdir():
        data = bytearray(blob.read_bytes())
        if data[:2] == b"\x1f\x8b" and len(data) > 500_000:
            data[len(data) // 2] ^= 1
            blob.write_bytes(data)
    status, said = place.fail("second")
    assert (status, "sha256" in said) == (11, True)
    assert len(place.records("images")) == 1


def test_what_was_not_used_for_longest_is_given_up(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.convert("second", BASE, OTHER)
    layers = place.path / RECORDS / "layers"
    unused = layers / digest(UPPER).removeprefix("sha256:")
    killed = layers / "new-of-who-was-killed"
    killed.write_bytes(bytes(99))
    for path in (unused, killed):
        os.utime(path, (1, 1))
    kept = {path for path in place.path.glob(f"{RECORDS}/*/*") if path not in (unused, killed)}
    assert len(kept) == 4
    monkeypatch.setattr(directory, "KEPT", sum(path.stat().st_size for path in kept))
    again = place.convert("second", options=("--force",))
    assert again["unread_layers"] == 2
    assert set(place.path.glob(f"{RECORDS}/*/*")) == kept
    other = place.convert("first", options=("--force",))
    assert other["unread_layers"] == 1


def test_the_directory_is_where_the_user_has_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    said: Callable[[str], None] = pytest.fail
    monkeypatch.setenv("BOOTFS_RECORDS", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "/c")
    records = Records.of_user(said)
    assert records is not None
    assert records.path == Path("/c/bootfs/records")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/h")
    records = Records.of_user(said)
    assert records is not None
    assert records.path == Path("/h/.cache/bootfs/records")


def test_who_has_no_home_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BOOTFS_RECORDS")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    said: list[str] = []
    assert Records.of_user(said.append) is None
    assert said == ["no home directory to keep records in; BOOTFS_RECORDS names one, or none"]
