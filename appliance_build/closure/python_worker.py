"""Runs in the donor's own Python: lists imports and compiles modules, by JSON lines.

Started by :mod:`appliance_build.closure.tools` with the file's path, so it imports
nothing but the standard library. Each line of the input is a request, each line of the output
its answer. The donor's Python is asked because only it parses its own version's syntax.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import marshal
import sys
from pathlib import Path
from typing import Any

__all__ = ["ImportScan", "compile_module", "main"]

_FALSE_NAMES = {"TYPE_CHECKING", "MYPY", "_MYPY"}


class ImportScan(ast.NodeVisitor):
    """Collects the imports of one module, lazy and conditional ones included.

    Branches that can never run in the image are skipped: ``TYPE_CHECKING``, tests of the
    platform or the Python version, and (unless `main_too`) ``__name__ == "__main__"``.
    """

    def __init__(self, *, main_too: bool) -> None:
        self.found: list[tuple[str, list[str], int]] = []
        self._main_too = main_too

    def visit_Import(self, node: ast.Import) -> None:
        """``import a.b, c``."""
        for alias in node.names:
            self.found.append((alias.name, [], 0))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """``from .a import b``."""
        self.found.append((node.module or "", [a.name for a in node.names], node.level))

    def visit_Call(self, node: ast.Call) -> None:
        """``importlib.import_module("a")`` and ``__import__("a")`` with a literal."""
        name = node.func.attr if isinstance(node.func, ast.Attribute) else None
        name = node.func.id if isinstance(node.func, ast.Name) else name
        if name in ("import_module", "__import__", "_import_module") and node.args:
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                text = first.value
                stripped = text.lstrip(".")
                self.found.append((stripped, [], len(text) - len(stripped)))
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        """Follow the branches that may run."""
        outcome = self._truth(node.test)
        self.visit(node.test)
        for child in node.body if outcome is not False else ():
            self.visit(child)
        for child in node.orelse if outcome is not True else ():
            self.visit(child)

    def _truth(self, test: ast.expr) -> bool | None:
        match test:
            case ast.Name(id=name) | ast.Attribute(attr=name) if name in _FALSE_NAMES:
                return False
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                inner = self._truth(operand)
                return None if inner is None else not inner
            case ast.BoolOp(op=operator, values=values):
                outcomes = [self._truth(value) for value in values]
                decisive = isinstance(operator, ast.Or)
                if decisive in outcomes:
                    return decisive
                return None if None in outcomes else not decisive
            case ast.Compare():
                return self._compare(test)
            case ast.Call(
                func=ast.Attribute(
                    value=ast.Attribute(value=ast.Name(id="sys"), attr="platform"),
                    attr="startswith",
                ),
                args=[ast.Constant(value=str(prefix))],
            ):
                return "linux".startswith(prefix)
        return None

    def _compare(self, test: ast.Compare) -> bool | None:
        left = ast.unparse(test.left)
        known: dict[str, object] = {
            "sys.platform": "linux",
            "os.name": "posix",
            "sys.version_info": tuple(sys.version_info),
            "sys.version_info[0]": sys.version_info[0],
            "sys.version_info[:2]": tuple(sys.version_info[:2]),
            "platform.system()": "Linux",
            "sys.implementation.name": "cpython",
        }
        if not self._main_too:
            known["__name__"] = "a module"
        if left not in known or len(test.ops) != 1:
            return None
        try:
            right = ast.literal_eval(test.comparators[0])
        except ValueError:
            return None
        value: Any = known[left]
        try:
            match test.ops[0]:
                case ast.Eq():
                    return bool(value == right)
                case ast.NotEq():
                    return bool(value != right)
                case ast.In():
                    return bool(value in right)
                case ast.NotIn():
                    return bool(value not in right)
                case ast.GtE():
                    return bool(value >= right)
                case ast.Gt():
                    return bool(value > right)
                case ast.Lt():
                    return bool(value < right)
                case ast.LtE():
                    return bool(value <= right)
        except TypeError:
            return None
        return None


def _scan(request: dict[str, Any]) -> dict[str, Any]:
    scan = ImportScan(main_too=request["main_too"])
    scan.visit(ast.parse(Path(request["source"]).read_bytes(), request["source"]))
    return {"imports": scan.found}


def _without_docstrings(tree: ast.Module) -> ast.Module:
    """The module without the docstrings of itself and its functions, as `-OO` would leave it, with
    its assertions: nothing reads them on the appliance, and every process would keep them in
    memory.

    Those of classes stay: `dataclass` makes one at every start if there is none.
    """
    for node in ast.walk(tree):
        if not isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node, clean=False) is None:
            continue
        text = node.body.pop(0)
        if not node.body and not isinstance(node, ast.Module):
            node.body.append(ast.copy_location(ast.Pass(), text))
    return tree


def compile_module(request: dict[str, Any]) -> dict[str, Any]:
    """Compile `source` for its place `path` in the image into `out`; the same bytes each time."""
    source = Path(request["source"]).read_bytes()
    tree = _without_docstrings(ast.parse(source, request["path"]))
    code = compile(tree, request["path"], "exec", dont_inherit=True, optimize=0)
    # Marshal's back references follow reference counts; a second round makes them depend on
    # the code alone, so the same source always gives the same bytes.
    settled = marshal.loads(marshal.dumps(code, 2))  # noqa: S302 - our own bytes
    data = bytearray(importlib.util.MAGIC_NUMBER)
    data += (0b01).to_bytes(4, "little")  # hash-based, unchecked
    data += importlib.util.source_hash(source)
    data += marshal.dumps(settled, 4)
    Path(request["out"]).write_bytes(data)
    return {"size": len(data)}


def main() -> None:
    """Answer requests until the input ends."""
    for line in sys.stdin:
        request = json.loads(line)
        try:
            match request["do"]:
                case "hello":
                    answer: dict[str, Any] = {
                        "version": list(sys.version_info[:3]),
                        "builtins": list(sys.builtin_module_names),
                    }
                case "scan":
                    answer = _scan(request)
                case "compile":
                    answer = compile_module(request)
                case other:
                    answer = {"error": f"unknown request {other}"}
        except (SyntaxError, ValueError, OSError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
