"""Boot images that are there already: whether a conversion would make the same again."""

from __future__ import annotations

from dataclasses import dataclass

from converter import RELEASE
from converter.bootimage import LABEL, public_name
from converter.bootview import BootView, read_boot_image
from converter.images.gzipping import gzip_deterministic
from converter.images.transports import may_have_label, open_image
from converter.images.view import ImageView
from converter.platforms import Wish
from converter.reference import ROOT_ALONE, Reference
from converter.runtime import RuntimeLayer, open_runtime, open_ssh
from converter.runtime.contents import ARCHITECTURES
from converter.sourceconfig import architecture_of
from converter.spool import Spool
from store.errors import ConvertError, FormatError, IntegrityError, NotFound, UsageError
from store.format.names import STORE_MARK, manifest_name
from store.interfaces import Backend
from store.write.roots import needed_names


@dataclass(frozen=True, slots=True)
class Kept:
    """What else than the source decides a boot image, and where its data are."""

    level: int
    blob_store: str
    backend: Backend
    has_ssh: bool
    """Whether it has the layer that reads stores over SSH."""

    def shared(self, architecture: str) -> list[RuntimeLayer]:
        """Return the layers below its own, for an architecture as OCI names it.

        Raises:
            BootfsError: as `open_runtime`.

        """
        machine = next(name for name, its in ARCHITECTURES.items() if its == architecture)
        runtime = open_runtime(machine)
        return [runtime, open_ssh(machine)] if self.has_ssh else [runtime]


@dataclass(frozen=True, slots=True)
class Earlier:
    """A boot image that lies where one shall be written."""

    view: BootView
    digest: str
    """As `write_image` returned it."""
    image: ImageView

    def own_layer_size(self) -> int:
        """Return the size of its own layer, gzipped as it was when it was made."""
        stored = self.image.layers[-1].stored
        data = stored.pread(0, stored.size)
        return len(data) if data[:2] == b"\x1f\x8b" else len(gzip_deterministic(data))

    def is_of(self, source: str, digest: str, kept: Kept) -> bool:
        """Whether a conversion would make it again, and the store has all that it needs.

        ``source`` is the reference of the source image, ``digest`` its digest.

        Raises:
            AccessDenied, RemoteError: the store cannot be asked.

        """
        wanted = {
            "release": RELEASE,
            "level": str(kept.level),
            "source.reference": public_name(source),
            "source.digest": digest,
        }
        view = self.view
        labels = view.labels
        if any(labels.get(name) != value for name, value in wanted.items()):
            return False
        layers = (view.image_config.get("rootfs") or {}).get("diff_ids") or []
        if view.config.blob_store != kept.blob_store.encode():
            return False
        try:
            architecture = architecture_of(view.image_config)
        except ConvertError:
            return False
        if layers[:-1] != [layer.diff_id for layer in kept.shared(architecture)]:
            return False
        image = view.config.chunk_index
        packs = zip(view.index.pack_digests, view.index.pack_sizes, strict=True)
        # The manifest first: without it a collection may be about to take the rest.
        names = [STORE_MARK, manifest_name(image), *sorted(needed_names(image, list(packs)))]
        return all(kept.backend.has(name) for name in names)


def read_earlier(destination: Reference, spool: Spool, platform: Wish) -> Earlier | None:
    """Return the boot image at ``destination``; None where there is none, or something else.

    Of an image index that for ``platform``.

    Raises:
        AccessDenied, Unreachable, StorageFull: nobody can tell.

    """
    if destination.transport in ROOT_ALONE:
        return None
    try:
        if not may_have_label(destination, LABEL + "release"):
            return None
        image = open_image(destination, spool, platform)
        digest = image.named_digest or image.manifest_digest
        return Earlier(read_boot_image(image, spool, measures=True), digest, image)
    except (NotFound, UsageError, FormatError, IntegrityError):
        # Whatever else is there is for `check_destination` to judge.
        return None
