import io
import lzma
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.runtime.debfile import iter_ar, parse_deb
from store.errors import FormatError


def ar(*members: tuple[str, bytes]) -> bytes:
    out = b"!<arch>\n"
    for name, body in members:
        head = f"{name:16}{0:<12}{0:<6}{0:<6}{'100644':8}{len(body):<10}`\n".encode()
        out += head + body + b"\n" * (len(body) % 2)
    return out


def claiming(name: str, size: int) -> tarfile.TarInfo:
    """A header of a file whose data are missing."""
    member = tarfile.TarInfo(name)
    member.size = size
    return member


def tar(*members: tuple[str, bytes | str] | tarfile.TarInfo) -> bytes:
    """A string stands for the target of a symbolic link."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:xz") as archive:
        for found in members:
            if isinstance(found, tarfile.TarInfo):
                archive.addfile(found)
                continue
            name, body = found
            member = tarfile.TarInfo(name)
            if isinstance(body, str):
                member.type, member.linkname = tarfile.SYMTYPE, body
                archive.addfile(member)
            else:
                member.size = len(body)
                archive.addfile(member, io.BytesIO(body))
    return out.getvalue()


@given(st.lists(st.tuples(st.from_regex(r"[a-z.]{1,15}", fullmatch=True), st.binary(max_size=99))))
def test_every_ar_member_is_found(members: list[tuple[str, bytes]]) -> None:
    assert list(iter_ar("x", ar(*members))) == members


@given(st.binary(max_size=200))
def test_a_damaged_ar_is_refused_or_read_whole(tail: bytes) -> None:
    try:
        members = list(iter_ar("x", ar(("a", b"1")) + tail))
    except FormatError:
        return
    assert members[0] == ("a", b"1")


def test_files_have_paths_without_a_leading_slash_and_links_are_followed() -> None:
    data = tar(
        ("./usr/lib/libz.so.1.2", b"code"),
        ("./usr/lib/libz.so.1", "libz.so.1.2"),
        ("./usr/lib/libz.so", "libz.so.1"),
        ("./lib/z", "/usr/lib/libz.so"),
        ("./dangling", "nowhere"),
        ("./loop", "loop"),
    )
    package = ar(("debian-binary", b"2.0\n"), ("control.tar.xz", b""), ("data.tar.xz", data))
    paths = ("usr/lib/libz.so.1.2", "usr/lib/libz.so.1", "usr/lib/libz.so", "lib/z")
    assert parse_deb("x.deb", package) == dict.fromkeys(paths, b"code")


@pytest.mark.parametrize(
    ("package", "problem"),
    [
        (b"", "not an ar archive"),
        (b"PK\3\4", "not an ar archive"),
        (ar(("debian-binary", b"2.0\n")), "no data.tar"),
        (ar(("data.tar.xz", b"no tar")), "data.tar.xz"),
        (ar(("data.tar.xz", tar(("a", b"x" * 9999))[:60])), "data.tar.xz"),
        (ar(("data.tar.xz", tar(("a", b"x"))))[:-20], "ends after"),
        (ar(("a", b"12"))[:40], "damaged ar member"),
        (ar(("data.tar.xz", tar(("../a", b"x")))), "'../a' is not below the root"),
        (ar(("data.tar.xz", tar(("a/../..", "x")))), "'a/../..' is not below the root"),
        (ar(("data.tar.xz", tar(("/", b"x")))), "'/' is not below the root"),
        (ar(("data.tar.xz", tar(claiming("a", 8 << 30)))), "files of more than 134,217,728 bytes"),
        (ar(("data.tar.xz", lzma.compress(bytes(1 << 28), preset=0))), "a tar of more than"),
    ],
)
def test_a_damaged_package_is_refused_by_name(package: bytes, problem: str) -> None:
    with pytest.raises(FormatError, match=problem) as raised:
        parse_deb("x.deb", package)
    assert raised.value.what == "x.deb"
