"""A guest's screen as a picture.

QEMU writes the picture into a descriptor that it is given (`add-fd`), so that it needs no writable
file: a jailed QEMU has none except its disks.
"""

from __future__ import annotations

import contextlib

from vmkernel.host.memory_file import MemoryFile
from vmkernel.qemu.errors import QemuError
from vmkernel.qemu.session import Qmp

__all__ = ["screenshot"]


async def screenshot(qmp: Qmp, *, limit: int) -> bytes:
    """The first display as PNG of at most `limit` bytes.

    QmpCommandError if there is no display, ValueError if it is larger.
    """
    with MemoryFile("screenshot") as file:
        number = await qmp.add_fd(file.writer(), "screenshot")
        try:
            await qmp.execute("screendump", {"filename": f"/dev/fdset/{number}", "format": "png"})
        finally:
            with contextlib.suppress(QemuError):
                await qmp.remove_fd(number)
        return file.read(limit)
