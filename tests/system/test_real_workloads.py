"""Real programs come to READY from converted images, with a cache or without a store."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from bench.images import IMAGES, build_image
from tests.support.engine import docker
from tests.support.servers import free_port

if TYPE_CHECKING:
    from tests.support.converted import Conversions, Converted
    from tests.support.engine import Engine

pytestmark = pytest.mark.system

TOGETHER = 12


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("pg", "erofs"),
        ("pg", "fuse"),
        ("gcc", "erofs"),
        ("node", "erofs"),
        ("node", "fuse"),
        ("py", "erofs"),
        ("pg", "lease"),
        ("gcc", "lease"),
        ("node", "lease"),
        ("py", "lease"),
        ("pg", "eager"),
    ],
)
def test_ready(engine: Engine, conversions: Conversions, name: str, mode: str) -> None:
    image = conversions.convert(build_image(IMAGES[name]))
    done = dataclasses.replace(image, mode=mode).run(engine)
    assert (done.returncode, done.stdout) == (0, "READY\n")
    assert "bootfs" not in done.stderr


@pytest.mark.parametrize("name", ["deb", "gcc", "node", "pg"])
def test_check_finds_no_difference(conversions: Conversions, name: str) -> None:
    image = conversions.convert(build_image(IMAGES[name]))
    # One of them as somebody would who has but the URL.
    store = conversions.url if name == "node" else str(conversions.directory)
    command = ["check", image.source, image.boot, "--store", store]
    done = subprocess.run(
        [sys.executable, "-m", "converter.cli", *command],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    entries, rest = done.stdout.split(" ", 1)
    assert rest == "entries compared, 0 differences\n"
    assert int(entries) > 1000


def test_nginx_answers(engine: Engine, conversions: Conversions, workshop: Converted) -> None:
    base = build_image(IMAGES["deb"])
    source = conversions.engine.build(
        f"FROM {base}\n"
        "RUN apt-get update -q && apt-get install -qy --no-install-recommends nginx-light"
        " && rm -rf /var/lib/apt/lists/* && echo 'served lazily' >/var/www/html/file\n"
        'CMD ["nginx", "-g", "daemon off;"]\n'
    )
    image = dataclasses.replace(conversions.convert(source), mode=workshop.mode)
    container = image.start(engine)
    fetch = "exec 3<>/dev/tcp/127.0.0.1/80; printf 'GET /file HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3"
    answer = container.run("bash", "-c", f"until ({fetch}) 2>/dev/null; do sleep 0.1; done").stdout
    assert answer.endswith("served lazily\n")
    # The engine's signal, the workers' end, the exit code.
    assert container.stop() == 0


def test_redis_keeps_its_data(engine: Engine, conversions: Conversions) -> None:
    source = conversions.engine.build(
        "FROM debian:bookworm-slim\n"
        "RUN apt-get update -q && apt-get install -qy --no-install-recommends redis-server"
        " && rm -rf /var/lib/apt/lists/*\n"
        "USER redis\nWORKDIR /var/lib/redis\nVOLUME /var/lib/redis\n"
        'CMD ["redis-server", "--save", ""]\n'
    )
    image = conversions.convert(source)
    # Nothing but what anybody would give.
    container = engine.start(image.boot, options=("-e", f"BLOB_STORE={image.store}"))

    def ask(*words: str) -> str:
        return container.run("redis-cli", *words).stdout.rstrip("\n")

    container.wait_for_line("Ready to accept connections")
    assert ask("SET", "key", "of the first start") == "OK"
    assert ask("GET", "key") == "of the first start"
    assert ask("SAVE") == "OK"
    assert ask("SET", "key", "never saved") == "OK"
    assert container.stop() == 0
    first = container.logs()
    docker("start", container.name)
    deadline = time.monotonic() + 60
    while container.run("redis-cli", "PING", check=False).stdout != "PONG\n":
        assert time.monotonic() < deadline, container.logs()
        time.sleep(0.1)
    assert ask("GET", "key") == "of the first start"
    assert ask("CONFIG", "GET", "dir") == "dir\n/var/lib/redis"
    assert container.stop() == 0
    ours = [line for line in container.logs().splitlines() if line.startswith("bootfs: ")]
    assert all(line.startswith("bootfs: mode lease: ") for line in ours), ours
    assert "bye bye" in first


def test_a_second_start_fetches_nothing(
    engine: Engine, conversions: Conversions, workshop: Converted
) -> None:
    options = ("-v", f"{engine.volume()}:/.bootfs/cache")
    assert workshop.run(engine, "sha256sum", "-c", "/big.sum", options=options).returncode == 0
    conversions.server.forget()
    done = workshop.run(engine, "sha256sum", "-c", "/big.sum", options=options)
    assert (done.returncode, done.stderr) == (0, "")
    assert conversions.server.requests() == []
    nowhere = dataclasses.replace(workshop, store=f"http://{conversions.address}:{free_port()}")
    done = nowhere.run(engine, "sha256sum", "-c", "/big.sum", options=options)
    assert (done.returncode, done.stdout, done.stderr) == (0, "/big: OK\n", "")


def test_images_share_the_cache_of_a_container(
    engine: Engine, conversions: Conversions, converted_workshop: Converted
) -> None:
    source = engine.build(Path("sample/cache/Dockerfile").read_text(), Path("sample/cache"))
    keeper = engine.create(source)
    other = conversions.convert(build_image(IMAGES["gcc"]))
    options = ("--volumes-from", keeper.name)
    runs = (
        (converted_workshop, ("sha256sum", "-c", "/big.sum")),
        (other, ("sh", "-c", "sha256sum /usr/lib/gcc/*/*/cc1 /usr/bin/*gcc*")),
    )
    for image, command in runs:
        assert image.run(engine, *command, options=options).returncode == 0
    conversions.server.forget()
    for image, command in runs:
        assert image.run(engine, *command, options=options).returncode == 0
    assert conversions.server.requests() == []


def test_many_containers_at_once_on_one_cold_cache(
    engine: Engine, conversions: Conversions
) -> None:
    image = conversions.convert(build_image(IMAGES["node"]))
    volume = engine.volume()
    names = [engine.name() for _ in range(TOGETHER)]
    options = image.options("-v", f"{volume}:/.bootfs/cache")

    def run(name: str) -> str:
        done = docker("run", "--rm", "--name", name, *options, image.boot, check=False)
        return done.stdout + done.stderr

    with ThreadPoolExecutor(TOGETHER) as pool:
        said = list(pool.map(run, names))
    assert said == ["READY\n"] * TOGETHER
