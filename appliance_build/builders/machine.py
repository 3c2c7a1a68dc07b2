"""The ``run`` target."""

from pathlib import Path
from typing import Any

__all__ = ["add_machine_targets"]


def add_machine_targets(env: Any, build: Path, nodes: dict[str, Any], arguments: Any) -> None:
    """Define it."""
