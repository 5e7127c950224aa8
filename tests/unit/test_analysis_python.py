"""Which modules the analysis finds that a start of Python imports, and which files they are."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converter.analysis.imports import iter_imports
from tests.support.analysed import Analysed, make_tree
from tests.support.elves import make_elf

LIBRARY = "/usr/lib/python3.11"
SITE = "/usr/lib/python3/dist-packages"
PYTHON = {
    "/usr/bin/python3": "python3.11",
    "/usr/bin/python3.11": make_elf(),
    f"{LIBRARY}/os.py": b"import stat\n",
    f"{LIBRARY}/stat.py": b"",
    f"{LIBRARY}/encodings/__init__.py": b"from . import aliases\n",
    f"{LIBRARY}/encodings/aliases.py": b"\n",
    f"{LIBRARY}/encodings/utf_8.py": b"\n",
    f"{SITE}/README": b"\n",
}
ALWAYS = ["__init__.py", "aliases.py", "utf_8.py"]


def imported(files: dict[str, bytes | str], *words: str, **more: str) -> list[str]:
    """Return which of ``files`` a start of Python reads, without the directory of all."""
    read = Analysed(make_tree({**PYTHON, **files}), ["python3", *words], more).files
    assert read[0] == "/usr/bin/python3.11"
    assert [path.rpartition("/")[2] for path in read[1:4]] == ALWAYS
    return [path.removeprefix(SITE + "/") for path in read[4:]]


def site(modules: dict[str, bytes] | None = None, **more: bytes) -> dict[str, bytes | str]:
    """Return files of the site directory by the names of modules."""
    named = {**(modules or {}), **more}
    return {f"{SITE}/{name.replace('.', '/')}.py": data for name, data in named.items()}


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import one", ["one.py"]),
        ("import two, one; print(1)", ["two.py", "one.py"]),
        ("import one as x\nfrom two import y", ["one.py", "two.py"]),
        ("x = 1; import one", ["one.py"]),
        ("if x:\n    import one\nelse:\n    import two", ["one.py", "two.py"]),
        ("def f():\n    import one\nimport two", ["two.py"]),
        ("def f():\n    import one\nclass C:\n    import two", ["two.py"]),
        ("async def f():\n    import one\ntry:\n    import two\nexcept E:\n    pass", ["two.py"]),
        ("if TYPE_CHECKING:\n    import one\nimport two", ["two.py"]),
        ("if typing.TYPE_CHECKING:\n    import one\nimport two", ["two.py"]),
        ("if __name__ == '__main__':\n    import one", ["one.py"]),
        ("important = 1\nfromage = 2\nimport_one = 3", []),
        ("# import one\n", []),
        ("import missing.one", []),
    ],
)
def test_code_imports_what_runs_at_once(code: str, found: list[str]) -> None:
    assert imported(site(one=b"\n", two=b"\n"), "-c", code) == found


def test_imports_are_followed_depth_first_and_once() -> None:
    files = site(a=b"import b\nimport c\n", b=b"import d\nimport a\n", c=b"import d\n", d=b"\n")
    assert imported(files, "-c", "import a") == ["a.py", "b.py", "d.py", "c.py"]


def test_packages_come_before_what_is_in_them_and_names_may_be_modules() -> None:
    files = site(
        {
            "p.__init__": b"from .x import (\n    thing,  # a comment\n    other,\n)\n",
            "p.x": b"from .. import beyond\nfrom . import y, nothing\n",
            "p.y": b"from p import z\n",
            "p.z": b"from . import *\n",
        }
    )
    assert imported(files, "-c", "import p") == ["p/__init__.py", "p/x.py", "p/y.py", "p/z.py"]


def test_names_over_several_lines_are_found() -> None:
    files = site({"p.__init__": b"\n", "p.x": b"\n", "p.y": b"\n"})
    found = imported(files, "-c", "from p import (\n    x,\n    y as z,\n)\n")
    assert found == ["p/__init__.py", "p/x.py", "p/y.py"]


def test_bytecode_of_this_version_is_read_in_the_place_of_source() -> None:
    files = site(a=b"import b\n", b=b"\n")
    files[f"{SITE}/__pycache__/a.cpython-311.pyc"] = b"bytecode"
    files[f"{SITE}/__pycache__/b.cpython-312.pyc"] = b"bytecode"
    assert imported(files, "-c", "import a") == ["__pycache__/a.cpython-311.pyc", "b.py"]


def test_extension_modules_come_before_source_and_bring_their_libraries() -> None:
    files = site(a=b"import missing\n")
    files[f"{SITE}/a.cpython-311-x86_64-linux-gnu.so"] = make_elf(needed=[b"liba.so"])
    files[f"{SITE}/a.cpython-312-x86_64-linux-gnu.so"] = make_elf()
    files["/usr/lib/liba.so"] = make_elf()
    expected = ["a.cpython-311-x86_64-linux-gnu.so", "/usr/lib/liba.so"]
    assert imported(files, "-c", "import a") == expected


def test_frozen_modules_are_not_read_and_what_they_import_is() -> None:
    files: dict[str, bytes | str] = {
        f"{LIBRARY}/runpy.py": b"import pkgutil\n",
        f"{LIBRARY}/pkgutil.py": b"\n",
        **site({"app.__init__": b"\n", "app.__main__": b"import dep\n"}, dep=b"\n"),
    }
    expected = [LIBRARY + "/pkgutil.py", "app/__init__.py", "app/__main__.py", "dep.py"]
    assert imported(files, "-m", "app") == expected


def test_a_script_imports_from_its_own_directory_first() -> None:
    files = {"/srv/app.py": b"import dep\n", "/srv/dep.py": b"\n", **site(dep=b"\n")}
    assert imported(files, "-u", "-W", "ignore", "/srv/app.py", "x") == [
        "/srv/app.py",
        "/srv/dep.py",
    ]


def test_paths_come_from_the_environment_and_from_pth_files() -> None:
    files = {
        f"{SITE}/more.pth": b"# none\n/opt/more\nimport hook; hook.go()\n",
        "/opt/more/far.py": b"\n",
        "/opt/given/near.py": b"\n",
        **site(hook=b"\n", near=b"\n"),
    }
    found = imported(files, "-c", "import near, far", PYTHONPATH="/opt/given")
    assert found == ["more.pth", "hook.py", "/opt/given/near.py", "/opt/more/far.py"]


def test_a_virtual_environment_has_its_own_packages() -> None:
    tree = make_tree(
        {
            **PYTHON,
            "/venv/bin/python": "/usr/bin/python3",
            "/venv/pyvenv.cfg": b"home = /usr/bin\nversion = 3.11\n",
            "/venv/lib/python3.11/site-packages/one.py": b"\n",
            **site(one=b"\n"),
        }
    )
    read = Analysed(tree, ["/venv/bin/python", "-c", "import one"]).files
    assert read[-1] == "/venv/lib/python3.11/site-packages/one.py"
    assert "/venv/pyvenv.cfg" in read


def test_a_python_elsewhere_has_its_library_beside_it() -> None:
    tree = make_tree(
        {
            "/usr/local/bin/python3": "python3.13",
            "/usr/local/bin/python3.13": make_elf(),
            "/usr/local/lib/python3.13/os.py": b"\n",
            "/usr/local/lib/python3.13/site-packages/one.py": b"\n",
            "/usr/lib/python3.11/os.py": b"\n",
        }
    )
    read = Analysed(tree, ["python3", "-c", "import one"], {"PATH": "/usr/local/bin"}).files
    assert read[-1] == "/usr/local/lib/python3.13/site-packages/one.py"


def test_a_program_of_python_is_started_by_its_first_line() -> None:
    tree = make_tree(
        {**PYTHON, "/usr/bin/app": b"#!/usr/bin/python3\nimport one\n", **site(one=b"\n")}
    )
    assert Analysed(tree, ["app"]).files[-1] == f"{SITE}/one.py"


def test_what_this_interpreter_imports_is_found() -> None:
    """Against CPython itself: every module that these import at once, of one package."""
    code = "import sys, {0}; print(*(m for m in sys.modules if m.split('.')[0] == '{0}'))"
    for name in ("json", "concurrent.futures", "xml.etree.ElementTree"):
        top = name.partition(".")[0]
        run = [sys.executable, "-I", "-c", code.format(top).replace(f"sys, {top}", f"sys, {name}")]
        wanted = set(subprocess.run(run, capture_output=True, text=True, check=True).stdout.split())
        assert len(wanted) > 1
        assert wanted <= _modules_found(name)


def _modules_found(name: str) -> set[str]:
    """Return all that an import finds in this interpreter's standard library."""
    import importlib.util

    found: set[str] = set()
    pending = [name]
    while pending:
        module = pending.pop()
        if not module or module in found:
            continue
        pending.append(module.rpartition(".")[0])
        spec = importlib.util.find_spec(module)
        if spec is None:
            continue
        found.add(module)
        if spec.origin is None or not spec.origin.endswith(".py"):
            continue
        package = module if spec.submodule_search_locations else module.rpartition(".")[0]
        with open(spec.origin, "rb") as file:
            source = file.read()
        for dots, dotted, names in iter_imports(source, lambda _: None, is_main=False):
            if dots != 1 and not (dots == 0 and dotted.decode().startswith(name.partition(".")[0])):
                continue
            base = ".".join(filter(None, [package if dots else "", dotted.decode()]))
            pending.append(base)
            if (parent := importlib.util.find_spec(base)) and parent.submodule_search_locations:
                pending += [f"{base}.{one.decode()}" for one in names]
    return found


@given(st.lists(st.sampled_from(
    [b"import a", b"from . import b", b"from .. import (", b"c,", b")", b"def f():", b"    ",
     b"\t", b"\n", b";", b"if TYPE_CHECKING:", b"class C:", b"\xff", b"\0", b"from ", b"import "]
)).map(b"".join))  # fmt: skip
def test_any_source_is_gone_through(source: bytes) -> None:
    for dots, dotted, names in iter_imports(source, lambda _: None, is_main=True):
        assert dots or dotted
        assert all(names)


def test_a_source_made_to_take_long_is_cut_off() -> None:
    hostile = b"if 1: pass\n" * 190_000
    files = site(**{f"m{number}": hostile for number in range(40)})
    code = ";".join(f"import m{number}" for number in range(40))
    found = imported(files, "-c", code)
    assert found == [f"m{number}.py" for number in range(len(found))]
    assert 2 < len(found) < 10
