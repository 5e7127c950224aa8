"""What a container's earlier starts made and filled, so that a later start goes on there.

A file in the container's own root, mapped by PID 1: what is written there outlives
PID 1 without a system call.  A file counts as filled when its row says so and not
before; a row is written when the contents are all there, and before anybody can open
the file and change them.
"""

from __future__ import annotations

import os
from mmap import mmap
from struct import Struct

from boot.config import HOME
from store.errors import BootError, FormatError

PATH = f"{HOME}/journal"
MAGIC = b"bootfsLJ"
VERSION = 1

# ------  ----  ------------------------------------------------
# offset  size  header (little-endian)
# ------  ----  ------------------------------------------------
#      0     8  magic "bootfsLJ"
#      8     4  version, 1
#     12     4  1 when the whole tree has been made
#     16    32  digest of the chunk index
#     48    64  container, cut at 64 bytes, zeros behind it
#    112    16  boot id of the kernel that wrote last
# ------  ----  ------------------------------------------------
HEADER = Struct("<8sII32s64s16s")

# ------  ----  ------------------------------------------------
# offset  size  row, one for each regular file with contents
# ------  ----  ------------------------------------------------
#      0     8  inode number in the root
#      8     8  0: not filled; else its ctime, ns, when it was
# ------  ----  ------------------------------------------------
ROW = Struct("<QQ")


class Journal:
    """The rows of one container."""

    def __init__(self, chunk_index: bytes, container: str, rows: int) -> None:
        """Find the journal, or begin one with room for ``rows``.

        Raises:
            BootError: it cannot be written, or belongs to another image.

        """
        name = container.encode()[:64]
        head = HEADER.pack(MAGIC, VERSION, 0, chunk_index, name, boot_id())
        size = HEADER.size + rows * ROW.size
        self._rows = rows
        try:
            fd = os.open(PATH, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                found = os.pread(fd, HEADER.size, 0)
                if len(found) < HEADER.size or not HEADER.unpack(found)[2]:
                    # Of a start that was cut off before its workload ran: nothing is worth keeping.
                    os.ftruncate(fd, 0)
                    os.ftruncate(fd, size)
                    os.pwrite(fd, head, 0)
                    found = head
                elif os.fstat(fd).st_size != size:
                    raise BootError(f"{PATH} is of another image: remove the container")
                self._map = mmap(fd, size)
            finally:
                os.close(fd)
        except OSError as error:
            raise BootError(f"{PATH}: {error.strerror}; {NEEDS_ROOT}") from None
        magic, version, built, index, owner, boot = HEADER.unpack(found)
        if (magic, version, index) != (MAGIC, VERSION, chunk_index):
            raise BootError(f"{PATH} is of another image or release: remove the container")
        self.is_built = bool(built)
        """The whole tree is there."""
        self.is_own = owner.rstrip(b"\0") == name
        """This container made it: not another one, of which this one's image was committed."""
        self.is_same_boot = boot == boot_id()
        """The kernel has run ever since: what was written to a file is there."""
        if not (self.is_own and self.is_same_boot):
            self._map[: HEADER.size] = HEADER.pack(
                MAGIC, VERSION, built, chunk_index, name, boot_id()
            )

    def set_inode(self, row: int, inode: int) -> None:
        """Note which file of the root a row is of; it is not filled."""
        ROW.pack_into(self._map, self._place(row), inode, 0)

    def set_filled(self, row: int, ctime_ns: int) -> None:
        """Note that the contents are there, whole."""
        inode = self.row(row)[0]
        ROW.pack_into(self._map, self._place(row), inode, ctime_ns)

    def row(self, row: int) -> tuple[int, int]:
        """Return inode number, and ctime when filled or 0."""
        inode, ctime_ns = ROW.unpack_from(self._map, self._place(row))
        return inode, ctime_ns

    def _place(self, row: int) -> int:
        if not 0 <= row < self._rows:
            raise FormatError("bootstrap", 0, f"inode ordinal {row} of {self._rows}")
        return HEADER.size + row * ROW.size

    def set_built(self) -> None:
        """Note that the whole tree has been made."""
        self._map[12:16] = (1).to_bytes(4, "little")


NEEDS_ROOT = (
    "without SYS_ADMIN the image is made in the container's own root, which must be writable: "
    "do without --read-only, or give --cap-add SYS_ADMIN --device /dev/fuse "
    "--security-opt apparmor=unconfined"
)


def boot_id() -> bytes:
    """Return 16 bytes that are others after each boot of the kernel (random(4))."""
    with open("/proc/sys/kernel/random/boot_id", "rb", buffering=0) as file:
        return bytes.fromhex((file.readall() or b"").decode().strip().replace("-", ""))
