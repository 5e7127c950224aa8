"""Write the inputs that fuzzing begins with: PYTHONPATH=. python -m tests.fuzz.seeds

They are small and well formed, and of each kind that a format has.  What a fuzzer finds is kept
beside them.
"""

from __future__ import annotations

import io
import json
import lzma
import re
import stat
import struct
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import zstandard

from boot import fuse
from boot.lease import journal
from converter.erofswriter import write_bootstrap
from converter.tree import Node
from store.format.chunkindex import encode_chunk_index
from store.format.digest import digest_of
from store.format.names import bootstrap_name, chunk_index_name, manifest_name
from store.read.counts import Counts
from store.write.artifact import encode_artifact
from store.write.profiles import encode_profiles
from store.write.registry.manifest import OCI_MANIFEST, Descriptor
from tests.fuzz.corpus import add_to_corpus
from tests.fuzz.dressing import join_parts
from tests.fuzz.targets import TARGETS
from tests.support.elves import make_elf, make_ld_cache
from tests.support.layers import (
    char_device,
    compressed,
    directory,
    fifo,
    file,
    files_tar,
    hardlink,
    opaque,
    symlink,
    tar_of,
    whiteout,
)
from tests.support.sftpwire import attributes, message, names, text, u32, u64
from tests.support.statuses import encoded
from tests.support.stores import make_index
from tests.support.trees import DataRegion, make_directory, make_file, make_link

GOLDEN = Path(__file__).parents[1] / "format" / "golden"


def golden(name: str) -> bytes:
    """Return a golden file."""
    text = (GOLDEN / f"{name}.hex").read_text()
    return bytes.fromhex("".join(line.partition("#")[0] for line in text.splitlines()))


def _bootstraps() -> Iterator[bytes]:
    shared = make_file(b"shared")
    shared.xattrs = {b"user.a": b"1", b"security.capability": bytes(20)}
    small = make_directory(
        a=make_directory(b=make_directory(c=shared), one=shared),
        device=Node(stat.S_IFCHR | 0o600, device=(1, 3)),
        empty=make_file(b""),
        link=make_link(b"target"),
        pipe=Node(stat.S_IFIFO | 0o600),
    )
    long = make_directory(long=make_link(b"t" * 4090), heavy=make_file(b"x"))
    long.children[b"heavy"].xattrs = {b"trusted.a": bytes(5000)}
    wide = make_directory(**{f"n{number:03}" + "x" * 60: shared for number in range(80)})
    for root in (make_directory(), small, long, wide):
        region = DataRegion(root)
        yield write_bootstrap(root, region.extents, region.size).plain


LAYER = tar_of(
    directory("d/", xattrs={"user.a": b"\xff"}),
    file("d/" + "n" * 120, b"x" * 70, pax={"mtime": "-1.5"}),
    hardlink("h", "d/" + "n" * 120),
    symlink("l", "d"),
    file("l/x", b"through"),
    char_device("dev/null", 1, 3),
    fifo("p"),
    file("sparse", b"abc", pax={"GNU.sparse.size": "10", "GNU.sparse.map": "0,2,5,1"}),
)
UPPER = tar_of(whiteout("h"), opaque("d"), file("d/new", b"1", uid=1000), directory("l/"))
GNU = tar_of(file("n" * 120, b"x"), symlink("s", "t" * 120), tar_format=tarfile.GNU_FORMAT)


def _sparse_gnu() -> bytes:
    head = bytearray(tar_of(file("s", b"abc"))[:1024])
    head[156:157] = b"S"
    head[257:265] = b"ustar  \0"
    head[386:410] = b"%011o\0%011o\0" % (2, 3)
    head[483:495] = b"%011o\0" % 9
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head[:512])
    return bytes(head) + bytes(1024)


def _leading_sparse() -> bytes:
    data = b"1\n2\n3\n".ljust(512, b"\0") + b"abc"
    pax = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9",
           "GNU.sparse.name": "s"}  # fmt: skip
    return tar_of(file("GNUSparseFile.0/s", data, pax=pax))


def _deb(how: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        info = tarfile.TarInfo("./usr/lib/a.py")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
        link = tarfile.TarInfo("./usr/lib/b.py")
        link.type, link.linkname = tarfile.SYMTYPE, "a.py"
        tar.addfile(link)
    body = lzma.compress(out.getvalue()) if how == "xz" else compressed(out.getvalue(), how)
    members = ((b"debian-binary", b"2.0\n"), (b"data.tar." + how.encode(), body))
    return b"!<arch>\n" + b"".join(
        name.ljust(16) + b" " * 32 + b"%-10d`\n" % len(data) + data + b"\n"[: len(data) % 2]
        for name, data in members
    )


def _oci(depth: int) -> bytes:
    """Return an OCI layout with so many indexes between the first and the manifest."""
    kind = "application/vnd.oci.image"

    def entry(number: int, what: str) -> dict[str, object]:
        return {"digest": f"@{number}", "size": f"#{number}", "mediaType": f"{kind}.{what}"}

    parts: list[object] = []
    for number in range(depth + 1):
        below = entry(number + 1, f"{'manifest' if number == depth else 'index'}.v1+json")
        below["platform"] = {"os": "linux", "architecture": "amd64"}
        below["annotations"] = {"org.opencontainers.image.ref.name": "tag"}
        parts.append({"schemaVersion": 2, "manifests": [below]})
    manifest = depth + 1
    parts.append(
        {
            "mediaType": f"{kind}.manifest.v1+json",
            "config": entry(manifest + 1, "config.v1+json"),
            "layers": [entry(manifest + 2, "layer.v1.tar")],
        }
    )
    layers = {"type": "layers", "diff_ids": [f"@{manifest + 2}"]}
    parts.append({"os": "linux", "architecture": "amd64", "config": {}, "rootfs": layers})
    text = b"\n%%\n".join([*(json.dumps(part).encode() for part in parts), b"layer"])
    return re.sub(rb'"(#[0-9])"', rb"\1", text)


def _docker_archive() -> bytes:
    saved = [{"Config": "$1.json", "RepoTags": ["a:b"], "Layers": ["$2/layer.tar"]}]
    layers = {"type": "layers", "diff_ids": ["@2"]}
    config = {"os": "linux", "architecture": "amd64", "config": {}, "rootfs": layers}
    return b"\n%%\n".join([json.dumps(saved).encode(), json.dumps(config).encode(), b"layer"])


def _elf() -> bytes:
    head = b"\x7fELF\x02\x01".ljust(16, b"\0") + bytes(16)
    head += struct.pack("<QQ6xHHHHH", 64, 200, 56, 1, 64, 1, 0)
    return head.ljust(64, b"\0") + struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, 150, 150, 0) + bytes(180)


def _analysed() -> Iterator[bytes]:
    library = make_elf()
    cache = make_ld_cache({b"lib.so": b"/usr/lib/lib.so"})
    program = make_elf(interpreter=b"/lib64/ld.so", needed=[b"lib.so"], rpath=b"$ORIGIN/x:/usr")
    for app in (
        program,
        b'#!/bin/sh\n. /etc/a\nA=1 app | if app; then exec "$@"; fi\n',
        b"#!/usr/bin/env -S python3 -u\nfrom os import (path,\n  sep)\nimport a.b as c, os\n",
        b"#!/usr/bin/python3\nif TYPE_CHECKING:\n    import x\nfrom .. import y\n",
        b"",
    ):
        yield join_parts([app, library, library, cache, b"import stat\n"])


CONFIG = {
    "architecture": "amd64", "os": "linux", "variant": "v1", "created": "2020-01-01T00:00:00Z",
    "history": [{"created_by": "a step"}], "rootfs": {"type": "layers", "diff_ids": []},
    "container_config": {"Volumes": {}},
    "config": {
        "Entrypoint": ["/e"], "Cmd": ["c"], "Env": ["A=b"], "ExposedPorts": {"80/tcp": {}},
        "Labels": {"a": "b"}, "OnBuild": ["RUN true"], "Shell": ["/bin/sh"], "User": "1",
        "StopSignal": "SIGINT", "Volumes": {"/v/w": {}, "/l/x": {}}, "WorkingDir": "/usr/up/a",
    },
}  # fmt: skip
HTTP = (
    b"HTTP/1.1 206 Partial Content\r\nContent-Length: 4\r\n"
    b"Content-Range: bytes 3-6/9\r\nConnection: keep-alive\r\n"
)


def _requests() -> tuple[bytes, ...]:
    """Return requests of all kinds, in series of a few."""
    parts = [
        struct.pack("<BBH", opcode, node, 5) + body
        for opcode, node, body in (
            (fuse.INIT, 0, fuse.INIT_IN.pack(7, 38, 1 << 17, 0xFFFFFFFF)),
            (fuse.LOOKUP, 1, b"image.erofs\0"),
            (fuse.READ, 2, fuse.READ_IN.pack(0, 0, 8192, 0, 0, 0, 0)),
            (fuse.READ, 2, fuse.READ_IN.pack(0, 4096, 8192, 0, 0, 0, 0)),
            (fuse.GETATTR, 2, bytes(16)),
        )
    ]
    others = [struct.pack("<BBH", opcode, 1, 1) for opcode in (2, 14, 17, 18, 27, 28, 29, 36, 38)]
    return join_parts(parts), join_parts(others[:5]), join_parts(others[5:])


def _sftp_answers() -> Iterator[bytes]:
    about = attributes(5, (0, 0), 0o100644, (1, 2), [(b"a@b", b"c")])
    bodies = {
        2: text(b"posix-rename@openssh.com") + text(b"1"),
        101: u32(4) + text(b"Failure") + text(b"en"),
        102: text(b"\0\0\0\1"),
        103: text(b"data"),
        104: names([(b"name", about), (b"..", attributes())]),
        105: about,
        201: b"".join(map(u64, [4096, 512, 1000, 400, 300, 90, 80, 70, 1, 3, 255])),
    }
    yield b"".join(message(kind, 3, body) for kind, body in bodies.items())
    for kind, body in bodies.items():
        yield message(kind, 3, body)
        yield message(kind, 3, body[:-1])
        yield message(kind, 3, body)[:-1]
    yield message(102, 1, text(b""))
    yield message(104, 1, names([(b"a/b", about)]))
    yield message(104, 1, u32(1 << 31))
    yield b"Welcome to this host\n"
    yield u32(1 << 20) + bytes(9)
    yield b"\0\0"


def _artifact() -> bytes:
    image = b"\1" * 32
    names = (manifest_name(image), chunk_index_name(image), bootstrap_name(image))
    others = dict.fromkeys(names, (f"sha256:{'0' * 64}", 1))
    subject = Descriptor(OCI_MANIFEST, f"sha256:{'1' * 64}", 2)
    return encode_artifact(image, [(b"\2" * 32, 3)], others, subject).data


def seeds() -> dict[str, list[bytes]]:
    """Return the first inputs of each target."""
    index = encode_chunk_index(make_index())
    packed = encode_chunk_index(make_index(), zstandard.ZstdCompressor().compress)
    frame = zstandard.ZstdCompressor(write_content_size=False).compress(b"plain" * 9)
    manifest = golden("manifest-1")
    return {
        "pack": [golden("pack-1"), golden("pack-2")],
        "chunk-index": [golden("chunk-index-1"), golden("chunk-index-2"), index, packed],
        "profiles": [golden("profiles-1"), encode_profiles(digest_of(b"chunk index"), []),
                     golden("profiles-1")[:-1]],
        "trace": [golden("trace-1"), golden("trace-1")[:64]],
        "boot-config": [golden("boot-config-1")],
        "zstd-frame": [struct.pack("<I", 45) + frame],
        "store-manifest": [manifest],
        "artifact": [_artifact(), b"{}", b'{"artifactType": "application/vnd.bootfs.store.v2"}'],
        "bootstrap": list(_bootstraps()),
        "tar": [LAYER, UPPER, GNU, _sparse_gnu(), _leading_sparse(), b""],
        "layers": [join_parts([LAYER, UPPER]), join_parts([GNU]), join_parts([_sparse_gnu()])],
        "stream": [b"plain", compressed(b"a" * 99, "gzip"), compressed(b"a" * 99, "zstd")],
        "json": [b'{"a": [1, 2.5, null, true, "\\u00e9"]}', b'{"a": "\xff\\ud800"}', b"[" * 120],
        "origins": [
            b'{"runs":[0,9],"version":1}', b'{"runs":[0,2,3,6,0,1],"version":1}',
            b'{"runs":[0,1],"version":1}', b'{"runs":[0,9],"version":2}', b'{"runs":[0.5,9]}',
            b'{"runs":[0,0.5],"version":1}', b'{"runs":[1],"version":1}', b"[]", b"{",
        ],
        "image-config": [json.dumps(CONFIG).encode(), b'{"os":"linux"}'],
        "oci-layout": [_oci(0), _oci(1)],
        "docker-archive": [_docker_archive()],
        "members": [
            files_tar({"manifest.json": b"[]", "a/b": b"x"}, {"l": "a/b", "m": "../../etc/passwd"}),
            LAYER,
        ],
        "reference": [
            b"debian", b"docker-daemon:a.b:5000/c/d:tag", b"oci:place:tag", b"docker-archive:f:a:b",
            b"a@sha256:" + b"0" * 64, b"sha256:" + b"1" * 64, b"docker://debian",
        ],
        "deb": [_deb("xz"), _deb("gzip"), _deb("none")],
        "elf": [_elf()],
        "analysis": list(_analysed()),
        "lock": [
            b"deb a 1 pool/a.deb 3 %s\nsnapshot 20250101T000000Z\n" % (b"0" * 64),
        ],
        "http-head": [
            b"http://store.example:8080/a/b\n../x?y\n" + HTTP,
            b"https://[::1]/\nhttps://other/z\nHTTP/1.1 302 Found\r\nLocation: /x\r\n",
        ],
        "http-exchange": [
            HTTP + b"\r\nabcd",
            b"HTTP/1.1 302 Found\r\nLocation: http://other/x\r\n\r\n\n%%\n" + HTTP + b"\r\nabcd",
            b"HTTP/1.1 100 Continue\r\n\r\n" + HTTP + b"\r\nabcd",
            b"HTTP/1.1 503 Busy\r\nRetry-After: 9\r\n\r\n",
            b"HTTP/1.1 416 No\r\nContent-Range: bytes */5\r\n\r\n",
        ],
        "sftp-answers": list(_sftp_answers()),
        "ssh-url": [
            b"ssh://user@host:22/a/b", b"sftp://[::1]/a%20b", b"ssh://user:secret@host/a",
            b"ssh://-oProxyCommand=x/a", b"ssh://host", b"SSH://host/%00", b"ssh://a@b:99999/",
        ],
        "registry-challenge": [
            b'docker://host:5000/a/b\nBearer realm="https://t/x?y",service="s, t",scope="u:v"',
            b'docker+http://h/a\nBasic realm="r", Bearer realm=/token',
            b'docker://[::1]/a\nBearer realm="http://other/',
        ],
        "registry-credentials": [
            b'{"auths": {"https://host:5000/v1/": {"auth": "YTpi"}, "host:5000/some": {}}}',
            b'{"auths": {"host:5000": {"username": "a", "password": "\\u00fc"}}}',
            b'{"auths": {"host:5000": {"registrytoken": "x", "identitytoken": "y"}}}',
            b'{"auths": {"host:5000": {"identitytoken": "y"}}}',
            b'{"token": "abc", "expires_in": 300}', b'{"access_token": "a\\r\\nb"}', b"[" * 300,
        ],
        "http-access": [
            b"# two\nhttps://a.example basic me:my word\nhttps://a.example header X-Key: v\n",
            b"http://10.0.0.1:80 bearer abc\n* proxy http://u%40:p@proxy:3128\n"
            b"http://10.0.0.1 direct\n",
            b"https://a/path basic x:y", b"https://a bearer a b", b"* basic a:b",
            b"http://a header Host: b", b"http://a header X: \xc3\xbc", b"* proxy ftp://x:secret@y",
        ],
        "aws-credentials": [
            b"[default]\naws_access_key_id = A\naws_secret_access_key = s/+\naws_session_token=t\n",
            b"# x\n[other]\nregion = a\n[default]\naws_access_key_id=A\n", b"", b"a = b",
            b"[default\n", b"[default]\naws_secret_access_key = a b\n",
        ],
        "s3-answers": [
            b"s3://images/a\n" + HTTP + b"\r\nabcd",
            b"s3://images?endpoint=http://h:1&region=x\nHTTP/1.1 403 No\r\nContent-Length: 58\r\n"
            b"\r\n"
            b"<Error><Code>SignatureDoesNotMatch</Code><Message>m</Message></Error>",
            b"s3://images\nHTTP/1.1 301 There\r\nx-amz-bucket-region: eu\r\n\r\n",
            b"s3://images\nHTTP/1.1 307 There\r\nLocation: https://o/x?sig=1\r\n\r\n\n%%\n"
            + HTTP + b"\r\nabcd",
            b"s3://images?style=virtual\nHTTP/1.1 404 No\r\n\r\n<Error><Code>NoSuchBucket</Code>",
            b"s3://images\nHTTP/1.1 400 No\r\n\r\n<Code>X</Code><Message>a\nb</Message></Error>",
        ],
        "docker-accounts": [
            b'{"auths": {"https://host:5000/v1/": {"auth": "YTpi"}}}',
            b'{"auths": {"host:5000/some": {"username": "a", "password": "\\u00fc"}}}',
            b'{"auths": {"host:5000": {"identitytoken": "y", "registrytoken": "x"}}}',
            b'{"credHelpers": {"host:5000": "secretservice"}}', b'{"credsStore": "pass"}',
            b'{"auths": {"host:5000": {"auth": "no"}}}', b"[" * 300, b'{"auths": 1}',
        ],
        "mountinfo": [
            b"",
            b"a\n\nb c\n\next4\n\n/dev/sda\n\nx",
            b"\n\n".join([b"a\\\rb\tc#"] * 10),
        ],
        "environment": [
            b"\xc2LOB_STORE=http://a\0\xc2OOTFS_MODE=erofs\0\xc2OOTFS_READ_LIMIT=5\0A=b\0",
            b"\xc2LOB_STORE=/s\0\xc2OOTFS_GATES=a b\0\xc2OOTFS_KEEP_CAPS=SYS_ADMIN\0",
            b"\xc2LOB_STORE=/s\0\xc2OOTFS_ENTRYPOINT=\0",
        ],
        "fuse-requests": list(_requests()),
        "journal": [
            b"",
            journal.HEADER.pack(
                journal.MAGIC, 1, 1, b"i" * 32, b"container", journal.boot_id()
            ) + journal.ROW.pack(7, 9) * 4,
        ],
        "status-file": [b"", encoded(), encoded(_count, mode="lease", has_ended=True)],
        "cache": [
            b"",
            join_parts([b"\1" * 9, b"\1\0\0\0" * 3, b"\0\x10\0\0" * 9, b"a" * 3000]),
            join_parts([b"\1" * 9, b"\xff" * 9, b"\xff" * 9, b"a" * 99, b"\1" * 16 * 9]),
            join_parts([b"x", b"", b"", b"=", (b"\1" + bytes(15)) * 9]),
        ],
        "start-order": [b"", struct.pack("<IIIIII", 0, 3, 40, 1, 10, 0), b"\xff" * 16],
    }  # fmt: skip


def _count(counts: Counts) -> None:
    counts.add_request(1, 16, 4096, 2, 1.0)
    counts.add_request(2, 16, 4096, 2, 2.0, is_failed=True)
    counts.whose = lambda: (1 << 21, 4096, 7, b"sh")
    counts.begin_wait()
    counts.note_wait(1.0, (1 << 22, 99, 0, b"\xff\x1b[2J"))
    counts.note_at_hand((0, 4096, 8, b""))


def main() -> int:
    """Add the seeds to the corpus."""
    for name, inputs in seeds().items():
        print(f"{name:<16} {add_to_corpus(TARGETS[name], inputs)} new")
    return 0


if __name__ == "__main__":
    sys.exit(main())
