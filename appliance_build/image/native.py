"""Our own native programs: few, small, static, each one C file."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from appliance_build.release.version import REPOSITORY

__all__ = ["NATIVE_TOML", "NativeProgram", "native_programs"]

NATIVE_TOML = Path(__file__).parent / "native.toml"


@dataclass(frozen=True)
class NativeProgram:
    """A C file and the place of its program in the image."""

    source: Path
    path: str
    reason: str


def native_programs() -> list[NativeProgram]:
    """Return what ``native.toml`` lists."""
    data = tomllib.loads(NATIVE_TOML.read_text())
    return [
        NativeProgram(REPOSITORY / item["source"], item["path"], item["reason"])
        for item in data["program"]
    ]
