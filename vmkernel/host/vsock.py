"""vhost-vsock: the kernel's side of sockets between guests and host."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["open_vhost_vsock"]

_DEVICE = Path("/dev/vhost-vsock")


def open_vhost_vsock(device: Path = _DEVICE) -> int:
    """A descriptor for one guest's vsock device."""
    return os.open(device, os.O_RDWR | os.O_CLOEXEC)
