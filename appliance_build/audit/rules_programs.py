"""No shell, no login, no remote login, no package manager: by name and by content."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from appliance_build.audit.tree import AuditTree, Finding, Node, Rule
from appliance_build.closure.rule_script import shebang

__all__ = ["RULES", "logins", "package_managers", "remote_logins", "scripts", "shells"]

_DATA: dict[str, Any] = tomllib.loads(
    Path(__file__).with_name("refused.toml").read_text(encoding="utf-8")
)
_SHELLS = frozenset(_DATA["shells"])
_CONTENT: list[tuple[str, list[bytes]]] = [
    (item["what"], [word.encode() for word in item["all"]]) for item in _DATA["content"]
]
_INTERPRETERS = ("/usr/bin/python3",)


def shells(tree: AuditTree) -> Iterator[Finding]:
    """No shell, by name or by what the program holds."""
    yield from _named(tree, "shell", "shells", "is a shell by name")
    for path in tree.elf_files:
        data = (tree.root / path.lstrip("/")).read_bytes()
        for what, words in _CONTENT:
            if all(word in data for word in words):
                yield Finding("shell", path, f"is {what} by content")


def scripts(tree: AuditTree) -> Iterator[Finding]:
    """No script for an interpreter other than the appliance's Python."""
    for node in tree.files:
        interpreter = shebang(node.head())
        if interpreter is None:
            continue
        if interpreter.rsplit("/", 1)[-1] in _SHELLS:
            yield Finding("script", node.path, f"is a script for {interpreter}")
        elif node.mode & 0o111 and interpreter not in _INTERPRETERS:
            yield Finding("script", node.path, f"names the interpreter {interpreter}")


def logins(tree: AuditTree) -> Iterator[Finding]:
    """No login program, no getty, no unit for one."""
    yield from _named(tree, "login", "logins", "lets somebody log in")
    yield from _named(tree, "login", "login_units", "is a unit for a login or a shell")


def remote_logins(tree: AuditTree) -> Iterator[Finding]:
    """No SSH or telnet server."""
    yield from _named(tree, "remote-login", "remote_logins", "lets somebody log in from outside")


def package_managers(tree: AuditTree) -> Iterator[Finding]:
    """No package manager and no package database."""
    yield from _named(tree, "package-manager", "package_managers", "manages packages")
    for node in tree.nodes:
        if node.path in _DATA["package_states"]:
            yield Finding("package-manager", node.path, "is a package manager's state")


def _named(tree: AuditTree, rule: str, group: str, message: str) -> Iterator[Finding]:
    names = frozenset(_DATA[group])
    for node in tree.nodes:
        if not node.is_directory and node.name in names and _counts(node):
            yield Finding(rule, node.path, message)


def _counts(node: Node) -> bool:
    """Names alone count in the folders of programs and units, or if the file can be run."""
    if node.path.startswith(("/usr/bin/", "/usr/sbin/", "/usr/lib/systemd/", "/etc/systemd/")):
        return True
    return node.is_link or bool(node.mode & 0o111)


RULES: dict[str, Rule] = {
    "shell": shells,
    "script": scripts,
    "login": logins,
    "remote-login": remote_logins,
    "package-manager": package_managers,
}
