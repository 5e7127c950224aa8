"""The OCI distribution-spec as far as reading blobs needs it.

Bytes in, values out; store/read/registry.py talks to the registry.
"""

from __future__ import annotations

from store.errors import RemoteProtocolError, UsageError
from store.format.http1 import Endpoint, parse_url, resolve_redirect
from store.format.names import hot_pack_name, pack_name, profiles_name
from store.format.repositoryurl import SCHEMES, parse_place
from store.format.shownurl import shown

_HEX = frozenset("0123456789abcdef")
_UNRESERVED = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
)  # RFC 3986, 2.3
_TOKEN_ENDS = frozenset(" \t,=")
_SPACES = frozenset(" \t")
PROFILES_TYPE = "application/vnd.bootfs.profiles.v1"
"""Type of the artifact that has an image's profiles."""
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


class Challenge:
    """One way to be let in, of a WWW-Authenticate field: ``scheme``, and its ``fields``."""

    __slots__ = ("fields", "scheme")

    def __init__(self, scheme: str, fields: dict[str, str]) -> None:
        self.scheme = scheme
        self.fields = fields


def parse_repository_url(url: str) -> tuple[Endpoint, str]:
    """Return the registry that ``docker://HOST[:PORT]/REPOSITORY`` names, and the repository.

    Raises:
        UsageError: not such a URL.

    """
    place = parse_place(url)
    if place is None:
        scheme, _, rest = url.partition("://")
        authority, slash, repository = rest.partition("/")
        if scheme.lower() in SCHEMES and "@" in authority:
            raise UsageError(
                f"{shown(url)!r}: a store's URL has no user name, credentials are in a "
                "file config.json; give docker://HOST/REPOSITORY"
            )
        is_tagged = scheme.lower() in SCHEMES and slash and (":" in repository or "@" in repository)
        problem = "a store has no tag or digest" if is_tagged else "not a store in a registry"
        raise UsageError(f"{shown(url)!r}: {problem}; give docker://HOST/REPOSITORY")
    return parse_url(place.server), place.repository


def blob_digest(name: str) -> str:
    """Return the digest of the blob that is pack or hot pack ``name``; empty for other names."""
    digest = name[-64:]
    if len(digest) == 64 and _HEX.issuperset(digest):
        raw = bytes.fromhex(digest)
        if name in (pack_name(raw), hot_pack_name(raw)):
            return f"sha256:{digest}"
    return ""


def profiles_tag(image: bytes) -> str:
    """Return the tag of the profiles of the image with the chunk index of this raw digest."""
    return f"bootfs-profiles-{image.hex()}"


def profiles_image(name: str) -> bytes:
    """Return the image whose profiles object ``name`` is; empty for other names."""
    digest = name[-64:]
    if len(digest) == 64 and _HEX.issuperset(digest):
        raw = bytes.fromhex(digest)
        if name == profiles_name(raw):
            return raw
    return b""


def document_digest(manifest: dict[str, object], image: bytes, where: str) -> str:
    """Return the digest of the blob that is the document of an image's profiles.

    ``manifest`` is that of `profiles_tag`.

    Raises:
        RemoteProtocolError: it names none.

    """
    title = "org.opencontainers.image.title"
    layers = manifest.get("layers")
    if manifest.get("artifactType") == PROFILES_TYPE and isinstance(layers, list):
        for layer in layers:
            notes = layer.get("annotations") if isinstance(layer, dict) else None
            if not isinstance(notes, dict) or notes.get(title) != profiles_name(image):
                continue
            digest = layer.get("digest")
            if isinstance(digest, str) and len(digest) == 71 and digest[:7] == "sha256:":
                if not _HEX.issuperset(digest[7:]):
                    break
                return digest
    raise RemoteProtocolError(f"{where}: not the profiles of an image")


def parse_challenges(value: str) -> list[Challenge]:
    """Return the challenges of a WWW-Authenticate field (RFC 9110, 11.6.1), in their order.

    Several fields are one with commas between.  Schemes and names of fields are lower case.

    Raises:
        RemoteProtocolError: a text in quotes does not end.

    """
    found: list[Challenge] = []
    at = 0
    while at < len(value):
        if value[at] in " \t,":
            at += 1
            continue
        begin = at
        while at < len(value) and value[at] not in _TOKEN_ENDS:
            at += 1
        word = value[begin:at].lower()
        end = at
        while value[at : at + 1] in _SPACES:
            at += 1
        if value[at : at + 1] != "=":
            at = end
            found.append(Challenge(word, {}))
            continue
        at += 1
        while value[at : at + 1] in _SPACES:
            at += 1
        text, at = _parse_text(value, at)
        if found:
            found[-1].fields[word] = text
    return found


def _parse_text(value: str, at: int) -> tuple[str, int]:
    """Return the text at ``at``, in quotes or not, and where it ends."""
    if value[at : at + 1] != '"':
        end = at
        while end < len(value) and value[end] not in " \t,":
            end += 1
        return value[at:end], end
    text = ""
    at += 1
    while at < len(value):
        if value[at] == '"':
            return text, at + 1
        if value[at] == "\\":
            at += 1
        text += value[at : at + 1]
        at += 1
    raise RemoteProtocolError(f"WWW-Authenticate is {value[:60]!r}, which does not end")


def token_place(endpoint: Endpoint, repository: str, challenge: Challenge) -> tuple[str, Endpoint]:
    """Return request target and server of a token for reading a repository.

    Raises:
        RemoteProtocolError: there is none that can be asked; also one without TLS where the
            registry has it, since a password would be shown to everybody on the way.

    """
    fields = challenge.fields
    try:
        target, server = resolve_redirect(endpoint, "/", fields["realm"])
    except (KeyError, RemoteProtocolError):
        named = fields.get("realm", "")[:80]
        raise RemoteProtocolError(
            f"{endpoint}: names a token server that cannot be asked: {named!r}"
        ) from None
    query = encode_query(token_fields(repository, challenge))
    return f"{target}{'&' if '?' in target else '?'}{query}", server


def token_fields(repository: str, challenge: Challenge) -> dict[str, str]:
    """Return what a token server is told of a token for reading a repository."""
    fields = challenge.fields
    scope = fields.get("scope", "") or f"repository:{repository}:pull"
    return {"service": fields.get("service", ""), "scope": scope}


def encode_query(fields: dict[str, str]) -> str:
    """Return ``fields`` as the query of a URL, those that are empty left out."""
    return "&".join(f"{name}={_quoted(text)}" for name, text in fields.items() if text)


def _quoted(text: str) -> str:
    return "".join(chr(c) if c in _UNRESERVED else f"%{c:02X}" for c in text.encode())


def encode_get(
    endpoint: Endpoint,
    route: tuple[str, str],
    authorization: str,
    wanted: str = "",
    accepted: str = "",
) -> bytes:
    """Return a GET request.

    ``authorization``, ``wanted``, a Range, and ``accepted``, a media type, are left out when empty.
    ``route`` is the target, and further header fields, each with its line's end.
    """
    target, more = route
    fields = {"Host": endpoint.authority, "Range": wanted, "Authorization": authorization}
    fields["Accept"] = accepted
    lines = "".join(f"{name}: {text}\r\n" for name, text in fields.items() if text)
    return (
        f"GET {target} HTTP/1.1\r\n{lines}User-Agent: bootfs\r\n"
        f"Accept-Encoding: identity\r\n{more}\r\n"
    ).encode("ascii")
