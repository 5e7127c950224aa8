"""Build the images that every benchmark measures.

Each is `debian:bookworm-slim` plus Debian packages, with a command that does the workload's first
useful thing and then prints `READY`. `python -m bench.images [NAME…]` builds what is missing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass

BASE = "debian:bookworm-slim"
PREFIX = "bootfs-bench"

_GCC = """\
set -e
printf '#include <stdio.h>\\nint main(void) { puts("READY"); return 0; }\\n' >/tmp/hello.c
gcc -O1 -o /tmp/hello /tmp/hello.c
/tmp/hello
"""

_JAVA_SETUP = """\
apt-get install -y --no-install-recommends openjdk-17-jdk-headless \\
 && printf 'class Ready { public static void main(String[] a) { System.out.println("READY"); } }' \\
    >/srv/Ready.java \\
 && javac -d /srv /srv/Ready.java \\
 && apt-get purge -y openjdk-17-jdk-headless \\
 && apt-get autoremove -y --purge"""

_POSTGRES = """\
set -e
bin=$(echo /usr/lib/postgresql/*/bin)
data=$(mktemp -d)
"$bin"/initdb -D "$data" >/dev/null
"$bin"/pg_ctl -D "$data" -w -o "-k $data -h ''" -l "$data/log" start >/dev/null
psql -h "$data" -d postgres -Atc 'SELECT 1' | grep -qx 1
echo READY
"$bin"/pg_ctl -D "$data" -m immediate stop >/dev/null
"""

# Two servers, on Unix sockets: containers of the benchmarks share the host's network.
_PHP = """\
set -e
run=$(mktemp -d)
chmod 755 "$run"
printf '%s' '<?php if (extension_loaded("intl") && extension_loaded("gd")) echo "READY\\n";' \
  >"$run/index.php"
cat >"$run/fpm.conf" <<END
[global]
pid = $run/fpm.pid
error_log = $run/fpm.log
[www]
user = www-data
listen = $run/fpm
listen.mode = 0666
pm = static
pm.max_children = 2
END
cat >"$run/nginx.conf" <<END
pid $run/nginx.pid;
error_log $run/nginx.log;
events {}
http {
  access_log off;
  server {
    listen unix:$run/http;
    location / {
      include /etc/nginx/fastcgi_params;
      fastcgi_param SCRIPT_FILENAME $run/index.php;
      fastcgi_pass unix:$run/fpm;
    }
  }
}
END
/usr/sbin/php-fpm* --fpm-config "$run/fpm.conf"
nginx -c "$run/nginx.conf"
curl -sS --fail --unix-socket "$run/http" http://localhost/
kill "$(cat "$run/nginx.pid")" "$(cat "$run/fpm.pid")"
"""

_GO = """\
set -e
printf 'package main\\nimport "fmt"\\nfunc main() { fmt.Println("READY") }\\n' >/tmp/hello.go
HOME=/tmp go run /tmp/hello.go
"""

_PY = "import numpy, scipy, pandas, matplotlib.pyplot; print('READY')"


@dataclass(frozen=True)
class Image:
    """An image to measure: what it holds beside Debian, and the command that prints READY."""

    name: str
    packages: tuple[str, ...]
    command: tuple[str, ...]
    user: str = ""
    """The USER of the image; empty for root."""
    setup: str = ""
    """Shell to run at the end of the package layer, with package lists still at hand."""

    @property
    def reference(self) -> str:
        """Give the reference the image is tagged with."""
        return f"{PREFIX}/{self.name}:latest"

    def dockerfile(self) -> str:
        """Write the Dockerfile: one package layer, which leaves no package lists behind."""
        lines = [f"FROM {BASE}"]
        if self.packages:
            steps = [
                "export DEBIAN_FRONTEND=noninteractive",
                "mkdir -p /usr/share/man/man1 /usr/share/man/man7",
                "apt-get update",
                f"apt-get install -y --no-install-recommends {' '.join(self.packages)}",
                *([self.setup] if self.setup else []),
                "apt-get clean",
                "rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin",
            ]
            lines.append("RUN " + " \\\n && ".join(steps))
        if self.user:
            lines.append(f"USER {self.user}")
        lines.append(f"CMD {json.dumps(self.command)}")
        return "\n".join(lines) + "\n"


IMAGES = {
    image.name: image
    for image in (
        Image("deb", (), ("echo", "READY")),
        Image("node", ("nodejs",), ("node", "-e", "console.log('READY')")),
        Image("gcc", ("gcc", "libc6-dev"), ("sh", "-c", _GCC)),
        Image(
            "py",
            ("python3", "python3-numpy", "python3-scipy", "python3-pandas", "python3-matplotlib"),
            ("python3", "-c", _PY),
        ),
        Image("pg", ("postgresql-15",), ("sh", "-c", _POSTGRES), user="postgres"),
        Image(
            "java",
            ("openjdk-17-jre-headless",),
            ("java", "-cp", "/srv", "Ready"),
            setup=_JAVA_SETUP,
        ),
        Image("go", ("golang-go",), ("sh", "-c", _GO)),
        Image(
            "php",
            ("nginx-light", "php-fpm", "php-intl", "php-gd", "php-mysql", "php-mbstring", "curl"),
            ("sh", "-c", _PHP),
        ),
        Image("ruby", ("ruby-rails",), ("ruby", "-e", "require 'rails/all'; puts 'READY'")),
    )
}


FAMILY = ("deb", "node", "gcc", "py", "pg", "java")
"""The images that bench/updates.py keeps in one store: fixed, so that its figures compare."""


def command_of(reference: str) -> list[str] | None:
    """Return the command of an image that the engine holds; None: it holds none."""
    asking = ["docker", "image", "inspect", "--format", "{{json .Config.Cmd}}", reference]
    asked = subprocess.run(asking, capture_output=True, check=False)
    if asked.returncode != 0:
        return None
    command: list[str] = json.loads(asked.stdout) or []
    return command


def build_image(image: Image, *, rebuild: bool = False) -> str:
    """Build the image unless the engine holds it already, and give its reference.

    One that has another command is of an earlier version of this file, and is built anew.

    Raises:
        SystemExit: the build failed; the last lines of its output are the message.
    """
    if not rebuild and command_of(image.reference) == list(image.command):
        return image.reference
    built = subprocess.run(
        ["docker", "build", "--force-rm", "-t", image.reference, "-"],
        input=image.dockerfile(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if built.returncode != 0:
        tail = "\n".join(built.stdout.splitlines()[-15:])
        raise SystemExit(f"{image.reference} could not be built:\n{tail}")
    return image.reference


def main(arguments: list[str] | None = None) -> int:
    """Build the images named on the command line, or all of them, one after the other."""
    parser = argparse.ArgumentParser(prog="python -m bench.images", description=main.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(IMAGES)}")
    parser.add_argument("--rebuild", action="store_true", help="build also what exists")
    options = parser.parse_args(arguments)
    for name in options.names or IMAGES:
        if name not in IMAGES:
            parser.error(f"no image is called {name}; there are {', '.join(IMAGES)}")
        print(build_image(IMAGES[name], rebuild=options.rebuild), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
