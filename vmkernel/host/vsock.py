"""vhost-vsock: the kernel's side of sockets between guests and host."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from vmkernel.host.drivers import load_driver
from vmkernel.host.errors import CommandError
from vmkernel.host.runner import Runner

__all__ = ["load_vhost_vsock", "open_vhost_vsock"]

_DEVICE = Path("/dev/vhost-vsock")


async def load_vhost_vsock(runner: Runner, device: Path = _DEVICE) -> None:
    """Load the module, which creates the device; few VMs use it, so it isn't loaded at boot."""
    if not device.exists():
        with contextlib.suppress(CommandError):  # opening the device says what is missing
            await load_driver(runner, "vhost_vsock")


def open_vhost_vsock(device: Path = _DEVICE) -> int:
    return os.open(device, os.O_RDWR | os.O_CLOEXEC)
