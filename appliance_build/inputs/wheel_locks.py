"""Write the wheels' locks again: for building and testing, and for the image."""

import sys
from pathlib import Path

from appliance_build.inputs.run import run
from appliance_build.inputs.wheels import APPLIANCE_WHEELS, BUILD_WHEELS, TARGET_PYTHON
from appliance_build.progress import step

__all__ = ["refresh_wheel_locks"]

OLDEST_PYTHON = "3.11"


def _compile(target: Path, *arguments: str | Path) -> None:
    uv = (sys.executable, "-m", "uv", "--quiet", "--system-certs")
    command = (*uv, "pip", "compile", "--upgrade")
    options = ("--generate-hashes", "--no-header", "--no-emit-index-url", "--output-file", target)
    run([*command, *options, *arguments], timeout_s=600, cwd=Path(__file__).parents[2])


def refresh_wheel_locks() -> None:
    """Write both locks; the image's wheels are held to the versions that the tests run with."""
    with step("resolving the Python packages"):
        extras = [word for name in ("host", "build", "dev") for word in ("--extra", name)]
        _compile(
            BUILD_WHEELS,
            *("--universal", "--python-version", OLDEST_PYTHON),
            *extras,
            "pyproject.toml",
        )
        _compile(
            APPLIANCE_WHEELS,
            *("--python-version", TARGET_PYTHON),
            *("--python-platform", "x86_64-manylinux_2_28"),
            *("--constraints", BUILD_WHEELS),
            APPLIANCE_WHEELS.with_suffix(".in"),
        )
