"""uvicorn's parts without its command line.

`import uvicorn` brings in click, the reloader and multiprocessing, which is a quarter of this
process's whole start. The package's modules stand well without it, so the package object is made
here without running its `__init__`.
"""

from __future__ import annotations

import importlib.util
import sys

__all__ = ["prepare"]


def prepare() -> None:
    """Make `import uvicorn.config` and the like possible at their own cost only."""
    if "uvicorn" in sys.modules:
        return
    spec = importlib.util.find_spec("uvicorn")
    if spec is None or spec.loader is None:
        return
    package = importlib.util.module_from_spec(spec)
    sys.modules["uvicorn"] = package
    # Some of its modules take these names from the package.
    from uvicorn.config import Config
    from uvicorn.server import Server

    vars(package).update(Config=Config, Server=Server)
