"""With records and without, the second version of an image becomes the same bytes."""

import json
import shutil
from pathlib import Path
from random import Random

import pytest

from converter.cli import main
from tests.support.layers import oci_layout
from tests.support.versions import random_versions

IMAGES = 15


def files_of(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("seed", range(IMAGES))
def test_records_change_nothing_but_the_work(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    random = Random(seed)
    before, after = random_versions(random)
    compression = random.choice(("none", "gzip", "zstd"))
    for name, layers in (("before", before), ("after", after)):
        oci_layout(tmp_path / name, *layers, compression=compression)

    def convert(name: str, to: str, records: str, *options: str) -> dict[str, object]:
        monkeypatch.setenv("BOOTFS_RECORDS", records)
        arguments = [f"oci:{tmp_path}/{name}", f"oci:{tmp_path}/{to}/boot:{name}"]
        (tmp_path / to).mkdir(exist_ok=True)
        store = ["--store", f"{tmp_path}/{to}/store", "--level", "1", "--json"]
        assert main(["convert", *arguments, *store, *options]) == 0
        said = capsys.readouterr()
        assert said.err == ""
        report: dict[str, object] = json.loads(said.out)
        return report

    records = str(tmp_path / "records")
    first = convert("before", "fast", records)
    assert (first["unread_layers"], first["known_bytes"]) == (0, 0)
    shutil.copytree(tmp_path / "fast", tmp_path / "slow")
    shutil.copytree(tmp_path / "fast" / "store", tmp_path / "store-before")
    slow = convert("after", "slow", "none")
    assert (slow["unread_layers"], slow["known_bytes"]) == (0, 0)
    fast = convert("after", "fast", records)
    assert files_of(tmp_path / "fast") == files_of(tmp_path / "slow")

    source, boot = f"oci:{tmp_path}/after", f"oci:{tmp_path}/fast/boot:after"
    assert main(["check", source, boot, "--store", f"{tmp_path}/fast/store", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["differences"] == []

    # Where there is a record of everything, nothing is read.
    again = convert("after", "fast", records, "--force")
    assert again["unread_layers"] == len(after)
    assert again["known_bytes"] == again["plain_bytes"] == fast["plain_bytes"]
    assert files_of(tmp_path / "fast") == files_of(tmp_path / "slow")

    # Another store has nothing of it; what the source gave has not changed.
    other = convert("after", "other", records)
    plain = convert("after", "plain", "none")
    assert other["known_bytes"] == 0
    assert other["new_chunks"] == plain["new_chunks"]
    assert files_of(tmp_path / "other") == files_of(tmp_path / "plain")
