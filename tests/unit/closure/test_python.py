"""The rule for Python, with this interpreter in the donor's place."""

from __future__ import annotations

import ast
import asyncio
import marshal
from pathlib import Path
from typing import Any, cast

import pytest

from appliance_build.closure.errors import ImportMissingError
from appliance_build.closure.packages import Wheels
from appliance_build.closure.plan import Origin, Reason
from appliance_build.closure.python_worker import ImportScan, compile_module
from appliance_build.closure.rule_python import RulePython
from appliance_build.closure.search import Search
from appliance_build.closure.tools import DonorPython
from appliance_build.closure.trees import PYTHON_SITE, Layer, Trees
from tests.unit.closure.samples import roots_of, write

WHY = Reason("root", "test", "asked for")
STDLIB = "/usr/lib/python3.13"


class LocalPython:
    """Answers scan requests like the donor's Python, in this process."""

    version = (3, 13, 5)
    builtins = frozenset({"sys"})

    def ask(self, request: dict[str, object]) -> dict[str, object]:
        """Scan one file."""
        scan = ImportScan(main_too=bool(request["main_too"]))
        scan.visit(ast.parse(Path(str(request["source"])).read_text()))
        return {"imports": scan.found}


def _imports(text: str, *, main_too: bool = False) -> list[str]:
    scan = ImportScan(main_too=main_too)
    scan.visit(ast.parse(text))
    return [module for module, _, _ in scan.found]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import a.b, c", ["a.b", "c"]),
        ("def f():\n import lazy", ["lazy"]),
        ("try:\n import a\nexcept ImportError:\n import b", ["a", "b"]),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n import a", ["typing"]),
        ("import typing\nif not typing.TYPE_CHECKING:\n import a", ["typing", "a"]),
        ("if sys.platform == 'win32':\n import a\nelse:\n import b", ["b"]),
        ("if sys.platform.startswith('win'):\n import a", []),
        ("if os.name == 'nt' or sys.platform == 'darwin':\n import a", []),
        ("if sys.version_info < (3, 8):\n import a\nelse:\n import b", ["b"]),
        ("if os.name == 'nt' and x:\n import a", []),
        ("if x:\n import a", ["a"]),
        ("if __name__ == '__main__':\n import a", []),
        ("import importlib\nimportlib.import_module('a.b')", ["importlib", "a.b"]),
        ("__import__('a')", ["a"]),
        ("import_module(name)", []),
    ],
)
def test_scan(text: str, found: list[str]) -> None:
    assert _imports(text) == found


def test_scan_keeps_the_main_block_of_our_own_modules() -> None:
    assert _imports("if __name__ == '__main__':\n import a", main_too=True) == ["a"]


def _search(tmp_path: Path, policy: str = "") -> tuple[Search, RulePython]:
    trees = Trees(
        [
            Layer(Origin.OWN, tmp_path / "own", PYTHON_SITE, frozenset({"ours"})),
            Layer(Origin.WHEEL, tmp_path / "wheels", PYTHON_SITE),
            Layer(Origin.DONOR, tmp_path / "donor"),
        ]
    )
    roots = roots_of(tmp_path / "roots", policy)
    search = Search(trees, roots, [], Wheels(tmp_path / "wheels"))
    python = RulePython(cast(DonorPython, LocalPython()))
    search.rules = [python]
    return search, python


def _modules(search: Search) -> set[str]:
    return {path for path, entry in search.entries.items() if entry.source is not None}


def test_a_package_brings_what_it_imports_near_and_far(tmp_path: Path) -> None:
    own, wheels, donor = tmp_path / "own", tmp_path / "wheels", tmp_path / "donor"
    write(own, "/ours/__init__.py", "from . import part\nimport sys\n")
    write(own, "/ours/part.py", "from lib.sub import thing, deep\n")
    write(own, "/ours/unnamed.py", "")
    write(own, "/ours/data.json", "{}")
    write(own, "/ours/README.md", "")
    write(own, "/ours/client/__init__.py", "import gone")
    write(wheels, "/lib/__init__.py", "")
    write(wheels, "/lib/sub/__init__.py", "from ..other import x\nfrom std import y\n")
    write(wheels, "/lib/sub/deep.py", "import not_there\n")
    write(wheels, "/lib/other.py", "")
    write(wheels, "/lib/unused.py", "")
    write(donor, f"{STDLIB}/std.py", "")
    write(donor, f"{STDLIB}/unused.py", "")
    search, python = _search(tmp_path)
    python.take_root(search, "ours", WHY, ("ours.client",))
    search.run()
    assert _modules(search) == {
        f"{PYTHON_SITE}/ours/__init__.py",
        f"{PYTHON_SITE}/ours/part.py",
        f"{PYTHON_SITE}/ours/unnamed.py",
        f"{PYTHON_SITE}/ours/data.json",
        f"{PYTHON_SITE}/lib/__init__.py",
        f"{PYTHON_SITE}/lib/sub/__init__.py",
        f"{PYTHON_SITE}/lib/sub/deep.py",
        f"{PYTHON_SITE}/lib/other.py",
        f"{STDLIB}/std.py",
    }
    assert any("not_there" in note for note in search.notes)


def test_our_own_missing_import_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "own", "/ours/__init__.py", "import gone\n")
    search, python = _search(tmp_path)
    python.take_root(search, "ours", WHY, ())
    with pytest.raises(ImportMissingError, match="gone"):
        search.run()


def test_waivers_cut_and_hidden_imports_add(tmp_path: Path) -> None:
    own, donor = tmp_path / "own", tmp_path / "donor"
    write(own, "/ours/__init__.py", "import heavy.part\nimport _fast\nimport pathy\n")
    write(donor, f"{STDLIB}/heavy/__init__.py", "")
    write(donor, f"{STDLIB}/heavy/part.py", "")
    write(donor, f"{STDLIB}/pathy.py", "import heavy\n")
    write(donor, f"{STDLIB}/lib-dynload/_fast.cpython-313-x86_64-linux-gnu.so", b"")
    write(donor, f"{STDLIB}/slow.py", "")
    search, python = _search(
        tmp_path,
        '[[python_waiver]]\nmodule="heavy"\nreason="r"\n'
        '[[python_hidden]]\nimporter="_fast"\nmodules=["slow"]\nreason="r"\n',
    )
    python.take_root(search, "ours", WHY, ())
    search.run()
    assert f"{STDLIB}/slow.py" in search.entries
    assert not any("heavy" in path for path in search.entries)


def test_a_namespace_package_and_aliases_of_the_standard_library(tmp_path: Path) -> None:
    own, wheels, donor = tmp_path / "own", tmp_path / "wheels", tmp_path / "donor"
    write(own, "/ours/__init__.py", "import collections.abc\nfrom space.inner import x\n")
    write(wheels, "/space/inner/__init__.py", "")
    write(donor, f"{STDLIB}/collections/__init__.py", "")
    write(donor, f"{STDLIB}/_collections_abc.py", "")
    search, python = _search(tmp_path)
    python.take_root(search, "ours", WHY, ())
    search.run()
    assert f"{STDLIB}/_collections_abc.py" in search.entries
    assert f"{PYTHON_SITE}/space/inner/__init__.py" in search.entries


def test_functions_lose_their_docstrings_and_nothing_else(tmp_path: Path) -> None:
    source = tmp_path / "m.py"
    source.write_text(
        '"""M."""\nfrom __future__ import annotations\n\n\nclass C:\n    """C."""\n\n'
        '    def only(self):\n        """Only."""\n\n\n'
        'async def works(n):\n    """Works."""\n    assert n > 0\n    return n\n'
    )
    out = tmp_path / "m.pyc"
    compile_module({"source": str(source), "path": "/m.py", "out": str(out)})
    names: dict[str, Any] = {}
    exec(marshal.loads(out.read_bytes()[16:]), names)
    assert "__doc__" not in names
    assert names["C"].__doc__ == "C."
    assert names["C"].only.__doc__ is None
    assert names["works"].__doc__ is None
    assert names["C"]().only() is None
    with pytest.raises(AssertionError):
        asyncio.run(names["works"](0))
