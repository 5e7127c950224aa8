"""docs/exit-codes.md, made from the errors: ``python -m store.exitcodes > docs/exit-codes.md``."""

from __future__ import annotations

import sys

from store.errors import BootfsError

OTHER = {
    0: "done",
    3: "done, but for images that were left out and named (`bootfs convert --platform all`)",
    4: "found different (`bootfs check`, `bootfs diff`), or verified and found damaged",
    130: "interrupted (`bootfs`); the store stays valid",
}
"""Ends that are no errors."""

HEAD = """\
# Exit codes

Made from `store/errors.py` by `python -m store.exitcodes > docs/exit-codes.md`; a test compares.

A code belongs to a kind of error and is the same for every command. *Retryable* is what asking
again may help with; bootfs has done so already, up to its limit. A container that booted exits as
its workload did, with 128 + n after signal n; 125, 126 and 127 mean what they mean from Docker.

| code | meaning | error | retryable |
|---:|---|---|---|
"""


def iter_errors(base: type[BootfsError] = BootfsError) -> list[type[BootfsError]]:
    """Return ``base`` and all classes below it that store/errors.py defines, parents first."""
    found = [base]
    for kind in base.__subclasses__():
        if kind.__module__ == BootfsError.__module__:
            found += iter_errors(kind)
    return found


def owns_code(kind: type[BootfsError]) -> bool:
    """Whether the class gives its exit code and does not inherit it."""
    return "exit_code" in vars(kind)


def document() -> str:
    """Return the text of docs/exit-codes.md."""
    rows = [(code, 0, meaning, "", "") for code, meaning in OTHER.items()]
    for place, kind in enumerate(iter_errors(), 1):
        first = (kind.__doc__ or "").partition("\n")[0].replace("``", "`")
        name = f"**{kind.__name__}**" if owns_code(kind) else kind.__name__
        rows.append((kind.exit_code, place, first, name, "yes" if kind.retryable else ""))
    lines = [
        f"| {code} | {what} | {name} | {again} |\n" for code, _, what, name, again in sorted(rows)
    ]
    return HEAD + "".join(lines)


if __name__ == "__main__":
    sys.stdout.write(document())
