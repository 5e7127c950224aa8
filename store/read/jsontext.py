"""JSON on the boot path, imported when credentials or a token are to be read, and only then.

`json` takes 7 ms to import, which a store without credentials does not cost.
"""

from __future__ import annotations

import json


def parse_json_object(data: bytes) -> dict[str, object]:
    """Return the JSON object that ``data`` is.

    Raises:
        ValueError: it is none.  Who passes this on must leave its text out, which shows ``data``.

    """
    try:
        found = json.loads(data)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(found, dict):
        raise ValueError("not an object")
    return found


def text_of(value: object) -> str:
    """Return a text that can stand in a header field; empty for None.

    Raises:
        ValueError: it is something else.

    """
    if value is None:
        return ""
    if not isinstance(value, str) or any(c < " " or c > "~" for c in value):
        raise ValueError("not a text of visible characters")
    return value
