"""Runs programs of a Debian tree (the donor or the tools tree) without entering it.

The program is started through that tree's own loader with that tree's libraries, so the build
machine's C library does not matter, and nothing is mounted or changed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from appliance_build.closure.errors import ToolFailedError

__all__ = ["DonorPython", "tree_command"]

_LIBRARIES = ("usr/lib/x86_64-linux-gnu", "usr/lib")
_LOADER = "usr/lib64/ld-linux-x86-64.so.2"


def tree_command(trees: list[Path], program: str, argv0: str | None = None) -> list[str]:
    """The words that start `program` (a path below the root) from the first tree that has it."""
    for tree in trees:
        path = tree / program.lstrip("/")
        if path.exists() and (tree / _LOADER).exists():
            libraries = ":".join(str(tree / d) for d in (*_LIBRARIES, f"{_LIBRARIES[0]}/systemd"))
            words = [str(tree / _LOADER), "--library-path", libraries]
            if argv0 is not None:
                words += ["--argv0", argv0]
            return [*words, str(path)]
    name = argv0 or os.path.basename(program)
    found = shutil.which(name)
    if found is None:
        raise ToolFailedError(f"{program}: neither in the trees given nor on this machine")
    return [found]


class DonorPython:
    """The donor's python3, running :mod:`appliance_build.closure.python_worker`."""

    def __init__(self, donors: list[Path], program: str = "/usr/bin/python3.13") -> None:
        home = next((d for d in donors if (d / program.lstrip("/")).exists()), None)
        if home is None:
            raise ToolFailedError(f"{program}: not in the donor")
        worker = Path(__file__).with_name("python_worker.py")
        self._process = subprocess.Popen(
            [*tree_command([home], program), "-I", "-S", "-B", str(worker)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                "PYTHONHOME": str(home / "usr"),
                "PYTHONHASHSEED": "0",
                "LC_ALL": "C.UTF-8",
                "PATH": "/usr/bin",
            },
        )
        hello = self.ask({"do": "hello"})
        self.builtins: frozenset[str] = frozenset(hello["builtins"])
        self.version: tuple[int, ...] = tuple(hello["version"])

    def ask(self, request: dict[str, object]) -> dict[str, Any]:
        """Send one request and wait for its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError as error:
            raise ToolFailedError(f"the donor's python stopped: {error}") from error
        if not line:
            raise ToolFailedError("the donor's python stopped without an answer")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ToolFailedError(f"{request.get('source', 'python')}: {answer['error']}")
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(timeout=30)
