"""The one door to checks and tests: `nox` runs lint, test, budget, system and fault.

Sessions use the environment that nox itself runs in (scripts/setup makes it as .venv), so nothing
is installed twice.
"""

import sys
from pathlib import Path

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "test", "budget", "system", "fault"]

CODE = ("store", "boot", "converter", "bench", "sample", "tests", "noxfile.py")


def python(session: nox.Session, *arguments: str) -> None:
    """Run a module of the environment that nox runs in."""
    session.run(sys.executable, "-m", *arguments, external=True)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format, types and the direction of imports."""
    python(session, "ruff", "check", *CODE)
    python(session, "ruff", "format", "--check", *CODE)
    python(session, "mypy", "store", "boot", "converter", "bench", "sample/demo")
    session.run(str(Path(sys.executable).with_name("lint-imports")), external=True)


@nox.session
def test(session: nox.Session) -> None:
    """Run what needs neither an engine nor privileges."""
    parts = [f"tests/{part}" for part in ("unit", "contract", "format", "property", "fuzz")]
    # A storm alone blows for five minutes.
    python(session, "pytest", "-o", "faulthandler_timeout=1800", *parts, *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Fuzz every parser, one after the other: `-- --seconds N --jobs N`; not part of the gate.

    Needs the extra `fuzz`.
    """
    python(session, "tests.fuzz", *session.posargs)


@nox.session
def budget(session: nox.Session) -> None:
    """Hold imports, sizes and requests of a boot to their limits."""
    python(session, "pytest", "tests/budget", *session.posargs)


@nox.session
def system(session: nox.Session) -> None:
    """Run against a real engine, real servers and real mounts."""
    lives = [f"tests/soak/test_{what}.py" for what in ("long_lives", "daemon_killed_often")]
    python(session, "pytest", "tests/system", *lives, *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Inject faults for long and with default limits: minutes to hours; not part of the gate."""
    parts = [part for part in ("tests/fault", "tests/soak") if Path(part).is_dir()]
    session.env["BOOTFS_SOAK"] = "1"
    # A storm alone blows for five minutes.
    python(session, "pytest", "-o", "faulthandler_timeout=1800", *parts, *session.posargs)


@nox.session
def fault(session: nox.Session) -> None:
    """Kill processes, fail calls at every step, and do what networks do wrong."""
    python(session, "pytest", "tests/fault", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure, and write bench/results: minutes to hours; not part of the gate."""
    quick = ("convert", "updates", "registrystore", "filesystem", "sequential", "boot", "lease")
    for what in (*quick, "many", "startup"):
        python(session, f"bench.{what}", *session.posargs)
