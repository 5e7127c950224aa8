import hashlib
import http.server
import threading
import tomllib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from converter.runtime import fetch
from converter.runtime.lock import Input, Lock
from store.errors import DigestMismatch, NotFound, SizeMismatch, Unreachable
from tests.support.servers import free_port

BODY = b"a package" * 1000
FILE = "pool/main/p/p_1~2_amd64.deb"


def entry(body: bytes = BODY) -> Input:
    digest = hashlib.sha256(body).hexdigest()
    return Input("deb", "p", "1~2", f"debian/{FILE}", len(body), digest)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The root of an empty Debian mirror that is served and configured; no snapshots exist."""
    root = tmp_path / "served"
    (root / "debian" / FILE).parent.mkdir(parents=True)
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Quiet, directory=str(root))
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv(fetch.MIRROR_VARIABLE, f"{url}/debian/")
        monkeypatch.setattr(fetch, "SNAPSHOT_MIRROR", f"{url}/snapshot/debian")
        yield root
        server.shutdown()
        thread.join()


@pytest.fixture(params=["apt", "httpx"])
def fetcher(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to fetch a package."""
    if request.param == "httpx":
        monkeypatch.setattr(fetch, "APT_HELPER", "/nonexistent")
    elif not Path(fetch.APT_HELPER).exists():
        pytest.skip(f"requires {fetch.APT_HELPER}")


def read(lock: Lock, directory: Path) -> dict[str, bytes]:
    return fetch.read_inputs(lock, directory, lambda _: None)


@pytest.mark.usefixtures("fetcher")
def test_a_package_is_fetched_once_and_again_when_its_copy_is_damaged(
    mirror: Path, tmp_path: Path
) -> None:
    (mirror / "debian" / FILE).write_bytes(BODY)
    lock = Lock((entry(),), "20260131T000000Z")
    lines: list[str] = []
    for _ in range(2):
        assert fetch.read_inputs(lock, tmp_path / "inputs", lines.append) == {"p": BODY}
    assert lines == ["fetching p_1~2_amd64.deb"]
    (tmp_path / "inputs" / "p_1~2_amd64.deb").write_bytes(b"damaged")
    assert fetch.read_inputs(lock, tmp_path / "inputs", lines.append) == {"p": BODY}
    assert len(lines) == 2


@pytest.mark.usefixtures("fetcher")
def test_a_package_gone_from_the_mirror_comes_from_the_snapshot(
    mirror: Path, tmp_path: Path
) -> None:
    past = mirror / "snapshot/debian/20260131T000000Z" / FILE
    past.parent.mkdir(parents=True)
    past.write_bytes(BODY)
    lock = Lock((entry(),), "20260131T000000Z")
    assert read(lock, tmp_path / "inputs") == {"p": BODY}


@pytest.mark.usefixtures("fetcher", "mirror")
def test_a_package_gone_everywhere_is_named_with_the_way_out(tmp_path: Path) -> None:
    lock = Lock((entry(),), "20260131T000000Z")
    with pytest.raises(NotFound, match="--update-lock") as raised:
        read(lock, tmp_path / "inputs")
    assert "p_1~2_amd64.deb" in str(raised.value)


@pytest.mark.usefixtures("fetcher")
def test_a_mirror_that_does_not_answer_is_unreachable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(fetch.MIRROR_VARIABLE, f"http://127.0.0.1:{free_port()}/debian")
    monkeypatch.setattr(fetch, "SNAPSHOT_MIRROR", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(Unreachable, match=fetch.MIRROR_VARIABLE):
        read(Lock((entry(),), "20260131T000000Z"), tmp_path / "inputs")


@pytest.mark.parametrize(
    ("served", "error"), [(BODY[:-1], SizeMismatch), (BODY[:-1] + b"?", DigestMismatch)]
)
@pytest.mark.usefixtures("fetcher")
def test_other_bytes_are_refused_and_not_kept(
    mirror: Path, tmp_path: Path, served: bytes, error: type[Exception]
) -> None:
    (mirror / "debian" / FILE).write_bytes(served)
    with pytest.raises(error):
        read(Lock((entry(),), "20260131T000000Z"), tmp_path / "inputs")
    assert list((tmp_path / "inputs").iterdir()) == []


def test_security_updates_come_from_the_mirror_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(fetch.MIRROR_VARIABLE, raising=False)
    update = Input("deb", "p", "1", "debian-security/pool/p.deb", 1, "0" * 64)
    assert list(fetch.iter_deb_urls(update, "20260131T000000Z")) == [
        "http://deb.debian.org/debian-security/pool/p.deb",
        "http://snapshot.debian.org/archive/debian-security/20260131T000000Z/pool/p.deb",
    ]


def test_a_wheel_that_does_not_exist_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(NotFound, match=r"^no-such-package 1\.0: .*pip download"):
        fetch.download_wheel("no-such-package", "1.0", tmp_path)


def test_an_environment_without_pip_is_told_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(NotFound, match=r"^a-package 1\.0: .* has no pip .*-m ensurepip"):
        fetch.download_wheel("a-package", "1.0", tmp_path)


def test_whoever_installs_bootfs_gets_pip() -> None:
    text = Path("pyproject.toml").read_text()
    wanted = tomllib.loads(text)["project"]["dependencies"]
    assert any(line.startswith("pip>=") for line in wanted)
