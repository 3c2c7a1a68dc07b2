"""What users read (problems, findings, events, logs, the API's document) is in plain words.

The command's help is checked by test_help.py.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from typing import Any

from tests.framework.repository import REPOSITORY
from tests.style.sources import modules
from tests.style.words import idioms_in, never_in

__all__ = ["sentences"]

_TEXT = ("description", "summary", "title")


def sentences(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """The texts in a module, values in them left out; not those that describe its code."""
    descriptions = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    parts = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    for node in ast.walk(tree):
        if id(node) in descriptions or id(node) in parts:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        elif isinstance(node, ast.JoinedStr):
            text = "".join(
                str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values
            )
        else:
            continue
        if text.count(" ") > 1:
            yield node.lineno, text


def _documented(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key in _TEXT and isinstance(value, str):
                yield value
            yield from _documented(value)
    elif isinstance(node, list):
        for value in node:
            yield from _documented(value)


def test_the_host_speaks_plainly() -> None:
    wrong = [
        f"{module.name}:{line}: {found}: {text[:90]}"
        for module in modules()
        if module.name.startswith(("vmkernel.", "remote_api."))
        for line, text in sentences(module.tree)
        if (found := never_in(text))
    ]
    assert wrong == []


def test_the_api_s_document_speaks_plainly() -> None:
    document = json.loads((REPOSITORY / "remote_api/openapi.json").read_text())
    assert [(found, text) for text in _documented(document) if (found := never_in(text))] == []


def test_docstrings_are_plain() -> None:
    wrong = [
        f"{module.shown}:{node.lineno}: {found}"
        for module in modules()
        if not module.name.startswith("tests.") or module.name.startswith("tests.framework.")
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
        and (found := idioms_in(node.value.value))
    ]
    assert wrong == []


def test_idioms_are_found_and_places_are_not() -> None:
    for docstring in (
        "True where it is off.",
        "The file; OSError\n    where that fails.",
        "One; `conflict` where it runs.",
        "Called once nobody waits.",
        "What lies in the folder.",
    ):
        assert idioms_in(docstring), docstring
    for docstring in ("The folder where the image is.", "Where the socket is; None for none."):
        assert idioms_in(docstring) == [], docstring


def test_the_check_finds_what_it_looks_for() -> None:
    tree = ast.parse('"""Nobody."""\nfail(f"VM {vm} is told so by nobody else.")\n')
    ((line, text),) = sentences(tree)
    assert (line, never_in(text)) == (2, ["nobody", "told"])
