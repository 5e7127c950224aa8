"""URLs of stores in S3."""

import pytest

from store.errors import UsageError
from store.format.s3place import parse_s3_url


@pytest.mark.parametrize(
    ("url", "objects", "prefix"),
    [
        ("s3://images", "https://images.s3.us-east-1.amazonaws.com", ""),
        ("S3://images/", "https://images.s3.us-east-1.amazonaws.com", ""),
        ("s3://images/a/b/", "https://images.s3.us-east-1.amazonaws.com/a/b", "a/b/"),
        ("s3://images/a?region=eu-west-1", "https://images.s3.eu-west-1.amazonaws.com/a", "a/"),
        ("s3://my.images", "https://s3.us-east-1.amazonaws.com/my.images", ""),
        ("s3://images?style=path", "https://s3.us-east-1.amazonaws.com/images", ""),
        ("s3://images/a?endpoint=http://127.0.0.1:9000/", "http://127.0.0.1:9000/images/a", "a/"),
        ("s3://images?style=virtual&endpoint=https://h", "https://images.h", ""),
    ],
)
def test_where_it_points(url: str, objects: str, prefix: str) -> None:
    place = parse_s3_url(url)
    assert (place.url, place.prefix, place.location) == (objects, prefix, url)


@pytest.mark.parametrize(
    "url",
    [
        *("s3://", "s3:///a", "s3://b", "s3://Images", "s3://key:secret@images", "s3://images:80/a"),
        *("s3://-images", "s3://images/a//b", "s3://images/../b", "s3://images/ä", "s3://images/a%20b"),
        *("s3://images?", "s3://images/a?b") [1:],
        *("s3://images?key=1", "s3://images?region=", "s3://images?region=a&region=b"),
        *("s3://images?style=other", "s3://images?region=a/b", "s3://images?endpoint=ftp://h"),
        *("s3://images?endpoint=http://h/path", "s3://images?endpoint=h", "s3://images#a"),
        "http://images",
    ],
)  # fmt: skip
def test_what_is_no_store_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        parse_s3_url(url)
