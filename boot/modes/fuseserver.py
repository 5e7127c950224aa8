"""The daemon of mode ``fuse``: requests of pyfuse3 answered from the bootstrap."""

from __future__ import annotations

import errno
import os
import stat
import sys
from _thread import get_ident

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, Operations, ReaddirToken, RequestContext

from boot.config import Settings
from boot.daemon import name_of, open_image
from boot.log import log
from boot.repeats import RepeatedReads
from store.errors import BootfsError, MountFailed
from store.format.erofs import Image, Inode
from store.read.image import ImageReader

CACHED_S = 1e9
"""The tree never changes: the kernel may keep what it has been told."""
READERS = 32
"""Reads in threads at once."""
INODES_KEPT = 4096

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from mmap import mmap
    from types import TracebackType

    from store.read.counts import Asked


class Answering:
    """A block of code in which whatever fails is EIO to the caller, and a line of the log.

    What pyfuse3 itself hears of ends the daemon.
    """

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Answer with EIO what is no answer yet; cancelling is none that anybody waits for."""
        if isinstance(error, Exception) and not isinstance(error, FUSEError):
            log(str(error) if isinstance(error, BootfsError) else f"request failed: {error!r}")
            raise FUSEError(errno.EIO) from None


ANSWERING = Answering()


class Tree(Operations):
    """The requests the kernel has of a read-only tree."""

    supports_dot_lookup = False
    enable_writeback_cache = False
    # Without it the kernel shows ACLs and goes by the mode alone, whose group bits are then
    # the mask of the ACL.  With it the kernel asks for them as xattrs, and keeps them.
    enable_acl = True

    def __init__(self, image: Image, reader: ImageReader) -> None:
        super().__init__()
        self._counts = reader.chunks.counts
        self._counts.whose = self._whose
        self._asked: dict[int, Asked] = {}
        """What a thread reads, by its number, until it is listed."""
        self._openers: dict[int, int] = {}
        """The process that opened an inode last."""
        self._image = image
        self._reads = RepeatedReads(reader.read)
        self._limiter = trio.CapacityLimiter(READERS)
        self._inodes: dict[int, Inode] = {}

    def _nid(self, number: int) -> int:
        # FUSE's root is 1 whatever the image's is; nid 1 cannot be an inode of ours,
        # since the superblock is there.
        return self._image.root_nid if number == pyfuse3.ROOT_INODE else number

    def _inode(self, number: int) -> Inode:
        nid = self._nid(number)
        inode = self._inodes.get(nid)
        if inode is None:
            if len(self._inodes) >= INODES_KEPT:
                self._inodes.clear()
            inode = self._inodes[nid] = self._image.inode(nid)
        return inode

    def _attributes(self, inode: Inode) -> EntryAttributes:
        entry = EntryAttributes()
        is_root = inode.nid == self._image.root_nid
        entry.st_ino = pyfuse3.ROOT_INODE if is_root else inode.nid
        entry.generation = 0
        entry.entry_timeout = entry.attr_timeout = CACHED_S
        entry.st_mode = inode.mode
        entry.st_nlink = inode.nlink
        entry.st_uid = inode.uid
        entry.st_gid = inode.gid
        entry.st_rdev = os.makedev(*inode.rdev)
        entry.st_size = inode.size
        entry.st_blksize = 4096
        # As EROFS counts them: whole blocks.
        entry.st_blocks = -(-inode.size // 4096) * 8
        time_ns = inode.mtime_s * 10**9 + inode.mtime_ns
        entry.st_atime_ns = entry.st_ctime_ns = entry.st_mtime_ns = time_ns
        return entry

    async def lookup(self, parent: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        """Return what ``name`` is; an unknown one is remembered by the kernel too."""
        with ANSWERING:
            nid = self._image.lookup(self._inode(parent), name)
            if nid is not None:
                return self._attributes(self._inode(nid))
        entry = EntryAttributes()
        entry.st_ino = 0
        entry.entry_timeout = CACHED_S
        return entry

    async def forget(self, inodes: Sequence[tuple[int, int]]) -> None:
        """Forget nothing: inodes are places in the bootstrap."""

    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        """Return an inode's attributes."""
        with ANSWERING:
            return self._attributes(self._inode(inode))

    async def readlink(self, inode: int, ctx: RequestContext) -> bytes:
        """Return a link's target."""
        with ANSWERING:
            return self._image.readlink(self._inode(inode))

    async def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:
        """Return an extended attribute."""
        with ANSWERING:
            xattrs = self._image.xattrs(self._inode(inode))
            if name not in xattrs:
                raise FUSEError(errno.ENODATA)
            return xattrs[name]

    async def listxattr(self, inode: int, ctx: RequestContext) -> Sequence[bytes]:
        """Return the names of extended attributes."""
        with ANSWERING:
            return list(self._image.xattrs(self._inode(inode)))

    async def opendir(self, inode: int, ctx: RequestContext) -> int:
        """Return a handle: the inode itself."""
        return inode

    async def readdir(self, fh: int, start_id: int, token: ReaddirToken) -> None:
        """List a directory from a cookie on, with attributes.

        ``.`` and ``..`` too: the kernel makes up neither.
        """
        with ANSWERING:
            for name, nid, _, cookie in self._image.iter_dir_from(self._inode(fh), start_id):
                entry = self._attributes(self._inode(nid))
                if not pyfuse3.readdir_reply(token, name, entry, cookie):
                    return

    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        """Return a handle: the inode itself; the kernel keeps its pages between opens."""
        if len(self._openers) >= INODES_KEPT:
            self._openers.clear()
        # A read does not say whose it is.
        self._openers[inode] = ctx.pid
        with ANSWERING:
            if not stat.S_ISREG(self._inode(inode).mode):
                raise FUSEError(errno.EINVAL)
        return FileInfo(fh=inode, keep_cache=True)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        """Return bytes of a file, or EIO where they cannot be had unharmed."""
        with ANSWERING:
            inode = self._inode(fh)
            size = min(size, inode.size - off)
            if size <= 0:
                return b""
            offset = inode.data_offset + off
            opener = self._openers.get(fh, 0)
            try:
                return await trio.to_thread.run_sync(
                    self._read, offset, size, opener, limiter=self._limiter
                )
            except RuntimeError:
                # The container may have no more threads (--pids-limit): others wait for this.
                return self._read(offset, size, opener)

    def _read(self, offset: int, size: int, opener: int) -> bytes:
        me = get_ident()
        self._asked[me] = (offset, size, opener, b"")
        data = b"".join(self._reads.read(offset, size))
        counts = self._counts
        counts.counters.answered += 1
        asked = self._asked.pop(me, None)
        if asked is not None and counts.lists_at_hand():
            counts.note_at_hand(asked)
        return data

    def _whose(self) -> Asked | None:
        asked = self._asked.pop(get_ident(), None)
        return None if asked is None else (*asked[:3], name_of(asked[2]))

    async def statfs(self, ctx: RequestContext) -> pyfuse3.StatvfsData:
        """Return the size of the image; nothing is free."""
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = 4096
        data.f_blocks = self._image.size // 4096
        data.f_files = self._image.inode_count
        data.f_namemax = 255
        return data


def serve_tree(settings: Settings, place: bytes, memory: mmap, mounted: Callable[[], None]) -> None:
    """Mount the image's tree at ``place``, tell ``mounted``, and serve it until unmounted.

    What is done is counted in ``memory``.

    Raises:
        MountFailed: libfuse could not mount it.
        BootfsError: the image cannot be served at all.

    """
    if settings.record_s:
        log("nothing is recorded: mode fuse does not; BOOTFS_MODE=erofs does")
    command = [*settings.entrypoint, *map(os.fsencode, sys.argv[1:])]
    reader = open_image(settings, command, memory).image
    tree = Tree(Image(reader.bootstrap.read_all()), reader)
    options = {"fsname=bootfs", "ro", "allow_other", "default_permissions", "dev", "suid"}
    try:
        pyfuse3.init(tree, os.fsdecode(place), options)
    except RuntimeError as error:
        raise MountFailed(f"pyfuse3 cannot mount: {error}") from None
    mounted()
    trio.run(pyfuse3.main)
