"""A guest's memory and devices as a file: QEMU's migration stream, written and read through a
descriptor, so that a jailed QEMU needs no path.

save a paused guest -> complete file; QEMU can then be ended or continue by `cont`
load    a QEMU started with `-incoming defer` <- the file; the guest then waits for `cont`

`file:` on a descriptor set is used, not `fd:`, which QEMU means for sockets (plain files there are
deprecated since 9.1). Source: docs/devel/migration/main.rst of QEMU.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable

from vmkernel.qemu.answers import Migration, Ram
from vmkernel.qemu.errors import QemuError, QmpCommandError
from vmkernel.qemu.session import Qmp, RunState
from vmkernel.text import clean

__all__ = ["OnBytes", "cancel", "load", "save", "take_disks_back"]

OnBytes = Callable[[int, int], None]
"""Bytes done, and the total (0: unknown)."""

_POLL_S = 0.25
_SILENCE_S = 120.0
"""A file that has not grown for this long is on storage that hangs."""
_CANCEL_S = 30.0
_UNLIMITED = 1 << 40
_SETTLED = frozenset({"completed", "failed", "cancelled", "none", ""})


async def save(qmp: Qmp, fd: int, *, on_progress: OnBytes | None = None) -> None:
    """Write the state of a paused guest; it is complete, not yet flushed, on return.

    The descriptor must be open for writing only: QEMU selects one with the access that it needs.

    QmpCommandError with QEMU's reason if it can't be saved. If it fails or is cancelled, the guest
    stays paused. If it is to stay paused for longer, call `take_disks_back` afterwards.
    """
    if await qmp.query_status() is RunState.POST_MIGRATE:
        raise QmpCommandError(
            "its memory was already written during this pause, and QEMU can do that only once:"
            " resume it briefly"
        )
    fdset = await qmp.add_fd(fd, "memory image")
    try:
        await _prepare(qmp)
        await qmp.execute("migrate-set-parameters", {"max-bandwidth": _UNLIMITED})
        await qmp.execute("migrate", {"uri": f"file:/dev/fdset/{fdset}"})
        try:
            await _await_end(qmp, fd, on_progress)
        except asyncio.CancelledError:
            await asyncio.shield(cancel(qmp))
            raise
    finally:
        with contextlib.suppress(QemuError):
            await qmp.remove_fd(fdset)


async def load(qmp: Qmp, fd: int, *, on_progress: OnBytes | None = None) -> None:
    """Read a state into a QEMU that waits for one; the descriptor is open for reading only.

    QmpCommandError with QEMU's reason if the state can't be used; the QEMU can't be used any more
    then.
    """
    fdset = await qmp.add_fd(fd, "memory image")
    try:
        await _prepare(qmp)
        await qmp.execute(
            "migrate-incoming", {"uri": f"file:/dev/fdset/{fdset}", "exit-on-error": False}
        )
        await _await_end(qmp, fd, on_progress)
    finally:
        with contextlib.suppress(QemuError):
            await qmp.remove_fd(fdset)


async def _prepare(qmp: Qmp) -> None:
    await qmp.execute(
        "migrate-set-capabilities", {"capabilities": [{"capability": "events", "state": True}]}
    )


async def _await_end(qmp: Qmp, fd: int, on_progress: OnBytes | None) -> None:
    """Follow the running migration; both directions read or write at the file's position."""
    loop = asyncio.get_running_loop()
    position, moved_s = -1, loop.time()
    with qmp.watch("MIGRATION") as events:
        while True:
            answer = await qmp.ask("query-migrate", Migration)
            status = answer.status
            ram = answer.ram or Ram()
            if on_progress is not None:
                on_progress(max(0, ram.total - ram.remaining), ram.total)
            if status == "completed":
                return
            if status in ("failed", "cancelled"):
                raise QmpCommandError(clean(answer.error_desc) or f"it was {status}")
            now = os.lseek(fd, 0, os.SEEK_CUR)
            if now != position:
                position, moved_s = now, loop.time()
            elif loop.time() - moved_s > _SILENCE_S:
                await cancel(qmp)
                raise QmpCommandError(f"its file has not changed for {_SILENCE_S:g} s")
            with contextlib.suppress(TimeoutError):
                await events.next(timeout_s=_POLL_S)


async def take_disks_back(qmp: Qmp) -> None:
    """After a save, give the disks back to the QEMU of a guest that stays paused: it has released
    them for a QEMU that would load the image, and would refuse snapshots, backups and resizing.
    """
    with contextlib.suppress(QemuError):
        await qmp.execute("blockdev-set-active", {"active": True})


async def cancel(qmp: Qmp) -> None:
    """Cancel a save, if one is running, and wait until QEMU has."""
    with contextlib.suppress(QemuError, TimeoutError):
        with qmp.watch("MIGRATION") as events:
            await qmp.execute("migrate_cancel")
            async with asyncio.timeout(_CANCEL_S):
                while (await qmp.ask("query-migrate", Migration)).status not in _SETTLED:
                    with contextlib.suppress(TimeoutError):
                        await events.next(timeout_s=_POLL_S)
