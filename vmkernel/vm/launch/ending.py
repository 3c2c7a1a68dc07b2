"""The end of a VM's QEMU, in all cases: asked to quit, and killed if it doesn't."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from vmkernel.qemu import QemuError, Qmp
from vmkernel.vm.launch.launcher import Launcher

__all__ = ["end_process"]


async def end_process(
    launcher: Launcher,
    vm_id: str,
    qmp: Qmp | None,
    close: Callable[[], Awaitable[None]] | None = None,
    *,
    quit_s: float,
    kill_s: float,
) -> bool:
    """Ask QEMU to quit, `close` the session, and kill what is left after `quit_s`; without a
    session it is killed at once. True if it is gone: it must then be collected.
    """
    if qmp is not None:
        # One that hangs is killed below, as one that is gone.
        with contextlib.suppress(QemuError, TimeoutError):
            async with asyncio.timeout(quit_s):
                await qmp.quit()
    if close is not None:
        await close()
    if qmp is not None and await launcher.wait_gone(vm_id, quit_s):
        return True
    launcher.kill(vm_id)
    return await launcher.wait_gone(vm_id, kill_s)
