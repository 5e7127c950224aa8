"""The first Python that runs in a container: it imports from one file, then runs the init.

A module found by path costs eight system calls and a listing of its directory, and
a boot imports forty.  So the converter puts the modules of the boot path, as byte
code, into one file (converter/runtime/modulefile.py), which is read once; a
module's code is unmarshalled when it is imported.  What is not in there is found
by path as ever: that is TLS and mode ``fuse``.

Imports nothing but what an interpreter always has at hand.
"""

import gc
import posix
import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import ExtensionFileLoader
from marshal import loads

MODULES = "modules"
"""The file, below ``/.bootfs/runtime``."""
PYTHON_PATH = "python-path"
"""Where extension modules lie, below ``/.bootfs/runtime``."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType


class ModuleFile:
    """Finds and loads modules from the file; an entry of ``sys.meta_path``.

    Lines of name, kind and a third word; an empty line; byte code one after the other.
    Kind ``m`` is a module and ``p`` a package, with the size of its byte code; ``x`` is an
    extension module, with its path below `PYTHON_PATH`.
    """

    def __init__(self, runtime: str) -> None:
        """Read the file in directory ``runtime``.

        Raises:
            OSError: it cannot be read.

        """
        fd = posix.open(f"{runtime}/{MODULES}", posix.O_RDONLY | posix.O_CLOEXEC)
        data = posix.read(fd, posix.fstat(fd).st_size)
        posix.close(fd)
        self._place = f"{runtime}/{PYTHON_PATH}"
        self._kinds: dict[str, str] = {}
        self._codes: dict[str, memoryview] = {}
        self._extensions: dict[str, str] = {}
        at = data.index(b"\n\n") + 2
        view = memoryview(data)
        for line in data[: at - 2].decode().split("\n"):
            name, kind, rest = line.split(" ")
            self._kinds[name] = kind
            if kind == "x":
                self._extensions[name] = rest
            else:
                end = at + int(rest)
                self._codes[name] = view[at:end]
                at = end

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Return how to load module ``name``, or None: then others are asked."""
        kind = self._kinds.get(name)
        if kind is None:
            return None
        if kind == "x":
            place = f"{self._place}/{self._extensions[name]}"
            spec = ModuleSpec(name, ExtensionFileLoader(name, place), origin=place)
            spec.has_location = True
            return spec
        spec = ModuleSpec(name, self, is_package=kind == "p")  # type: ignore[arg-type]  # all that is asked of one
        if kind == "p":
            # Not all of its modules need be in the file.
            spec.submodule_search_locations = [f"{self._place}/{name.replace('.', '/')}"]
        return spec

    def create_module(self, spec: ModuleSpec) -> "ModuleType | None":
        """Return None: an ordinary module will do."""

    def exec_module(self, module: "ModuleType") -> None:
        """Run the module's code in it."""
        # Of this very layer, which runs as it is.
        code: CodeType = loads(self._codes[module.__name__])  # noqa: S302
        exec(code, module.__dict__)  # noqa: S102


def install(runtime: str) -> None:
    """Have modules imported from the file in directory ``runtime`` first."""
    sys.meta_path.insert(0, ModuleFile(runtime))


if __name__ == "__main__":
    # What is imported and set up stays, so looking for garbage in it is in vain, and takes up
    # to 1 ms.  Each process has that begin (`gc.enable`) when its part of the boot is done.
    gc.disable()
    install(sys.argv[0].rpartition("/")[0])

    # The module array registers its class with collections.abc, whose package costs 1.5 ms.
    # The classes themselves are at hand, under another name.
    import _collections_abc

    sys.modules["collections"] = sys.modules["collections.abc"] = _collections_abc
    import array  # noqa: F401

    del sys.modules["collections"], sys.modules["collections.abc"]

    from boot.init import run

    run()
