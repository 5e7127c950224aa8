"""Open and write images wherever their references point."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from converter.images.archive import open_docker_archive
from converter.images.archivewriter import write_docker_archive
from converter.images.ociimage import OciIndex
from converter.images.ocilayout import (
    list_oci_archive,
    list_oci_layout,
    open_oci_archive,
    open_oci_layout,
)
from converter.images.ociwriter import (
    add_to_layout,
    check_oci_layout,
    write_archive_of,
    write_oci_archive,
    write_oci_layout,
)
from converter.images.placing import refuse_existing_file
from converter.images.rootfs import open_directory, open_tar
from converter.images.view import ImageView, JsonObject, Layer
from converter.platforms import Listed, Wish, check_stated
from converter.reference import (
    DIR,
    DOCKER_ARCHIVE,
    DOCKER_DAEMON,
    OCI,
    OCI_ARCHIVE,
    REGISTRY,
    ROOT_ALONE,
    TAR,
    Reference,
)
from converter.spool import Spool, os_errors_at
from store.errors import NotFound, UsageError
from store.format.names import manifest_name
from store.interfaces import Backend
from store.write.backends import is_in_registry
from store.write.collecting import forget

if TYPE_CHECKING:
    from converter.images.joined import JoinedImage


def _open_daemon_image(reference: Reference, spool: Spool, platform: Wish) -> ImageView:
    from converter.images.daemon import open_daemon_image

    return _checked(open_daemon_image(reference, spool), platform)


def _open_docker_archive(reference: Reference, spool: Spool, platform: Wish) -> ImageView:
    return _checked(open_docker_archive(reference, spool), platform)


def _checked(view: ImageView, platform: Wish) -> ImageView:
    check_stated(view.config, platform, view.name)
    return view


def _open_tar(reference: Reference, spool: Spool, platform: Wish) -> ImageView:
    return _checked(open_tar(reference, spool), platform)


def _open_registry_image(reference: Reference, spool: Spool, platform: Wish) -> ImageView:
    from converter.images.registry import open_registry_image

    return open_registry_image(reference, spool, platform)


def _write_daemon_image(reference: Reference, config: JsonObject, layers: Sequence[Layer]) -> str:
    from converter.images.daemon import write_daemon_image

    return write_daemon_image(reference, config, layers)


def _write_registry_image(reference: Reference, config: JsonObject, layers: Sequence[Layer]) -> str:
    from converter.images.registry import write_registry_image

    return write_registry_image(reference, config, layers)


def _list_registry_image(reference: Reference, spool: Spool) -> list[Listed] | None:
    from converter.images.registry import list_registry_image

    return list_registry_image(reference, spool)


_OPEN: dict[str, Callable[[Reference, Spool, Wish], ImageView]] = {
    DOCKER_DAEMON: _open_daemon_image,
    DOCKER_ARCHIVE: _open_docker_archive,
    OCI: open_oci_layout,
    OCI_ARCHIVE: open_oci_archive,
    **dict.fromkeys(REGISTRY, _open_registry_image),
    DIR: open_directory,
    TAR: _open_tar,
}
_LIST: dict[str, Callable[[Reference, Spool], list[Listed] | None]] = {
    OCI: list_oci_layout,
    OCI_ARCHIVE: list_oci_archive,
    **dict.fromkeys(REGISTRY, _list_registry_image),
}
"""Where image indexes are."""
_WRITE: dict[str, Callable[[Reference, JsonObject, Sequence[Layer]], str]] = {
    DOCKER_DAEMON: _write_daemon_image,
    DOCKER_ARCHIVE: write_docker_archive,
    OCI: write_oci_layout,
    OCI_ARCHIVE: write_oci_archive,
    **dict.fromkeys(REGISTRY, _write_registry_image),
}


def open_image(reference: Reference, spool: Spool, platform: Wish = None) -> ImageView:
    """Return the image that ``reference`` names; its files stay open as long as ``spool``.

    Of an image index the image for ``platform``, or without one that for this machine.

    Raises:
        NotFound: there is no such image (`ImageNotFound`), none for the platform, file or
            directory.
        UsageError: several images fit.
        FormatError, IntegrityError: what is there is damaged.
        Unreachable, AccessDenied, StorageFull: as they say.

    """
    return _OPEN[reference.transport](reference, spool, platform)


def list_images(reference: Reference, spool: Spool) -> list[Listed] | None:
    """Return what the image index lists that ``reference`` names; None of an image alone.

    Raises:
        As `open_image`, but for platforms.

    """
    lister = _LIST.get(reference.transport)
    return None if lister is None else lister(reference, spool)


def peek_digest(reference: Reference) -> str:
    """Return the digest of an image without opening it, where that would copy all of it.

    Elsewhere empty: opening the image costs little.  Where an engine gives images ids of
    another kind, it is not the digest that `open_image` finds.

    Raises:
        ImageNotFound, Unreachable, AccessDenied, RemoteError: as `open_image`.

    """
    if reference.transport == DOCKER_DAEMON:
        from converter.images.daemon import read_image_id

        return read_image_id(reference)
    return ""


def may_have_label(reference: Reference, label: str) -> bool:
    """Whether the image may have a label; False if it certainly has not, or does not exist.

    Answers at once where opening the image would copy all of it.

    Raises:
        Unreachable, AccessDenied, RemoteError: the engine cannot be asked.

    """
    if reference.transport == DOCKER_DAEMON:
        from converter.images.daemon import has_label

        return has_label(reference, label)
    return True


def check_destination(reference: Reference) -> None:
    """Return when nothing that can be seen now keeps an image from being written there.

    For before a long conversion; `write_image` checks again.

    Raises:
        UsageError: something is there already that would be lost, it is a digest, or
            images are only read from there.
        NotFound: the directory that it would be in does not exist.
        AccessDenied, RemoteError: the registry does not take it.

    """
    if reference.transport in ROOT_ALONE:
        raise UsageError(
            f"{reference}: images are read from {reference.transport}: and not written to it; "
            "use oci:, oci-archive:, docker-archive: or docker-daemon:"
        )
    if reference.transport == DOCKER_DAEMON:
        from converter.images.daemon import check_engine_name

        check_engine_name(reference)
        return
    if reference.is_registry:
        from converter.images.registry import check_registry_destination

        check_registry_destination(reference)
        return
    path = Path(reference.name)
    if reference.transport == OCI:
        check_oci_layout(reference)
    else:
        refuse_existing_file(path, str(reference))
    with os_errors_at(path, "cannot be written"):
        if not path.parent.is_dir():
            raise NotFound(f"{reference}: {path.parent} is not a directory; make it first")


def write_image(reference: Reference, config: JsonObject, layers: Sequence[Layer]) -> str:
    """Write an image and return its digest: the manifest's, or where there is none the config's.

    ``config`` is kept field by field, except ``rootfs``, which is made from
    ``layers``.  Nothing is visible under ``reference`` until all of it is there,
    and if writing fails nothing has changed.  The same input gives the same bytes.

    Raises:
        UsageError: as `check_destination`.
        NotFound, AccessDenied, StorageFull, Unreachable, RemoteError: it cannot be written.
        IntegrityError: a layer is not what its digests say.

    """
    if reference.transport in ROOT_ALONE:
        check_destination(reference)
    return _WRITE[reference.transport](reference, config, layers)


def check_holds_index(reference: Reference) -> None:
    """Return when an image index can be written where ``reference`` is.

    Raises:
        UsageError: a single image alone can.

    """
    if reference.transport not in _LIST:
        raise UsageError(
            f"{reference}: {reference.transport}: holds one image, not those of several "
            "platforms: choose one of them with --platform, or give DEST as docker://, oci: or "
            "oci-archive:"
        )


def write_index(reference: Reference, index: OciIndex, tags: Sequence[str]) -> str:
    """Write an image index with its images and return its digest.

    ``tags`` are those that the images get for themselves in a registry.  Nothing is visible
    under ``reference`` until all of it is there.

    Raises:
        UsageError: as `check_destination` and `check_holds_index`.
        BootfsError: as `write_image`.

    """
    check_holds_index(reference)
    if reference.transport == OCI:
        return add_to_layout(reference, index)
    if reference.transport == OCI_ARCHIVE:
        return write_archive_of(reference, index)
    from converter.images.registry import write_registry_index

    return write_registry_index(reference, index, tags)


def set_apart(reference: Reference, backend: Backend) -> None:
    """Have a store in a registry keep an image's data by themselves, if it is to be elsewhere.

    Else they would go when a boot image with the same chunk index is forgotten there.
    """
    if not is_in_registry(backend.location):
        return
    from converter.images.joined import is_joined
    from store.write.backends.registry import RegistryBackend

    assert isinstance(backend, RegistryBackend)
    backend.is_apart = not is_joined(reference, backend)


def join_store(
    reference: Reference,
    config: JsonObject,
    layers: Sequence[Layer],
    backend: Backend,
    image: bytes,
    stated: Mapping[str, object] | None = None,
) -> JoinedImage | None:
    """Return the image to be written together with its store; None where they lie apart.

    To be called before the image, of whose chunk index ``image`` is the raw digest, is
    committed to the store.  ``stated`` is its platform, by default that of ``config``.
    """
    if not reference.is_registry:
        return None
    from converter.images.joined import JoinedImage, is_joined

    if not is_joined(reference, backend):
        return None
    return JoinedImage(reference, config, layers, backend, image, stated)


def write_joined_images(several: Sequence[JoinedImage]) -> str:
    """Write boot images beside their stores' artifacts, under one tag; return the digest.

    All have been committed to the store.

    Raises:
        BootfsError: as `JoinedImage.push`.

    """
    from converter.images.joined import write_joined

    return write_joined(several, [one.push() for one in several])


def forget_images_in(
    backend: Backend, images: Sequence[tuple[bytes, str]], reference: Reference | None
) -> str:
    """Remove images from their store, and return what to say of it.

    Each is given by the raw digest of its chunk index.  A registry keeps each boot image that
    stands there by itself: there go those of ``reference``, where that is given, beside each
    the digest of its manifest or config.  Every other store has one image for all boot
    images of it.

    Raises:
        NotFound: there is no store, or no such image in it.
        UsageError: a registry has it under tags beside the one that is named.
        BootfsError: the store cannot be read, or not be changed.

    """
    if not is_in_registry(backend.location):
        distinct = sorted({image for image, _ in images})
        # Of several, some may have been forgotten already.
        distinct = [i for i in distinct if backend.has(manifest_name(i))] or distinct
        for image in distinct:
            forget(backend, image)
        return (
            f"{', '.join(f'blake3:{image.hex()}' for image in distinct)} forgotten, for every "
            "boot image that has it, with other settings too"
        )
    from converter.images.forgetting import forget_in_registry

    return forget_in_registry(backend, images, reference)
