"""``bootfs profile add --analyze``: a profile told from the image alone."""

from __future__ import annotations

import json
import sys
from contextlib import closing

from converter.firstprofile import NAME, analyse_image, settings_of_boot_image
from converter.platforms import Platform
from converter.profileplace import READ_LIMIT_S, open_profiled, writable_store
from converter.profileviews import describe, printable
from converter.progress import shown_progress
from converter.reference import parse_reference
from store.errors import NotFound, UsageError
from store.write.backends import open_backend
from store.write.hostsource import open_host_source
from store.write.profilebuild import ANALYSIS, check_name
from store.write.profilestore import add_profile, has_damage, read_profiles


def add_analysed(
    image: str,
    name: str | None,
    store: str | None,
    platform: Platform | None,
    progress_wish: str | None,
    *,
    replaces: bool,
    as_json: bool,
) -> int:
    """Add the profile that a boot image's own command tells; return 0.

    What is looked into is fetched from the store, some megabytes.

    Raises:
        UsageError: the store cannot be written, or has a profile of that name that was measured.
        NotFound: there is no such image or store, or the command tells nothing.
        IntegrityError: what the store has is damaged.
        StorageFull, AccessDenied, RemoteError: as they say.

    """
    name = NAME if name is None else name
    check_name(name)
    opened = open_profiled(parse_reference(image), store, platform)
    url = writable_store(opened.store)
    view = opened.view
    with (
        closing(open_backend(url)) as backend,
        closing(open_host_source(url, READ_LIMIT_S, _warn)) as source,
        shown_progress(progress_wish) as progress,
    ):
        known = (
            []
            if replaces and has_damage(backend, opened.image)
            else read_profiles(backend, opened.image)
        )
        progress.step("analyse")
        with closing(view.open_reader(source)) as reader:
            profile = analyse_image(
                view.open_tree(reader),
                view.index,
                lambda at, size: b"".join(reader.read(at, size)),
                settings_of_boot_image(view),
                name,
            )
        if profile is None:
            raise NotFound(
                f"{view.name}: its command names no program that the image has; record a start "
                "by bootfs trace"
            )
        for one in known:
            is_in_place = one.name == name or one.command == profile.command
            if is_in_place and one.origin != ANALYSIS and not replaces:
                raise UsageError(
                    f"profile {one.name!r} was recorded, which says more than the image alone; "
                    "--replace adds what that tells all the same"
                )
        size = sum(view.index.plain_sizes[chunk] for chunk in profile.chunks)
        progress.step("hot pack", size)
        # In the place of one that was analysed before: there is nothing to merge in the same.
        whole = add_profile(
            backend, opened.image, view.index, profile, replaces=True, advance=progress.advance
        )
        progress.end()
    fact = describe(whole, view.index)
    if as_json:
        print(json.dumps([fact]))
    else:
        print(
            f"{printable(fact['name'])}: {fact['reads']:,} reads told from the image, "
            f"{fact['chunks']:,} chunks, {fact['plain'] / 1e6:.1f} MB; "
            f"hot pack of {fact['hot_pack'] / 1e6:.1f} MB"
        )
    return 0


def _warn(message: str) -> None:
    print(f"bootfs: {message}", file=sys.stderr)
