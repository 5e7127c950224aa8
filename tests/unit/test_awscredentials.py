"""The shared file of credentials: found by section, refused by line, and never shown."""

import pytest

from store.errors import AccessDenied
from store.format.awscredentials import parse_aws_credentials

TEXT = """\
# made by hand
[other]
aws_access_key_id = AKIDOTHER
aws_secret_access_key = topsecret2

[default]
AWS_ACCESS_KEY_ID=AKIDDEFAULT
aws_secret_access_key = top/secret+1==
aws_session_token = token1
region = eu-west-1
; end
"""


def test_a_section_has_its_own() -> None:
    found = parse_aws_credentials(TEXT, "/a/s3", "default")
    assert found is not None
    assert (found.key_id, found.secret, found.token) == ("AKIDDEFAULT", "top/secret+1==", "token1")
    found = parse_aws_credentials(TEXT.replace("\n", "\r\n"), "/a/s3", "other")
    assert found is not None
    assert (found.key_id, found.secret, found.token) == ("AKIDOTHER", "topsecret2", "")


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\n"])
def test_an_empty_file_has_none(text: str) -> None:
    assert parse_aws_credentials(text, "/a/s3", "default") is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("aws_secret_access_key = topsecret\n", "line 1"),
        ("[default\ntopsecret", "line 1"),
        ("[default]\n\ntopsecret\n", "line 3"),
        ("[default]\naws_secret_access_key = top secret\n", "line 2"),
        ("[default]\naws_access_key_id =\n", "line 2"),
        ("[prod]\naws_secret_access_key = topsecret\n", r"no section \[default\]"),
        ("[default]\naws_access_key_id = AKID\n", "no aws_secret_access_key"),
        ("[default]\naws_secret_access_key = topsecret\n", "no aws_access_key_id"),
    ],
)
def test_what_is_wrong_is_said_by_its_line_and_without_values(text: str, problem: str) -> None:
    with pytest.raises(AccessDenied, match=f"^/a/s3: .*{problem}") as caught:
        parse_aws_credentials(text, "/a/s3", "default")
    assert "secret\n" not in str(caught.value) and "topsecret" not in str(caught.value)
