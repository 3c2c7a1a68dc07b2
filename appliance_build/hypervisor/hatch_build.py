"""Selects what goes into the package mica-hypervisor: all that mica-client has not."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

__all__ = ["Rest", "rest"]

PACKAGES = ("firmware", "remote_api", "vmkernel")


def rest(root: Path) -> dict[str, str]:
    """The files of our packages that the client's package leaves out, with their names in ours."""
    project = tomllib.loads((root / "pyproject.toml").read_text())
    client = project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    found = {}
    for path in sorted(each for package in PACKAGES for each in (root / package).rglob("*")):
        name = path.relative_to(root).as_posix()
        ours = not any(name == each or name.startswith(f"{each}/") for each in client)
        if ours and path.is_file() and "__pycache__" not in path.parts:
            found[str(path)] = name
    return found


class Rest(BuildHookInterface[Any]):
    """hatchling calls it before it builds."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        del version
        if self.target_name != "wheel":
            raise ValueError("mica-hypervisor has only a wheel: mica-client's sdist is the source")
        build_data["force_include"].update(rest(Path(self.root).parents[1]))
