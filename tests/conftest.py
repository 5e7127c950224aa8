"""What every test may use: servers, an engine that cleans up, and a rule about tracebacks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from converter.records.directory import VARIABLE as RECORDS
from converter.runtime.layer import cache_directory
from tests.support import faultlog
from tests.support.engine import BASE_IMAGE, Engine, has_image
from tests.support.faultlog import FaultLog
from tests.support.require import require
from tests.support.s3server import KEY_ID, SECRET, S3Server
from tests.support.servers import Nginx, Registry
from tests.support.sshd import Sshd

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from tests.support.converted import Conversions

# An example's time depends on what else the machine does; how many are tried does not.
settings.register_profile("bootfs", deadline=None)
settings.load_profile("bootfs")

TRACEBACK = "Traceback (most recent call last)"


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers; keep what one test converts from being known to another."""
    os.environ[RECORDS] = "none"
    config.addinivalue_line("markers", "system: needs a Docker engine, a kernel or real servers")
    config.addinivalue_line(
        "markers", "requires(*names): what must be there (tests.support.require)"
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, or fail where promised, what the `requires` marks of a test do not find."""
    for mark in item.iter_markers("requires"):
        require(*mark.args)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a passing test that left a traceback on standard error: somebody crashed unseen."""
    report = yield
    if report.when == "call" and report.passed and TRACEBACK in report.capstderr:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} passed, but left a traceback:\n{report.capstderr}"
    return report


@pytest.fixture
def engine(network: str) -> Iterator[Engine]:
    """Give a Docker engine on which all that the test makes is removed again."""
    engine = Engine(network)
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def network(base_image: str) -> Iterator[str]:
    """Give the name of a container that does nothing but keep a network, for others to share."""
    engine = Engine()
    yield engine.start(base_image, "sleep", "infinity").name
    engine.close()


@pytest.fixture(scope="session")
def base_image() -> str:
    """Give the reference of a small Debian image that the engine holds."""
    require("docker")
    if not has_image(BASE_IMAGE):
        pytest.fail(f"no {BASE_IMAGE} on the engine; scripts/setup makes it", pytrace=False)
    return BASE_IMAGE


@pytest.fixture(scope="session")
def conversions() -> Iterator[Conversions]:
    """Give the session's store and what is converted into it."""
    require("docker", "nginx", "erofs", "fuse", "root")
    from tests.support.converted import Conversions

    conversions = Conversions()
    yield conversions
    conversions.close()


@pytest.fixture(scope="session")
def fault_log(tmp_path_factory: pytest.TempPathFactory) -> FaultLog:
    """Give what counts injected faults and their outcomes, for docs/reliability.md."""
    named = os.environ.get(faultlog.VARIABLE, "")
    path = Path(named) if named else tmp_path_factory.mktemp("faults") / "reliability.jsonl"
    return FaultLog(path)


@pytest.fixture
def serve(request: pytest.FixtureRequest) -> Callable[..., Nginx]:
    """Give a function that serves a directory with nginx until the test ends."""
    require("nginx")

    def start(root: Path, **options: str) -> Nginx:
        server = Nginx(root, **options)
        request.addfinalizer(server.close)
        return server

    return start


@pytest.fixture
def s3_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """Give an S3 server with an empty bucket, and the environment its credentials."""
    require("rclone")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with S3Server(tmp_path / "s3") as server:
        yield server


@pytest.fixture
def registry() -> Iterator[Registry]:
    """Give an empty registry."""
    require("registry")
    with Registry() as registry:
        yield registry


@pytest.fixture(scope="session")
def sshd() -> Iterator[Sshd]:
    """Give an SSH server that all tests share: nothing is changed about it."""
    require("sshd")
    with Sshd() as sshd:
        yield sshd


@pytest.fixture
def kept_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the runtime layer where it is, wherever home will be: another takes half a minute."""
    monkeypatch.setenv("BOOTFS_RUNTIME_CACHE", str(cache_directory()))


@pytest.fixture
def own_cache(tmp_path: Path, kept_runtime: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what a push remembers apart from the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.parent / f"{tmp_path.name}-cache"))
