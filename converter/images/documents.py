"""The JSON documents of images: parsed with every unknown field, encoded canonically."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from math import isfinite

from converter.images.view import JsonObject, sha256_digest
from converter.spool import FileBlob
from store.errors import DigestMismatch, FormatError, SizeMismatch

DOCUMENT_LIMIT = 16 << 20
"""The longest config, manifest or index read, in bytes; registries allow 4 MiB."""
DEPTH_LIMIT = 100
"""Images' documents nest some 6 deep.  What a parser takes may be too deep to be copied."""

_ADVICE = "the image is damaged, build or copy it again"
_SURROGATE = re.compile("[\ud800-\udfff]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")


def encode_json(value: Mapping[str, object] | Sequence[object]) -> bytes:
    """Return the one encoding of ``value``: keys sorted, no spaces, ASCII alone."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def parse_json(data: bytes, what: str) -> object:
    """Return the value of a JSON text.

    Raises:
        FormatError: it is not JSON, holds a number that is none, or is nested deeper than
            `DEPTH_LIMIT`.

    """
    try:
        value: object = json.loads(data, parse_constant=_refuse_constant, parse_float=_finite_float)
        _check_depth(value)
    except json.JSONDecodeError as error:
        raise FormatError(what, error.pos, f"not JSON: {error.msg}; {_ADVICE}") from error
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise FormatError(what, 0, f"not JSON: {error}; {_ADVICE}") from error
    return value


def parse_config(data: bytes, what: str) -> JsonObject:
    """Return an image's config as an engine understands it.

    Engines put U+FFFD in the place of each byte that is not UTF-8, and of each half of a
    surrogate pair.  To be used for what a digest covers: elsewhere such a byte is damage.

    Raises:
        FormatError: it is none; see `parse_json`.

    """
    # Each byte that is not UTF-8 becomes a surrogate of its own.
    text = _SURROGATE.sub(_REPLACEMENT, data.decode("utf-8", "surrogateescape"))
    return object_of(_without_surrogates(parse_json(text.encode(), what)), what)


def _without_surrogates(value: object) -> object:
    if isinstance(value, str):
        return _SURROGATE.sub(_REPLACEMENT, value)
    if isinstance(value, list):
        return [_without_surrogates(held) for held in value]
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(v) for key, v in value.items()}
    return value


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a JSON number")


def _finite_float(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise ValueError(f"{text[:40]} is too large a number")
    return value


def _check_depth(value: object) -> None:
    level = [value]
    for _ in range(DEPTH_LIMIT + 1):
        inner: list[object] = []
        for held in level:
            if isinstance(held, dict):
                inner += held.values()
            elif isinstance(held, list):
                inner += held
        if not inner:
            return
        level = inner
    raise ValueError(f"nested more than {DEPTH_LIMIT} deep")


def read_document(blob: FileBlob, what: str) -> bytes:
    """Return a whole document.

    Raises:
        FormatError: it is longer than `DOCUMENT_LIMIT`.

    """
    if blob.size > DOCUMENT_LIMIT:
        raise FormatError(
            what, 0, f"{blob.size:,} bytes; the limit is {DOCUMENT_LIMIT:,}; {_ADVICE}"
        )
    return blob.pread(0, blob.size)


def check_digest(data: bytes, digest: str, what: str) -> None:
    """Check that ``data`` has ``digest``.

    Raises:
        DigestMismatch: it has another.

    """
    actual = sha256_digest(data)
    if actual != digest:
        raise DigestMismatch(what, digest, actual)


def object_of(value: object, what: str) -> JsonObject:
    """Return ``value`` if it is a JSON object.

    Raises:
        FormatError: it is something else.

    """
    if not isinstance(value, dict):
        raise FormatError(
            what, 0, f"a JSON object is expected, not {type(value).__name__}; {_ADVICE}"
        )
    return value


def list_of(value: object, what: str) -> list[object]:
    """Return ``value`` if it is a JSON array; ``null`` and a missing one count as empty.

    Raises:
        FormatError: it is something else.

    """
    if value is None:
        return []
    if not isinstance(value, list):
        raise FormatError(
            what, 0, f"a JSON array is expected, not {type(value).__name__}; {_ADVICE}"
        )
    return value


def text_of(value: object, what: str) -> str:
    """Return ``value`` if it is a JSON string.

    Raises:
        FormatError: it is something else.

    """
    if not isinstance(value, str):
        raise FormatError(what, 0, f"a string is expected, not {type(value).__name__}; {_ADVICE}")
    return value


def digest_of(value: object, what: str) -> str:
    """Return ``value`` if it is a SHA-256 digest.

    Raises:
        FormatError: it is something else; OCI's other algorithms are not in use.

    """
    text = text_of(value, what)
    if not _DIGEST.match(text):
        raise FormatError(what, 0, f"{text[:80]!r} is not a sha256 digest; {_ADVICE}")
    return text


def diff_ids_of(config: JsonObject, what: str) -> list[str]:
    """Return the diff ids that a config lists, lowest layer first.

    Raises:
        FormatError: the config has no proper ``rootfs``.

    """
    rootfs = object_of(config.get("rootfs"), f"{what}: rootfs")
    return [
        digest_of(value, f"{what}: rootfs.diff_ids")
        for value in list_of(rootfs.get("diff_ids"), f"{what}: rootfs.diff_ids")
    ]


class Descriptor:
    """A reference to a blob by digest (OCI image-spec, descriptor.md)."""

    __slots__ = ("annotations", "digest", "media_type", "platform", "size")

    def __init__(self, value: object, what: str) -> None:
        fields = object_of(value, what)
        self.digest = digest_of(fields.get("digest"), f"{what}: digest")
        size = fields.get("size")
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise FormatError(what, 0, f"size {size!r} of {self.digest} is not a size; {_ADVICE}")
        self.size = size
        media_type = fields.get("mediaType")
        self.media_type = "" if media_type is None else text_of(media_type, f"{what}: mediaType")
        self.annotations = object_of(fields.get("annotations") or {}, f"{what}: annotations")
        self.platform = object_of(fields.get("platform") or {}, f"{what}: platform")

    def check_size(self, actual: int, what: str) -> None:
        """Check the size of what was found under the digest.

        Raises:
            SizeMismatch: it is another.

        """
        if actual != self.size:
            raise SizeMismatch(f"{what}: blob {self.digest}", self.size, actual)
