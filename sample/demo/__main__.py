"""Convert an image, serve its store, boot it lazily, and compare with a plain `docker run`."""

from __future__ import annotations

import argparse
import fcntl
import json
import shlex
import socket
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from sample.demo.container import Mark, Run, run_container
from sample.demo.web import LOOPBACK, WebServer

TOP = Path(__file__).resolve().parents[2]
HOME = TOP / ".demo"
SAMPLE = "bootfs-sample/pandas:latest"
BOOT_IMAGE = "bootfs-demo:latest"
CACHE = "bootfs-demo-cache"
BOOT_OPTIONS = (
    *("--cap-add", "SYS_ADMIN"),
    *("--device", "/dev/fuse"),
    *("--security-opt", "apparmor=unconfined"),
)
SIOCGIFADDR = 0x8915
WARM_RUNS = 3
MB = 1e6


class DemoError(Exception):
    """A step failed; the message says which and why."""


@dataclass(frozen=True)
class Conversion:
    """What the converter reports of the image."""

    plain_bytes: int
    stored_bytes: int
    own_layer_bytes: int
    runtime_layer_bytes: int
    seconds: float


def say(text: str) -> None:
    """Tell the user what happens now."""
    print(f"demo: {text}", file=sys.stderr, flush=True)


def docker(*arguments: str) -> str:
    """Run a docker command and give what it printed.

    Raises:
        DemoError: it failed; the message holds the end of what it printed.
    """
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise DemoError(f"docker {' '.join(arguments)}:\n{tail}")
    return done.stdout


def has_image(reference: str) -> bool:
    """Say whether the engine holds an image of this reference."""
    command = ["docker", "image", "inspect", reference]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def ensure_source(source: str | None) -> tuple[str, str | None]:
    """Give the source image as the converter takes it, and as `docker run` does.

    The latter is None for an image that lies in a file.
    """
    if source is None:
        say(f"building {SAMPLE}: Debian, Python, numpy, scipy, pandas")
        docker("build", "--force-rm", "-t", SAMPLE, str(TOP / "sample" / "pandas"))
        return SAMPLE, SAMPLE
    transport, _, rest = source.partition(":")
    if transport in {"docker-archive", "oci", "oci-archive"}:
        return source, None
    image = rest if transport == "docker-daemon" else source
    if not has_image(image):
        say(f"{image} is not on the engine: pulling it")
        docker("pull", "-q", image)
    return source, image


def convert(source: str, store: Path) -> Conversion:
    """Convert the image with the command that users have.

    Raises:
        DemoError: it failed; it has said why itself.
    """
    command = str(Path(sys.executable).with_name("bootfs"))
    done = subprocess.run(
        [command, "convert", source, BOOT_IMAGE, "--store", str(store), "--json"],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise DemoError(f"bootfs convert {source} exited {done.returncode}")
    report = json.loads(done.stdout.splitlines()[-1])
    return Conversion(
        report["plain_bytes"],
        report["stored_bytes"],
        report["boot_image"]["own_layer_bytes"],
        report["boot_image"]["runtime_layer_bytes"],
        report["seconds"],
    )


def find_gateway() -> str | None:
    """Find the host's address on the engine's bridge, by which containers reach its servers.

    None where this host has no such address: the bridge is switched off, or the engine runs
    elsewhere.
    """
    form = '{{index .Options "com.docker.network.bridge.name"}}'
    bridge = docker("network", "inspect", "bridge", "--format", form).strip()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            answer = fcntl.ioctl(asking, SIOCGIFADDR, struct.pack("256s", bridge.encode()))
        except OSError:
            return None
    # struct ifreq: a name of 16 bytes, then a sockaddr_in with the address at its byte 4.
    return socket.inet_ntoa(answer[20:24])


def lazy_runs(options: list[str], server: WebServer, until: Mark | None) -> list[tuple[Run, int]]:
    """Boot on an empty cache and then, several times, on the filled one.

    Each run comes with the bytes it has fetched.

    Raises:
        DemoError: the first boot ended otherwise than it should; the message holds its output.
    """
    docker("volume", "rm", "-f", CACHE)
    cached = [*options, "-v", f"{CACHE}:/.bootfs/cache"]
    runs: list[tuple[Run, int]] = []
    for _ in range(1 + WARM_RUNS):
        server.forget()
        run = run_container(cached, BOOT_IMAGE, until=until)
        if until is not None and until not in run.marks:
            raise DemoError(f"the lazy boot never reached {until.value}:\n{run.output}")
        runs.append((run, server.sent().size))
        until = until or run.best
    docker("volume", "rm", "-f", CACHE)
    return runs


def report(
    mark: Mark, plain: float | None, runs: list[tuple[Run, int]], conversion: Conversion
) -> str:
    """Lay the figures out."""
    (cold, cold_bytes), *warm = runs
    least, warm_bytes = min(warm, key=lambda run: run[0].marks.get(mark, 0.0))
    rows = [
        ("docker run, image present", plain, ""),
        ("lazy boot, cold", cold.marks.get(mark), fetched(cold_bytes, conversion)),
        ("lazy boot, warm", least.marks.get(mark), fetched(warm_bytes, conversion)),
    ]
    lines = [f"seconds from `docker run` until the workload reached {mark.value}", ""]
    for what, seconds, note in rows:
        time = "      -" if seconds is None else f"{seconds:7.2f}"
        lines.append(f"  {what:<26}{time}   {note}".rstrip())
    lines += [
        "",
        f"  image              {conversion.plain_bytes / MB:8.1f} MB of file data, "
        f"{conversion.stored_bytes / MB:.1f} MB in the store",
        f"  boot image, own    {conversion.own_layer_bytes / MB:8.2f} MB",
        f"  boot image, shared {conversion.runtime_layer_bytes / MB:8.2f} MB "
        "(the same layer for every converted image)",
    ]
    return "\n".join(lines)


def fetched(size: int, conversion: Conversion) -> str:
    """Say how much of the image a run has fetched."""
    share = size / conversion.stored_bytes if conversion.stored_bytes else 0.0
    return f"{size / MB:.1f} MB fetched, {share:.1%} of the image"


def demonstrate(source: str | None) -> None:
    """Tell the whole story once; the web server stays."""
    given, image = ensure_source(source)
    store = HOME / "store"
    store.mkdir(parents=True, exist_ok=True)
    say(f"converting {given} to {BOOT_IMAGE}, store {store}")
    conversion = convert(given, store)
    say(f"converted in {conversion.seconds:.1f} s")

    server = WebServer(HOME / "nginx")
    gateway = find_gateway()
    port = server.start(store, gateway)
    url = f"http://{gateway or LOOPBACK}:{port}/"
    network = [] if gateway else ["--network", "host"]
    options = [*network, *BOOT_OPTIONS, "-e", f"BLOB_STORE={url}"]

    mark, plain = None, None
    if image is not None:
        say(f"docker run {image}")
        first = run_container(network, image)
        mark = first.best
        again = [run_container(network, image, until=mark) for _ in range(WARM_RUNS)]
        times = [run.marks[mark] for run in (first, *again) if mark in run.marks]
        plain = min(times, default=None)
    else:
        say(f"{given} is not on the engine: no plain run to compare with")
    say(f"lazy boot of {BOOT_IMAGE}, cold and warm")
    runs = lazy_runs(options, server, None if mark is Mark.NOTHING else mark)

    print(report(mark or runs[0][0].best, plain, runs, conversion))
    print(f"\nThe store is served at {url} until scripts/demo --stop. Now you:\n")
    print(shlex.join(["docker", "run", "--rm", *options, BOOT_IMAGE]))


def main() -> int:
    """Run the demonstration, or end its web server."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("source", nargs="?", metavar="SOURCE", help="the image to convert")
    parser.add_argument("--stop", action="store_true", help="end the store's web server")
    options = parser.parse_args()
    if options.stop:
        stopped = WebServer(HOME / "nginx").stop()
        say("the web server has ended" if stopped else "no web server was running")
        return 0
    try:
        demonstrate(options.source)
    except (DemoError, RuntimeError) as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
