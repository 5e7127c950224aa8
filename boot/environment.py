"""The workload's environment, as the engine gave it.

Never ``os.environ``: the launcher hides every variable from our loader, libraries and
interpreter (boot/launcher/launcher.S says why), so there they have other names.
"""

from __future__ import annotations

_HIDING_BIT = 0x80


def parse_environment(block: bytes) -> dict[bytes, bytes]:
    """Return the variables of a ``/proc/PID/environ`` as they were before the launcher hid them.

    Of two with one name the last counts.  What is not of the form NAME=VALUE is left out.
    """
    variables = {}
    for hidden in block.split(b"\0"):
        first = hidden[:1]
        if first and first[0] != _HIDING_BIT:
            first = bytes((first[0] ^ _HIDING_BIT,))
        name, equals, value = (first + hidden[1:]).partition(b"=")
        if equals and name:
            variables[name] = value
    return variables


def read_environment() -> dict[bytes, bytes]:
    """Return the variables that the engine gave to this process, which the launcher started."""
    with open("/proc/self/environ", "rb") as file:
        return parse_environment(file.read())
