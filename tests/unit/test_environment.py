from hypothesis import given
from hypothesis import strategies as st

from boot.environment import parse_environment


def hide(variable: bytes) -> bytes:
    """What launcher.S does to a variable."""
    if variable and variable[0] & 0x7F:
        return bytes([variable[0] ^ 0x80]) + variable[1:]
    return variable


def text(*excluded: int) -> st.SearchStrategy[bytes]:
    return st.lists(st.integers(1, 255).filter(lambda b: b not in excluded)).map(bytes)


@given(st.dictionaries(text(ord("=")).filter(len), text()))
def test_every_variable_comes_back(variables: dict[bytes, bytes]) -> None:
    block = b"".join(hide(name + b"=" + value) + b"\0" for name, value in variables.items())
    assert parse_environment(block) == variables


@given(st.binary())
def test_no_block_is_refused_and_no_name_is_empty(block: bytes) -> None:
    assert b"" not in parse_environment(block)


def test_what_is_no_variable_is_left_out_and_the_last_of_a_name_counts() -> None:
    block = b"".join(hide(entry) + b"\0" for entry in (b"A=1", b"", b"B", b"=C", b"A=2=3"))
    assert parse_environment(block) == {b"A": b"2=3"}
