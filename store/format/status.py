"""What a container counts of itself: how that lies in memory, and in its status file.

docs/format.md, "Status, version 1".  The processes of bootfs in a container count in memory
that they share (store/read/counts.py); PID 1 writes it out, as it is, behind a header
(boot/status.py).  Nobody but `converter/statusfile.py` reads it, as bytes of a stranger.
"""

from __future__ import annotations

from struct import Struct

MAGIC = b"bootfsST"
VERSION = 1
MODES = ("", "erofs", "fuse", "lease", "eager")
"""By the number that stands for each."""

# ------  ----  ------------------------------------------------
# offset  size  header (little-endian)
# ------  ----  ------------------------------------------------
#      0     8  magic "bootfsST"
#      8     4  version, 1
#     12     2  mode, a place in MODES
#     14     2  1 when the workload has ended
#     16     8  when it was written: ns since 1970
#     24     8  the same by the clock of all times below: ns
#     32    32  digest of the chunk index
# ------  ----  ------------------------------------------------
HEADER = Struct("<8sIHHQQ32s")

NUMBERS = (
    *("chunks", "data_bytes", "requests", "fetched_bytes", "fetched_chunks", "errors"),
    *("fetch_ns", "cache_hits", "cache_bad", "followed", "shared", "answered"),
    *("waits", "waiting", "wait_ns", "to_fill", "filled"),
    *("listed_requests", "listed_reads", "unlisted_reads", "daemons"),
)
"""The numbers at the head of what is counted, eight bytes each; docs/format.md says of what."""
STEPS = ("begun", "served", "mounted", "rooted", "handed", "ended")
"""Steps of a start, whose times follow: ns by CLOCK_MONOTONIC, 0 for not yet."""
BEGUN, SERVED, MOUNTED, ROOTED, HANDED, ENDED = range(len(STEPS))
BOUNDS_S = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
"""Upper bounds of a histogram's buckets; what took longer is in one more."""
BUCKETS = len(BOUNDS_S) + 1
COUNTS = Struct(f"<{len(NUMBERS)}Q{8 * len(STEPS)}s{8 * BUCKETS}s{8 * BUCKETS}s")
"""Numbers, steps, and the histograms of fetches and of waits."""
NUMBER = Struct("<Q")
STEPS_AT = len(NUMBERS) * NUMBER.size

# ------  ----  ------------------------------------------------
# offset  size  request, in the order in which they ended
# ------  ----  ------------------------------------------------
#      0     8  when it began: ns
#      8     8  how long it took: ns
#     16     8  offset in the pack
#     24     4  size
#     28     4  pack, its place in the chunk index, or HOT_PACK
#     32     4  chunks
#     36     4  1 when it failed
# ------  ----  ------------------------------------------------
REQUEST = Struct("<QQQIIII")

# ------  ----  ------------------------------------------------
# offset  size  read, in the order in which they began
# ------  ----  ------------------------------------------------
#      0     8  when it began: ns; when it was answered, if it did not wait
#      8     8  how long it waited: ns; 0 not at all, 2^64 - 1 still
#     16     8  offset in image.erofs
#     24     4  size
#     28     4  process id, 0 where that is not known
#     32    16  the process's name, zeros behind it
# ------  ----  ------------------------------------------------
READ = Struct("<QQQII16s")
HOT_PACK = (1 << 32) - 1
UNDER_WAY = (1 << 64) - 1

REQUEST_LIMIT = 2048
READ_LIMIT = 6144
HAND_LIMIT = 2048
"""Reads listed that did not wait; the first ones, as of all."""
REQUESTS_AT = 1024
READS_AT = REQUESTS_AT + REQUEST_LIMIT * REQUEST.size
MEMORY = READS_AT + READ_LIMIT * READ.size
"""Bytes of the memory; what is not used of it takes none."""
FILE_LIMIT = HEADER.size + COUNTS.size + MEMORY - REQUESTS_AT
"""Bytes of the longest status file."""


def number_at(name: str) -> int:
    """Return where a number lies in what is counted."""
    return NUMBERS.index(name) * NUMBER.size
