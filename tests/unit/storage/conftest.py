"""No storage code looks at a datastore's files on the event loop: a dead server would stop all."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

_CALLS = (
    *("open", "stat", "lstat", "statvfs", "scandir", "listdir", "mkdir", "rmdir", "unlink"),
    *("remove", "rename", "replace", "chmod", "truncate", "access", "readlink", "link"),
)
_OURS = f"{os.sep}vmkernel{os.sep}"


def _caller() -> str | None:
    """The nearest line that is not the standard library's, where it is the vmkernel's."""
    frame = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if "site-packages" in name or "tests" in Path(name).parts:
            return None
        if _OURS in name:
            return f"{name.rpartition(_OURS)[2]}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return None


@pytest.fixture(autouse=True)
def nothing_blocks_the_event_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Fail a test whose vmkernel touched a file below `tmp_path` on the event loop's thread."""
    found: set[str] = set()
    root = str(tmp_path)

    def watched(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **named: Any) -> Any:
            if arguments and str(arguments[0]).startswith(root):
                try:
                    asyncio.get_running_loop()
                except RuntimeError:
                    pass
                else:
                    if (place := _caller()) is not None:
                        found.add(f"{place} ({name})")
            return call(*arguments, **named)

        return wrapper

    for name in _CALLS:
        monkeypatch.setattr(os, name, watched(name, getattr(os, name)))
    yield
    assert not found, f"on the event loop: {', '.join(sorted(found))}"
