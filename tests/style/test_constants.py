"""A constant that a module offers is declared there alone: others import it."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator

from tests.style.sources import Module, modules

PACKAGES = ("vmkernel.", "remote_api.")


def _constants(module: Module) -> Iterator[tuple[str, str]]:
    """Names and values as the source has them."""
    for node in module.tree.body:
        if isinstance(node, ast.Assign):
            targets, value = node.targets, node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets, value = [node.target], node.value
        else:
            continue
        written = ast.unparse(value)
        for target in targets:
            if isinstance(target, ast.Name) and target.id.isupper() and "TypeVar" not in written:
                yield target.id, written


def doubles_of(found: dict[tuple[str, str], list[tuple[str, str]]]) -> list[str]:
    """What is declared again under the same name, with or without an underscore, and value."""
    return [
        f"{name} = {value}: {', '.join(module for module, _ in places)}"
        for (name, value), places in sorted(found.items())
        if len(places) > 1 and any(not given.startswith("_") for _, given in places)
    ]


def test_a_constant_that_is_offered_is_declared_once() -> None:
    found: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for module in modules():
        if module.name.startswith(PACKAGES):
            for name, value in _constants(module):
                found[name.lstrip("_"), value].append((module.name, name))
    assert ("SECTOR_BYTES", "512") in found
    assert doubles_of(found) == [], "import it from where it is offered"


def test_a_double_is_found() -> None:
    offered = {("SIZE", "512"): [("a", "SIZE"), ("b", "_SIZE")]}
    private = {("SIZE", "512"): [("a", "_SIZE"), ("b", "_SIZE")]}
    assert len(doubles_of(offered)) == 1
    assert doubles_of(private) == []
    assert doubles_of({("SIZE", "1"): [("a", "SIZE")], ("SIZE", "2"): [("b", "SIZE")]}) == []
