"""The programs that sources have started and that have not ended."""

from __future__ import annotations

PIDS: set[int] = set()
"""Their process ids.  Who stops or ends processes by looking for all must spare these."""
