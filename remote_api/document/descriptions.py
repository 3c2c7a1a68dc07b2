"""The descriptions of a record's fields, read from the text below each in its source.

The OpenAPI document is made on a developer's machine, where the source is; on a host the texts cost
no memory. A field whose type has a description of its own needs no text.
"""

from __future__ import annotations

import ast
import inspect
import sys
from functools import cache
from typing import Any, get_origin

import msgspec

__all__ = ["described"]


def described(record: Any, properties: dict[str, Any]) -> dict[str, Any]:
    """The properties of a record's schema with their descriptions."""
    told = _texts(record)
    return {
        name: {**schema, "description": told[name]} if name in told else schema
        for name, schema in properties.items()
    }


@cache
def _texts(record: Any) -> dict[str, str]:
    """By the names of the fields on the wire; a class can describe inherited fields too."""
    texts: dict[str, str] = {}
    record = get_origin(record) or record
    for base in reversed(record.__mro__):
        if issubclass(base, msgspec.Struct) and base is not msgspec.Struct:
            texts |= _in_module(base.__module__).get(base.__qualname__, {})
    names = zip(record.__struct_fields__, record.__struct_encode_fields__, strict=True)
    return {encoded: texts[name] for name, encoded in names if name in texts}


@cache
def _in_module(module: str) -> dict[str, dict[str, str]]:
    """The texts below the fields of each class of a module."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: _below(node) for node in tree.body if isinstance(node, ast.ClassDef)}


def _below(node: ast.ClassDef) -> dict[str, str]:
    texts: dict[str, str] = {}
    for field, text in zip(node.body, node.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
            and isinstance(text.value.value, str)
        ):
            texts[field.target.id] = " ".join(text.value.value.split())
    return texts
