"""The client prints through one module, which cleans what others chose."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.style.sources import Module, modules

DOOR = "remote_api.client.cli.output"
CLICK = {"clear", "confirm", "echo", "echo_via_pager", "edit", "pause", "progressbar", "prompt"} | {
    "secho",
    "style",
}
STREAMS = {"__stderr__", "__stdout__", "stderr", "stdout"}
GUESTS_LINE = "remote_api.client.consoles.terminal"
"""It hands a guest's bytes to the terminal, which is what a console is for."""


def _prints(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Whatever prints, or gets hold of what is printed to."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner, name = node.value.id, node.attr
            if (owner == "click" and name in CLICK) or (owner == "sys" and name in STREAMS):
                yield node.lineno, f"{owner}.{name}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id == "print":
                yield node.lineno, "print"
        elif isinstance(node, ast.ImportFrom):
            names = {alias.name for alias in node.names}
            if (node.module == "click" and names & CLICK) or (
                node.module == "sys" and names & STREAMS
            ):
                yield node.lineno, f"from {node.module} import"
            elif (node.module or "").partition(".")[0] == "rich":
                yield node.lineno, "rich"
        elif isinstance(node, ast.Import) and any(
            alias.name.partition(".")[0] == "rich" for alias in node.names
        ):
            yield node.lineno, "rich"


def _of_the_client() -> list[Module]:
    return [module for module in modules() if module.name.startswith("remote_api.client")]


def test_one_module_prints() -> None:
    found = [
        f"{module.shown}:{line} {what}"
        for module in _of_the_client()
        if module.name not in (DOOR, GUESTS_LINE)
        for line, what in _prints(module.tree)
    ]
    assert found == []


def test_what_counts_as_printing() -> None:
    for line in (
        "click.echo('x')",
        "from click import echo",
        "print('x')",
        "sys.stderr.write('x')",
        "from rich.console import Console",
        "import rich",
    ):
        assert list(_prints(ast.parse(line))), line
    assert list(_prints(next(m for m in _of_the_client() if m.name == DOOR).tree))
