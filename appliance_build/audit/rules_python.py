"""Python: every module of ours in the image can be imported by the image's own interpreter.

Imports by C code can't be found by reading sources; a missing one shows here.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

from appliance_build.audit.tree import AuditTree, Finding, Rule
from appliance_build.closure.plan import Origin
from appliance_build.closure.tools import tree_command
from appliance_build.closure.trees import PYTHON_SITE

__all__ = ["RULES", "imports"]

_TIMEOUT_S = 120
_PROGRAM = """
import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except BaseException as error:
        print(name, type(error).__name__, error)
"""


def imports(tree: AuditTree) -> Iterator[Finding]:
    """Import each module of our packages, but those that start a program."""
    modules: dict[str, str] = {}
    for path, file in tree.manifest.files.items():
        if file.origin != Origin.OWN.value or not path.startswith(PYTHON_SITE + "/"):
            continue
        inner = path[len(PYTHON_SITE) + 1 :]
        if inner.endswith(".pyc") and not inner.endswith("__main__.pyc"):
            name = inner.removesuffix(".pyc").removesuffix("/__init__").replace("/", ".")
            modules[name] = path
    if not modules:
        return
    command = tree_command([tree.root], "/usr/bin/python3.13")
    site = tree.root / PYTHON_SITE.lstrip("/")
    done = subprocess.run(
        [*command, "-S", "-s", "-B", "-W", "ignore", "-c", _PROGRAM, *sorted(modules)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        env={
            "PYTHONHOME": str(tree.root / "usr"),
            "PYTHONPATH": str(site),
            "LC_ALL": "C.UTF-8",
            "PATH": "/usr/bin",
        },
        check=False,
    )
    for line in done.stdout.splitlines():
        name, _, message = line.partition(" ")
        yield Finding("python-import", modules.get(name, name), message)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        yield Finding("python-import", "/usr/bin/python3.13", last)


RULES: dict[str, Rule] = {"python-import": imports}
