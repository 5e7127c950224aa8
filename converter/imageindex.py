"""Conversion of an image index: every image that is wanted of it, into one index of boot images."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from converter.bootimage import check_source
from converter.convert import Report, convert, has_ssh_url, report_of, report_unchanged
from converter.earlier import Kept, read_earlier
from converter.images.ociimage import OciImage, OciIndex
from converter.images.transports import (
    check_destination,
    check_holds_index,
    join_store,
    list_images,
    open_image,
    set_apart,
    write_index,
    write_joined_images,
)
from converter.making import Made, add_first_profile, make_boot_image
from converter.platforms import ALL, LeftOut, Listed, Platform, choose_several, is_same, shown
from converter.progress import Progress
from converter.records.directory import Records
from converter.reference import Reference
from converter.settings import Settings
from converter.sourceconfig import architecture_of
from converter.spool import Spool
from store.errors import (
    ConvertError,
    FormatError,
    ImageNotFound,
    IntegrityError,
    NotFound,
    UsageError,
)
from store.interfaces import Backend
from store.write.artifact import boot_image_tag
from store.write.roots import commit


@dataclass(frozen=True, slots=True)
class IndexReport:
    """What a conversion of several images did."""

    reference: str
    digest: str
    """Of the image index; of the boot image where there is but one."""
    images: list[tuple[str, Report]]
    """Platform of each boot image, and what was done for it, in the index's order; empty of an
    image that no index lists."""
    left_out: list[LeftOut]

    @property
    def is_whole(self) -> bool:
        """Whether the source has no image that was left out."""
        return not any(one.is_image for one in self.left_out)

    def as_json(self) -> dict[str, object]:
        """Return the report as what ``--json`` prints."""
        images = [{"platform": platform, **report.as_json()} for platform, report in self.images]
        left_out = [asdict(one) for one in self.left_out]
        return {
            "reference": self.reference,
            "digest": self.digest,
            "images": images,
            "left_out": left_out,
        }


def convert_several(
    source: Reference,
    destination: Reference,
    backend: Backend,
    level: int,
    blob_store: str,
    progress: Progress,
    platforms: Sequence[Platform],
    *,
    with_ssh: bool = False,
    settings: Settings | None = None,
    force: bool = False,
    makes_profile: bool = False,
    records: Records | None = None,
    read_all: bool = False,
) -> IndexReport:
    """Convert the images for ``platforms`` of an image index into boot images at ``destination``.

    They are one after the other made from the same store, and then committed and written
    together, as one image index; where one alone is wanted or there, as that image.
    ``settings``, ``makes_profile``, ``records`` and ``read_all`` are as for `convert`.

    Raises:
        UsageError: the destination holds one image alone, or the boot images would take the
            place of their source.
        ImageNotFound: there is no image for one of the platforms, or of all for none.
        BootfsError: whatever part fails says what and where; nothing is visible then.

    """
    if destination.is_place_of(source):
        raise UsageError(f"{destination} is SOURCE, which would be lost; give another DEST")
    if ALL not in platforms:
        # Before anything is read: it cannot come to one image alone.
        check_holds_index(destination)
    started = time.monotonic()
    progress.step("open")
    with Spool(advance=progress.advance) as spool:
        listed = list_images(source, spool)
    if listed is None and ALL not in platforms:
        raise ImageNotFound(
            f"{source} is one image and no image index, so there are not those of several "
            "platforms; give --platform once, or another image"
        )
    chosen: list[Listed] = []
    left_out: list[LeftOut] = []
    if listed is not None:
        chosen, left_out = choose_several(listed, platforms, str(source))
    if len(chosen) < 2:
        one = convert(
            source, destination, backend, level, blob_store, progress,
            chosen[0] if chosen else None, with_ssh=with_ssh, settings=settings, force=force,
            makes_profile=makes_profile, records=records, read_all=read_all,
        )  # fmt: skip
        digest = one.boot_image.digest
        named = str(chosen[0]) if chosen else ""
        return IndexReport(str(destination), digest, [(named, one)], left_out)
    check_holds_index(destination)
    kept = Kept(level, blob_store, backend, with_ssh or has_ssh_url(blob_store))
    backend.check()
    set_apart(destination, backend)
    there = None if force else _unchanged(source, destination, chosen, kept, progress)
    if there is None:
        check_destination(destination)
        made = [_make(source, one, kept, progress, records, read_all=read_all) for one in chosen]
        there = _write(
            destination, chosen, made, backend, progress, started, makes_profile=makes_profile
        )
        progress.end()
    digest, reports = there
    reported = [(str(one), report) for one, report in zip(chosen, reports, strict=True)]
    return IndexReport(str(destination), digest, reported, left_out)


def _make(
    source: Reference,
    listed: Listed,
    kept: Kept,
    progress: Progress,
    records: Records | None,
    *,
    read_all: bool,
) -> Made:
    """Return the boot image of one image of an index, its data in the store."""
    progress.step("open")
    with Spool(advance=progress.advance) as spool:
        image = open_image(source, spool, listed)
        check_source(image)
        stated = listed.stated.get("architecture")
        if stated != architecture_of(image.config):
            raise ConvertError(
                f"{source}: the image index has {listed.digest} for {listed}, and by its config it "
                f"is for {shown(image.config)}; build the image again"
            )
        made = make_boot_image(image, kept, spool, progress, records, read_all=read_all)
    # Else all that is in memory of one were held until the last is made.
    return replace(made, at_hand=None)


def _write(
    destination: Reference,
    chosen: Sequence[Listed],
    made: Sequence[Made],
    backend: Backend,
    progress: Progress,
    started: float,
    *,
    makes_profile: bool,
) -> tuple[str, list[Report]]:
    """Commit boot images and write them; return the digest of their index, and their reports."""
    joined = []
    for listed, one in zip(chosen, made, strict=True):
        together = join_store(
            destination, one.config, one.layers, backend, one.chunk_index, listed.stated
        )
        commit(backend, one.chunk_index, one.packs)
        joined += [together] if together else []
    if joined:
        images = [one.boot_image for one in joined]
        digest = write_joined_images(joined)
    else:
        images = [
            OciImage(one.config, one.layers, listed.stated)
            for listed, one in zip(chosen, made, strict=True)
        ]
        tags = [
            boot_image_tag(one.chunk_index, image.digest)
            for one, image in zip(made, images, strict=True)
        ]
        digest = write_index(destination, OciIndex(images), tags)
    reports = []
    for place, (one, image) in enumerate(zip(made, images, strict=True)):
        if joined:
            joined[place].choose()
        profile = add_first_profile(one, backend, progress) if makes_profile else None
        reports.append(report_of(one, str(destination), image.digest, started, profile))
    return digest, reports


def _unchanged(
    source: Reference,
    destination: Reference,
    chosen: Sequence[Listed],
    kept: Kept,
    progress: Progress,
) -> tuple[str, list[Report]] | None:
    """Return what there is to say when the destination has just what would be made; else None."""
    started = time.monotonic()
    digest, reports = "", []
    with Spool(advance=progress.advance) as spool:
        try:
            listed = list_images(destination, spool) or []
        except (NotFound, UsageError, FormatError, IntegrityError):
            # Whatever is there is for `check_destination` to judge.
            return None
        there = [one for one in listed if one.is_image]
        if len(there) != len(chosen):
            return None
        for wanted, found in zip(chosen, there, strict=True):
            if not is_same(wanted.stated, found.stated):
                return None
            earlier = read_earlier(destination, spool, found)
            if earlier is None or not earlier.is_of(str(source), wanted.digest, kept):
                return None
            report = report_unchanged(earlier, [], destination, kept, progress, started)
            image = replace(report.boot_image, digest=found.digest)
            digest = earlier.digest
            reports.append(replace(report, boot_image=image))
    return digest, reports
