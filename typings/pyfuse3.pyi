"""What mode `fuse` uses of pyfuse3 3.2, which needs libfuse to install and runs in the bundle."""

from collections.abc import Iterable, Sequence

ROOT_INODE: int

class FUSEError(Exception):
    errno: int
    def __init__(self, errno: int) -> None: ...

class RequestContext:
    pid: int

class ReaddirToken: ...

class FileInfo:
    def __init__(self, *, fh: int, keep_cache: bool = ...) -> None: ...

class EntryAttributes:
    st_ino: int
    generation: int
    entry_timeout: float
    attr_timeout: float
    st_mode: int
    st_nlink: int
    st_uid: int
    st_gid: int
    st_rdev: int
    st_size: int
    st_blksize: int
    st_blocks: int
    st_atime_ns: int
    st_ctime_ns: int
    st_mtime_ns: int

class StatvfsData:
    f_bsize: int
    f_frsize: int
    f_blocks: int
    f_files: int
    f_namemax: int

class Operations:
    supports_dot_lookup: bool
    enable_writeback_cache: bool
    enable_acl: bool
    async def lookup(self, parent: int, name: bytes, ctx: RequestContext) -> EntryAttributes: ...
    async def forget(self, inodes: Sequence[tuple[int, int]]) -> None: ...
    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes: ...
    async def readlink(self, inode: int, ctx: RequestContext) -> bytes: ...
    async def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes: ...
    async def listxattr(self, inode: int, ctx: RequestContext) -> Sequence[bytes]: ...
    async def opendir(self, inode: int, ctx: RequestContext) -> int: ...
    async def readdir(self, fh: int, start_id: int, token: ReaddirToken) -> None: ...
    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo: ...
    async def read(self, fh: int, off: int, size: int) -> bytes: ...
    async def statfs(self, ctx: RequestContext) -> StatvfsData: ...

def init(ops: Operations, mountpoint: str, options: Iterable[str]) -> None: ...
def readdir_reply(
    token: ReaddirToken, name: bytes, attr: EntryAttributes, next_id: int
) -> bool: ...
async def main() -> None: ...
