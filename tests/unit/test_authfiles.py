"""Files with credentials: read once, and again when they have changed."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from store.errors import AccessDenied
from store.read.authfiles import SIZE_LIMIT, AuthDirectory, AuthFile
from store.read.httpaccess import HttpAccess


def upper(text: str, path: str) -> str:
    if "bad" in text:
        raise AccessDenied(path)
    return text.upper()


def test_a_file_is_read_and_known_again(tmp_path: Path) -> None:
    (tmp_path / "s3").write_text("one")
    with closing(AuthDirectory(str(tmp_path))) as directory:
        file = AuthFile(directory, "s3")
        assert file.path == f"{tmp_path}/s3" and file.has_changed()
        assert file.parsed(upper) == "ONE" and not file.has_changed()
        # In its place, with the same size and times: another file all the same.
        status = (tmp_path / "s3").stat()
        (tmp_path / "new").write_text("two")
        os.utime(tmp_path / "new", ns=(status.st_atime_ns, status.st_mtime_ns))
        (tmp_path / "new").rename(tmp_path / "s3")
        assert file.has_changed()
        assert file.parsed(upper) == "TWO" and not file.has_changed()
        (tmp_path / "s3").unlink()
        assert file.has_changed()
        assert file.parsed(upper) == "" and not file.has_changed()


def test_a_file_that_cannot_be_parsed_counts_as_changed(tmp_path: Path) -> None:
    (tmp_path / "s3").write_text("bad")
    with closing(AuthDirectory(str(tmp_path))) as directory:
        file = AuthFile(directory, "s3")
        with pytest.raises(AccessDenied):
            file.parsed(upper)
        assert file.has_changed()


def test_links_within_the_directory_are_followed_as_kubernetes_makes_them(tmp_path: Path) -> None:
    for version in ("1", "2"):
        (tmp_path / f"..{version}").mkdir()
        (tmp_path / f"..{version}" / "s3").write_text(f"version {version}")
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "s3").symlink_to("..data/s3")
    with closing(AuthDirectory(str(tmp_path))) as directory:
        file = AuthFile(directory, "s3")
        assert file.parsed(upper) == "VERSION 1"
        (tmp_path / "..new").symlink_to("..2")
        (tmp_path / "..new").rename(tmp_path / "..data")
        assert file.has_changed() and file.parsed(upper) == "VERSION 2"


def test_the_path_may_go_while_it_is_open(tmp_path: Path) -> None:
    (tmp_path / "auth").mkdir()
    (tmp_path / "auth" / "s3").write_text("one")
    with closing(AuthDirectory(str(tmp_path / "auth"))) as directory:
        (tmp_path / "auth").rename(tmp_path / "elsewhere")
        assert AuthFile(directory, "s3").parsed(upper) == "ONE"


@pytest.mark.parametrize("path", ["", "/nowhere/at/all"])
def test_no_directory_has_no_files(path: str) -> None:
    with closing(AuthDirectory(path)) as directory:
        file = AuthFile(directory, "s3")
        assert file.parsed(upper) == "" and not file.has_changed()


def test_what_is_no_such_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(SIZE_LIMIT + 1))
    (tmp_path / "latin").write_bytes(b"one\ntw\xf6\n")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    with closing(AuthDirectory(str(tmp_path))) as directory:
        for name, problem in (
            ("large", f"more than {SIZE_LIMIT} bytes"),
            ("latin", "line 2: not UTF-8"),
            ("folder", "Is a directory"),
        ):
            with pytest.raises(AccessDenied, match=f"{tmp_path}/{name}: {problem}"):
                AuthFile(directory, name).parsed(upper)
        # Nobody writes into it: it is empty, and not waited for.
        assert AuthFile(directory, "fifo").parsed(upper) == ""


def test_a_file_that_may_not_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "s3").write_text("one")
    (tmp_path / "s3").chmod(0)
    tmp_path.chmod(0o755)
    with closing(AuthDirectory(str(tmp_path))) as directory:
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(12345)
        try:
            with pytest.raises(AccessDenied, match="Permission denied; root must be able"):
                AuthFile(directory, "s3").parsed(upper)
        finally:
            if is_root:
                os.seteuid(0)


def test_of_many_who_are_refused_one_reads_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nobody sees half of what is new: what he is told goes with the generation he asks by."""
    file = tmp_path / "http"
    file.write_text("https://a.example bearer first\n")
    access = HttpAccess(str(tmp_path))
    reads: list[int] = []
    read = HttpAccess._read

    def slow(self: HttpAccess) -> None:
        reads.append(self.generation)
        time.sleep(0.05)
        read(self)

    monkeypatch.setattr(HttpAccess, "_read", slow)
    file.write_text("https://a.example bearer the-second\n")
    with closing(access), ThreadPoolExecutor(8) as pool:
        assert set(pool.map(access.renew, [1] * 8)) == {True}
        assert (reads, access.generation) == ([1], 2)
