"""How each module reads: its docstring, its surface, its length."""

from __future__ import annotations

import ast
import re

import pytest

from tests.style.sources import PACKAGES, REPOSITORY, Module, modules, tracked_files

LONGEST_LINES = 600
SOURCE_SUFFIXES = {".c", ".h", ".js", ".py"}
OTHERS_MODULES = {"cloudinit/user_data.py", "templater.py"}
"""Of other programs: cloud-init."""


def _all_of(module: Module) -> list[str] | None:
    for node in module.tree.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets
        ):
            value = ast.literal_eval(node.value)
            assert isinstance(value, list), f"{module.shown}: __all__ is no list"
            return value
    return None


def _is_test(module: Module) -> bool:
    return module.path.name.startswith("test_") or module.path.name == "conftest.py"


def _is_program(module: Module) -> bool:
    return module.path.name == "__main__.py"


def test_every_module_has_a_docstring() -> None:
    found = [module.shown for module in modules() if not ast.get_docstring(module.tree)]
    assert found == []


def test_every_package_opens_with_a_sentence() -> None:
    found: list[str] = []
    for module in modules():
        if module.path.name != "__init__.py":
            continue
        docstring = " ".join((ast.get_docstring(module.tree) or "").split("\n\n")[0].split())
        if not docstring.endswith("."):
            found.append(f"{module.shown}: {docstring!r}")
    assert found == []


def test_every_module_has_a_sorted_surface() -> None:
    found: list[str] = []
    for module in modules():
        if _is_test(module) or _is_program(module):
            continue
        names = _all_of(module)
        if names is None:
            if module.path.name != "__init__.py":
                found.append(f"{module.shown}: no __all__")
        elif names != sorted(names) or len(set(names)) != len(names):
            found.append(f"{module.shown}: __all__ is not sorted")
    assert found == []


def test_surfaces_name_what_is_there() -> None:
    found: list[str] = []
    for module in modules():
        defined = set()
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                defined.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                defined.add(node.id)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                defined.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
        prefix = module.name + "."
        defined.update(
            other.name.removeprefix(prefix) for other in modules() if other.name.startswith(prefix)
        )
        found.extend(
            f"{module.shown}: {name}" for name in _all_of(module) or [] if name not in defined
        )
    assert found == []


def test_descriptions_name_modules_that_are_there() -> None:
    places = [f"/{module.shown}" for module in modules()]
    found = [
        f"{module.shown}:{node.lineno}: {name}"
        for module in modules()
        if not module.name.startswith("tests.")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        for name in re.findall(r"[\w/]+\.py\b", node.value.value)
        if name not in OTHERS_MODULES and not any(place.endswith(f"/{name}") for place in places)
    ]
    assert found == []


def test_no_source_file_is_longer_than_six_hundred_lines() -> None:
    found: list[str] = []
    for path in tracked_files():
        if path.suffix in SOURCE_SUFFIXES or path.name == "SConstruct":
            count = len(path.read_text().splitlines())
            if count > LONGEST_LINES:
                found.append(f"{path.relative_to(REPOSITORY)}: {count} lines")
    assert found == []


@pytest.mark.parametrize("package", ["remote_api", "vmkernel"])
def test_packages_are_typed(package: str) -> None:
    assert (REPOSITORY / package / "py.typed").is_file()


@pytest.mark.parametrize("package", PACKAGES)
def test_every_top_level_folder_has_a_readme(package: str) -> None:
    assert (REPOSITORY / package / "README.md").is_file()
