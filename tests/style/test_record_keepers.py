"""What an object keeps is changed by the object, or inside its package: no other module assigns to
the attributes of another's record. So what must be true of a record has one place that keeps it
true, and one that writes it down.

An attribute is an object's if one of our classes declares it or assigns it to `self`. Whose it is
follows from the annotation of the variable, if it has one, or else from the attribute's name; an
attribute that none of our classes has (of a library's object) is not looked at.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence

import pytest

from tests.style.sources import REPOSITORY, Module, modules

Keepers = Mapping[str, frozenset[str]]
"""The packages of the classes that have an attribute, or bear a name."""

_TOP = "vmkernel"
_Scope = ast.FunctionDef | ast.AsyncFunctionDef


def package_of(module: str) -> str:
    """The innermost package; that of the top's own modules is each module itself."""
    package = module.rpartition(".")[0]
    return module if package in ("", _TOP) else package


def keepers_of(found: Sequence[Module]) -> tuple[Keepers, Keepers]:
    """By an attribute's name, and by the class's."""
    attributes: dict[str, set[str]] = {}
    classes: dict[str, set[str]] = {}
    for module in found:
        package = package_of(module.name)
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                classes.setdefault(node.name, set()).add(package)
                for name in _declared(node):
                    attributes.setdefault(name, set()).add(package)
    return (
        {name: frozenset(packages) for name, packages in attributes.items()},
        {name: frozenset(packages) for name, packages in classes.items()},
    )


def _declared(node: ast.ClassDef) -> Iterator[str]:
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            yield statement.target.id
    for inner in ast.walk(node):
        if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store):
            holder = inner.value
            if isinstance(holder, ast.Name) and holder.id == "self":
                yield inner.attr


def foreign_changes(
    module: Module, attributes: Keepers, classes: Keepers
) -> Iterator[tuple[int, str]]:
    """Line and text of each assignment to an attribute of another package's object, or of its
    deletion."""
    package = package_of(module.name)
    for target, named in _changed(module.tree, {}):
        keepers = attributes.get(target.attr, frozenset())
        holder = target.value
        if isinstance(holder, ast.Name) and holder.id in named:
            keepers = classes.get(named[holder.id], frozenset())
        if keepers and package not in keepers:
            yield target.lineno, ast.unparse(target)


def _changed(
    node: ast.AST, named: Mapping[str, str]
) -> Iterator[tuple[ast.Attribute, Mapping[str, str]]]:
    """The attributes of other objects than `self` that are changed, each with the class names of
    the annotated variables there."""
    if isinstance(node, _Scope):
        named = {**named, **_annotated(node)}
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Attribute) and not isinstance(child.ctx, ast.Load):
            own = isinstance(child.value, ast.Name) and child.value.id in ("self", "cls")
            if not own:
                yield child, named
        yield from _changed(child, named)


def _annotated(scope: _Scope) -> dict[str, str]:
    arguments = scope.args
    found = {}
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        if isinstance(argument.annotation, ast.Name | ast.Attribute):
            found[argument.arg] = ast.unparse(argument.annotation).rpartition(".")[2]
    return found


def test_records_are_changed_inside_their_packages() -> None:
    found = [module for module in modules() if module.name.partition(".")[0] == _TOP]
    attributes, classes = keepers_of(found)
    assert "vmkernel.vm.machine" in attributes["suspension"]
    changes = [
        f"{module.shown}:{line}: {text}"
        for module in found
        for line, text in foreign_changes(module, attributes, classes)
    ]
    assert changes == [], "\n".join(changes)


_KEEPER = """
class Machine:
    record: int
    def __init__(self) -> None:
        self.state = 0
        self.snapshots = {}
class Twin:
    name: str
"""


@pytest.mark.parametrize(
    ("text", "changes"),
    [
        ("def f(machine: Machine) -> None:\n    machine.state = 1", ["machine.state"]),
        ("def f(self) -> None:\n    self._machine.record = 1", ["self._machine.record"]),
        ("def f(machine) -> None:\n    machine.state += 1", ["machine.state"]),
        ("def f(machine) -> None:\n    a, machine.state = 1, 2", ["machine.state"]),
        ("def f(machine) -> None:\n    del machine.record", ["machine.record"]),
        ("def f(machine) -> None:\n    with x as machine.record: ...", ["machine.record"]),
        ("def f(machine: Machine) -> None:\n    machine.set_state(1)", []),
        ("def f(library) -> None:\n    library.argtypes = ()", []),
        ("class Own:\n    state: int\ndef f(own: Own) -> None:\n    own.state = 1", []),
        ("class Own:\n    state: int\ndef f(m: Machine) -> None:\n    m.state = 1", ["m.state"]),
    ],
)
def test_a_foreign_change_is_found(text: str, changes: list[str]) -> None:
    keeper = _module("vmkernel.vm.machine.machine", _KEEPER)
    other = _module("vmkernel.vm.driver.actions", text)
    attributes, classes = keepers_of([keeper, other])
    assert [shown for _, shown in foreign_changes(other, attributes, classes)] == changes
    inside = _module("vmkernel.vm.machine.other", text)
    attributes, classes = keepers_of([keeper, inside])
    assert list(foreign_changes(inside, attributes, classes)) == []


def _module(name: str, text: str) -> Module:
    return Module(name, REPOSITORY / f"{name.replace('.', '/')}.py", ast.parse(text))
