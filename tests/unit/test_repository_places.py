"""What is remembered of where a layer is: a hint, whatever became of the file."""

from __future__ import annotations

from pathlib import Path

from converter.images.places import Places

LAYER = f"sha256:{'1' * 64}"
OTHER = f"sha256:{'2' * 64}"
HOST = "docker://h.example"


def test_the_latest_of_the_same_registry_is_given(tmp_path: Path) -> None:
    places = Places(tmp_path / "new" / "repositories")
    assert places.find(LAYER, f"{HOST}/a") == ""
    for name in ("a", "b"):
        places.add(LAYER, f"{HOST}/{name}")
    places.add(OTHER, f"{HOST}/c")
    places.add(LAYER, "docker://other.example/d")
    assert places.find(LAYER, f"{HOST}/x") == "b"
    assert places.find(LAYER, f"{HOST}/b") == "a"
    assert places.find(OTHER, f"{HOST}/x") == "c"
    assert places.find(OTHER, f"{HOST}/c") == ""
    assert places.find(OTHER, "docker+http://h.example/x") == ""


def test_the_oldest_are_forgotten(tmp_path: Path) -> None:
    places = Places(tmp_path / "repositories")
    for number in range(150):
        places.add(LAYER, f"{HOST}/r{number}")
    places.add(LAYER, f"{HOST}/r149")
    lines = (tmp_path / "repositories").read_text().splitlines()
    assert lines == [f"{LAYER} {HOST}/r{number}" for number in range(50, 150)]


def test_damage_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "repositories"
    path.write_bytes(b"\xff\x00\nsha256:11 docker://h.example/a\n" + f"{LAYER} x\n".encode())
    places = Places(path)
    assert places.find(LAYER, f"{HOST}/x") == ""
    places.add(LAYER, f"{HOST}/a")
    assert path.read_text() == f"{LAYER} {HOST}/a\n"
    path.unlink()
    path.mkdir()
    places.add(LAYER, f"{HOST}/a")
    assert places.find(LAYER, f"{HOST}/x") == ""
