"""Drivers that no device asks for: a unit of PID 1 loads them, because the vmkernel may not."""

from __future__ import annotations

from vmkernel.host.runner import Runner

__all__ = ["load_driver"]

_TIMEOUT_S = 200.0
"""Longer than the unit's own time-out."""


async def load_driver(runner: Runner, name: str) -> None:
    """Load a kernel module of the image by name, with its dependencies.

    CommandError if the image has no such module or the kernel refuses it.
    """
    await runner.run(
        ["systemctl", "--no-ask-password", "start", f"mica-driver@{name}.service"],
        timeout_s=_TIMEOUT_S,
    )
