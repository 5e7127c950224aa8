"""What goes into the runtime layer: packages, binaries, modules.

Tables only.  What is not named here or in ``modules.txt`` is not in the layer; a test
compares both with what the bundle's interpreter really imports.
"""

from __future__ import annotations

from importlib.resources import files

RUNTIME = "runtime"
"""Where the bundle lies below ``/.bootfs``."""

PYTHON_PATH = "python-path"
"""The one directory of ``sys.path``, below `RUNTIME`: standard library, packages, our own."""

START = "start.pyc"
"""What the launcher runs, below `RUNTIME`."""

MODULES = "modules"
"""The file of the boot path's modules, below `RUNTIME`; see ``boot/start.py``."""

AT_BOOT = ("__future__", "bisect", "blake3", "struct", "zstandard")
"""Modules in `MODULES` beside our own and all extension modules."""

CERTIFICATES = "ca-certificates.crt"
"""The authorities trusted for HTTPS, concatenated, below `RUNTIME`."""

EMPTY_DIRECTORIES = ("cache", "image", "mnt", "rw")
"""Below ``/.bootfs``: mount points, and where the layer of the image itself puts its files."""

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
"""Architectures a layer can be built for, and Debian's names of them, which are OCI's too."""

DEBIAN_PACKAGES = (
    "ca-certificates",
    "gcc-12-base",  # holds libgcc-s1's licence
    "libc6",
    "libexpat1",
    "libffi8",
    "libfuse3-3",
    "libgcc-s1",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "libssl3",
    "python3-pyfuse3",
    "python3.11-minimal",
    "zlib1g",
)

WHEELS = {
    # The first two decide what bytes mean, and are pinned in pyproject.toml as well.
    "blake3": "1.0.11",
    "zstandard": "0.25.0",
    # For pyfuse3: trio, and what its core imports.
    "attrs": "25.4.0",
    "outcome": "1.3.0.post0",
    "sniffio": "1.3.1",
    "sortedcontainers": "2.4.0",
    "trio": "0.35.0",
}

LIBRARIES = "lib/{architecture}-linux-gnu"
"""Where packages have their libraries; see `place_of`."""

LOADERS = {"x86_64": "ld-linux-x86-64.so.2", "aarch64": "ld-linux-aarch64.so.1"}

# Path below RUNTIME -> package, path in it, which is for `place_of`.  A library is named as
# those that need it name it.
BINARIES = {
    "ld.so": ("libc6", f"{LIBRARIES}/{{loader}}"),
    "lib/libc.so.6": ("libc6", f"{LIBRARIES}/libc.so.6"),
    "lib/libcrypto.so.3": ("libssl3", f"usr/{LIBRARIES}/libcrypto.so.3"),
    "lib/libdl.so.2": ("libc6", f"{LIBRARIES}/libdl.so.2"),
    "lib/libexpat.so.1": ("libexpat1", f"{LIBRARIES}/libexpat.so.1"),
    "lib/libffi.so.8": ("libffi8", f"usr/{LIBRARIES}/libffi.so.8"),
    "lib/libfuse3.so.3": ("libfuse3-3", f"{LIBRARIES}/libfuse3.so.3"),
    "lib/libgcc_s.so.1": ("libgcc-s1", f"{LIBRARIES}/libgcc_s.so.1"),
    "lib/libm.so.6": ("libc6", f"{LIBRARIES}/libm.so.6"),
    "lib/libpthread.so.0": ("libc6", f"{LIBRARIES}/libpthread.so.0"),
    "lib/libssl.so.3": ("libssl3", f"usr/{LIBRARIES}/libssl.so.3"),
    "lib/libz.so.1": ("zlib1g", f"{LIBRARIES}/libz.so.1"),
    "python": ("python3.11-minimal", "usr/bin/python3.11"),
}

# Path below PYTHON_PATH -> the file of ``replacements/`` that stands there in place of
# the package's own.
REPLACED = {
    "ctypes/util.py": "ctypes_util.py.in",
    "trio/__init__.py": "trio.py.in",
    "trio/lowlevel.py": "trio_lowlevel.py.in",
    "zstandard/__init__.py": "zstandard.py.in",
}


# Our own module -> what it says for x86-64, and what it is to say in another architecture's
# layer.  So the layer of x86-64 has nothing that is not for x86-64.
EDITS: dict[str, dict[str, tuple[str, str]]] = {
    "x86_64": {},
    "aarch64": {
        "boot/syscalls.py": (
            '_SYS_CLONE, _SYS_SETRESUID = 56, 117\n"""x86-64."""',
            '_SYS_CLONE, _SYS_SETRESUID = 220, 147\n"""asm-generic/unistd.h."""',
        ),
        "boot/workload.py": ("from boot.seccomp import", "from boot.aarch64 import"),
    },
}

OF_ONE_ARCHITECTURE = {
    "boot/aarch64.py": "aarch64",
    "store/read/branchcode.x86_64.so": "x86_64",
}
"""Our own modules and machine code that are carried in the layer of one architecture alone."""


def place_of(path: str, architecture: str) -> str:
    """Return the path of a file in a package for an architecture, as the tables give it."""
    return path.format(architecture=architecture, loader=LOADERS[architecture])


def read_module_names() -> tuple[str, ...]:
    """Return the dotted names of all modules of the layer that are not our own, sorted."""
    text = (files(__package__) / "modules.txt").read_text()
    return tuple(line for line in text.splitlines() if not line.startswith("#"))
