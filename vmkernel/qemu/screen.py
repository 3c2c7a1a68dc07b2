"""A guest's screen as a picture.

QEMU writes the picture into a descriptor that it is handed (`add-fd`), so that it needs no file
that it may write to: a jailed QEMU has none but its own disks.
"""

from __future__ import annotations

import contextlib

from vmkernel.host.memory_file import MemoryFile
from vmkernel.qemu.errors import QemuError
from vmkernel.qemu.session import Qmp

__all__ = ["screenshot"]


async def screenshot(qmp: Qmp, *, limit: int) -> bytes:
    """What the first display shows, as PNG of at most `limit` bytes.

    Raises QmpCommandError where there is no display, and ValueError where it is larger.
    """
    with MemoryFile("screenshot") as file:
        number = await qmp.add_fd(file.writer(), "screenshot")
        try:
            await qmp.execute("screendump", {"filename": f"/dev/fdset/{number}", "format": "png"})
        finally:
            with contextlib.suppress(QemuError):
                await qmp.remove_fd(number)
        return file.read(limit)
