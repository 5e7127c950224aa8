"""Where an ``s3://`` URL points: ``s3://BUCKET[/PREFIX][?OPTION=VALUE&…]``, docs/stores/s3.md."""

from __future__ import annotations

from store.errors import UsageError
from store.format.http1 import parse_url
from store.format.shownurl import shown

REGION = "us-east-1"
"""Where the URL names none; servers other than Amazon's mostly do not care."""
STYLES = ("path", "virtual")
OPTIONS = ("endpoint", "profile", "region", "style")

_BUCKET = frozenset("abcdefghijklmnopqrstuvwxyz0123456789.-")
_PREFIX = _BUCKET | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ_~/")
"""What stands for itself in a URL and in what is signed."""
_REGION = _BUCKET - {"."}


class S3Place:
    """A bucket and a prefix in it, which is empty or ends with a slash, at a server.

    ``endpoint`` is the URL of the server without the bucket; ``is_path`` says that the
    bucket stands in the path, not before the host; ``profile`` names the section of
    files with credentials, empty where the URL does not.
    """

    __slots__ = ("bucket", "endpoint", "is_path", "location", "prefix", "profile", "region")

    def __init__(self, location: str, bucket: str, prefix: str, options: dict[str, str]) -> None:
        self.location = location
        self.bucket = bucket
        self.prefix = prefix
        self.region = options.get("region", REGION)
        self.profile = options.get("profile", "")
        endpoint = options.get("endpoint", "")
        # A certificate for all buckets does not cover names with a dot.
        style = options.get("style") or ("path" if endpoint or "." in bucket else "virtual")
        self.is_path = style == "path"
        self.endpoint = endpoint.rstrip("/") or f"https://s3.{self.region}.amazonaws.com"

    @property
    def url(self) -> str:
        """Where objects are, a slash and their names to be added."""
        scheme, _, host = self.endpoint.partition("://")
        base = (
            f"{self.endpoint}/{self.bucket}" if self.is_path else f"{scheme}://{self.bucket}.{host}"
        )
        return f"{base}/{self.prefix}".rstrip("/")


def parse_s3_url(url: str) -> S3Place:
    """Return where ``url`` points.

    Raises:
        UsageError: it is no such URL, or has an option that there is not.

    """
    scheme, _, rest = url.partition("://")
    if scheme.lower() != "s3":
        raise UsageError(f"{shown(url)}: not an S3 URL; write s3://BUCKET/PREFIX")
    path, _, query = rest.partition("?")
    bucket, _, prefix = path.partition("/")
    if not 3 <= len(bucket) <= 63 or not _BUCKET.issuperset(bucket) or not bucket[0].isalnum():
        raise UsageError(
            f"{shown(url)}: no bucket has such a name; "
            "write s3://BUCKET/PREFIX, with credentials in a file"
        )
    prefix = prefix.strip("/")
    parts = prefix.split("/") if prefix else []
    if not _PREFIX.issuperset(prefix) or not {"", ".", ".."}.isdisjoint(parts):
        raise UsageError(
            f"{shown(url)}: a prefix has ASCII letters, digits and '-._~', "
            "single slashes between them"
        )
    options: dict[str, str] = {}
    for part in query.split("&") if query else []:
        name, _, value = part.partition("=")
        if name not in OPTIONS or not value or name in options:
            raise UsageError(
                f"{shown(url)}: an option that there is not, is empty or stands twice; "
                f"there are {', '.join(OPTIONS)}"
            )
        options[name] = value
    if options.get("style", "path") not in STYLES:
        raise UsageError(f"{shown(url)}: the style is none; write one of {', '.join(STYLES)}")
    if not _REGION.issuperset(options.get("region", "")):
        raise UsageError(f"{shown(url)}: the region is none")
    if "endpoint" in options and not _is_server(options["endpoint"]):
        raise UsageError(
            f"{shown(url)}: an endpoint is a server alone; write http://HOST:PORT or https://HOST"
        )
    return S3Place(url, bucket, f"{prefix}/" if prefix else "", options)


def _is_server(url: str) -> bool:
    """Whether ``url`` is that of a web server, without a path."""
    try:
        return not parse_url(url).path
    except UsageError:
        return False
