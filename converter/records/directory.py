"""Where records are kept: a directory of who runs the converter, which others may not write.

What it says is believed, so it must be nobody else's: it is the converter's memory, no store.
"""

from __future__ import annotations

import os
import re
import stat
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from blake3 import blake3

from converter.order import Region
from converter.records.imagerecord import ImageRecord, read_layers, write_image_record
from converter.records.layerrecord import RecordedLayer, open_layer_record, write_layer_record
from converter.spool import FileBlob, Spool
from store.errors import FormatError
from store.format.chunkindex import ChunkIndex

VARIABLE = "BOOTFS_RECORDS"
NOWHERE = "none"
KEPT = 1 << 30
"""Bytes of records; those that were not used for longest go first."""
_IMAGES = 3
"""Image records read for one image at most."""
_NAME = re.compile(r"[0-9a-f]{64}")
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class Records:
    """A directory of records; what is wrong with it is told and costs only time."""

    @classmethod
    def of_user(cls, report: Callable[[str], None]) -> Self | None:
        """Return the directory of who runs this; None where he wants none.

        ``report`` gets a line about what cannot be used or kept.
        """
        chosen = os.environ.get(VARIABLE, "")
        if chosen == NOWHERE:
            return None
        if chosen:
            return cls(Path(chosen), report)
        home = os.environ.get("XDG_CACHE_HOME")
        cache = Path(home) if home else Path(os.path.expanduser("~/.cache"))
        if not cache.is_absolute():
            # A user whom the machine does not know has no home.
            report(f"no home directory to keep records in; {VARIABLE} names one, or {NOWHERE}")
            return None
        return cls(cache / "bootfs" / "records", report)

    def __init__(self, path: Path, report: Callable[[str], None]) -> None:
        self.path = path
        self.report = report
        self._told = False

    def open_layer(
        self, diff_id: str, spool: Spool, read_contents: Callable[[int, int], bytes]
    ) -> RecordedLayer | None:
        """Return a layer of which there is a sound record; see `open_layer_record`.

        Raises:
            StorageFull: the spool has no room for it.

        """
        path = self._layer_path(diff_id)
        try:
            self._check_private()
            layer = open_layer_record(path, diff_id, spool, read_contents)
            _make_young(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._tell(f"{error.filename or path}: {error.strerror}")
            return None
        except FormatError as error:
            self.report(str(error))
            return None
        return layer

    def keep_layer(self, diff_id: str, plain: FileBlob, runs: array[int]) -> None:
        """Record a verified layer; ``runs`` as in `write_layer_record`."""
        path = self._layer_path(diff_id)
        try:
            self._make(path.parent)
            write_layer_record(path, diff_id, plain, runs)
        except OSError as error:
            self._tell(f"{error.filename or path}: {error.strerror}")

    def find_images(self, diff_ids: Sequence[str]) -> list[ImageRecord]:
        """Return sound records of images that have some of these layers, the best first.

        Each has a layer that those before it have not; of equals the latest is taken.
        """
        found: list[ImageRecord] = []
        wanted = set(diff_ids)
        candidates = self._candidates(wanted)
        while candidates and wanted and len(found) < _IMAGES:
            best = max(candidates, key=lambda c: (len(wanted & c[1]), c[2], c[0]))
            candidates.remove(best)
            if not wanted & best[1]:
                break
            try:
                found.append(ImageRecord(best[0]))
            except FileNotFoundError:
                continue
            except OSError as error:
                self._tell(f"{best[0]}: {error.strerror}")
                continue
            except FormatError as error:
                self.report(str(error))
                continue
            _make_young(best[0])
            wanted -= best[1]
        return found

    def _candidates(self, wanted: set[str]) -> list[tuple[Path, set[str], float]]:
        """Return path, layers and time of every record that has a wanted layer."""
        candidates: list[tuple[Path, set[str], float]] = []
        try:
            self._check_private()
        except FileNotFoundError:
            return candidates
        except OSError as error:
            self._tell(f"{self.path}: {error.strerror}")
            return candidates
        for path in filter(_is_whole, self._paths("images")):
            try:
                layers = set(read_layers(path))
                time = path.stat().st_mtime
            except FileNotFoundError:
                continue  # given up by another conversion
            except OSError as error:
                self._tell(f"{path}: {error.strerror}")
                continue
            except FormatError as error:
                self.report(str(error))
                continue
            if layers & wanted:
                candidates.append((path, layers, time))
        return candidates

    def keep_image(
        self, diff_ids: Sequence[str], region: Region, names: Sequence[bytes], index: ChunkIndex
    ) -> None:
        """Record an image that was stored, and give up what is too much."""
        name = blake3("\n".join(diff_ids).encode()).hexdigest()
        path = self.path / "images" / name
        try:
            self._make(path.parent)
            write_image_record(path, diff_ids, region, names, index)
            self._give_up()
        except OSError as error:
            self._tell(f"{error.filename or path}: {error.strerror}")

    def _layer_path(self, diff_id: str) -> Path:
        return self.path / "layers" / diff_id.partition(":")[2]

    def _paths(self, kind: str) -> list[Path]:
        try:
            return sorted(path for path in (self.path / kind).iterdir() if path.is_file())
        except OSError:
            return []  # nothing was ever kept, or it was said already that nothing can be

    def _make(self, directory: Path) -> None:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._check_private()
        directory.mkdir(mode=0o700, exist_ok=True)

    def _check_private(self) -> None:
        """Return when nobody else can have put a record there.

        Raises:
            OSError: somebody can, or there is no directory.

        """
        status = self.path.stat()
        if status.st_uid != os.geteuid() or status.st_mode & _OTHERS_WRITE:
            raise PermissionError(0, "others may write it", str(self.path))

    def _give_up(self) -> None:
        kept: list[tuple[float, Path, int]] = []
        for path in (*self._paths("layers"), *self._paths("images")):
            with suppress(FileNotFoundError):  # by another conversion
                status = path.stat()
                kept.append((status.st_mtime, path, status.st_size))
        total = 0
        for _, path, size in sorted(kept, reverse=True):
            total += size
            if total > KEPT:
                path.unlink(missing_ok=True)

    def _tell(self, problem: str) -> None:
        """Say once that records cannot be used or kept."""
        if not self._told:
            self.report(
                f"{problem}: what conversions find out is not kept for later ones; "
                f"{VARIABLE} names another directory, or {NOWHERE}"
            )
        self._told = True


def _is_whole(path: Path) -> bool:
    """Whether it is not what a conversion still writes, or was killed at."""
    return _NAME.fullmatch(path.name) is not None


def _make_young(path: Path) -> None:
    with suppress(OSError):  # given up by another conversion meanwhile, or on a read-only disk
        os.utime(path)
