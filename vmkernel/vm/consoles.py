"""A VM's serial console, screen, keyboard and NMI button."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from vmkernel.model import (
    ConsoleKind,
    DisplayModel,
    ErrorCode,
    FieldError,
    MicaError,
)
from vmkernel.qemu import QmpCommandError, RunState
from vmkernel.vm.inventory import VmInventory
from vmkernel.vm.machine.running_vm import RunningVm
from vmkernel.vm.open_streams import OpenStreams
from vmkernel.vm.states import VmRequest

__all__ = ["SCREENSHOT_MAX_BYTES", "VmConsoles"]

SCREENSHOT_MAX_BYTES = 15 << 20
"""A frame on the control socket holds 16 MiB."""
_CHORDS_AT_ONCE = 8
"""How many are pressed before others get their turn at the VM."""


if TYPE_CHECKING:
    from vmkernel.qemu.keyboard import Chord


class VmConsoles:
    """The consoles, screens and keyboards of VMs."""

    def __init__(self, vms: VmInventory) -> None:
        self._vms = vms
        self._streams = OpenStreams()

    async def open(
        self, vm_id: str, kind: ConsoleKind, *, actor: str, origin: str
    ) -> socket.socket:
        """A connected socket for the peer of the request, who is named to the others; the caller
        closes it after handing it on."""
        release = self._streams.take(actor)
        try:
            stream = await self._opened(vm_id, kind, actor, origin)
        except BaseException:
            release()
            raise
        self._streams.given(stream, release)
        return stream

    async def _opened(
        self, vm_id: str, kind: ConsoleKind, actor: str, origin: str
    ) -> socket.socket:
        driver = self._vms.driver(vm_id)
        await driver.ready()
        driver.check(VmRequest.CONSOLE)
        if kind is ConsoleKind.SERIAL:
            return driver.console.watch(actor, origin)
        if driver.definition.spec.display is DisplayModel.NONE:
            raise MicaError(ErrorCode.CONFLICT, f"VM {vm_id} has no display.")
        theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            await driver.add_vnc_client(ours.fileno())
        except BaseException:
            theirs.close()
            raise
        finally:
            ours.close()
        return theirs

    async def screenshot(self, vm_id: str) -> bytes:
        """What its first display shows, as PNG; `conflict` if it has none."""
        from vmkernel.qemu.screen import screenshot

        async def look(vm: RunningVm) -> bytes:
            try:
                return await screenshot(vm.qmp, limit=SCREENSHOT_MAX_BYTES)
            except QmpCommandError as error:
                raise MicaError(
                    ErrorCode.CONFLICT, f"VM {vm_id} has no display to capture: {error}"
                ) from error
            except ValueError as error:
                raise MicaError(
                    ErrorCode.UNSUPPORTED, f"The screen of VM {vm_id} is too large: {error}."
                ) from error

        return await self._vms.use(vm_id, VmRequest.QUERY, look)

    async def press(self, vm_id: str, keys: Sequence[str], text: str) -> None:
        """Press keys, then type; `invalid` with every name that can't be pressed."""
        from vmkernel.qemu.keyboard import press

        chords = iter(_chords(keys, text))
        while some := tuple(islice(chords, _CHORDS_AT_ONCE)):

            async def touch(vm: RunningVm, some: tuple[Chord, ...] = some) -> None:
                if await vm.qmp.query_status() is not RunState.RUNNING:
                    raise MicaError(
                        ErrorCode.CONFLICT, f"VM {vm_id} is paused and can't receive keys."
                    )
                await press(vm.qmp, some)

            await self._vms.use(vm_id, VmRequest.OPERATE, touch)

    async def inject_nmi(self, vm_id: str) -> None:
        """Press its NMI button."""
        from vmkernel.qemu.keyboard import inject_nmi

        async def inject(vm: RunningVm) -> None:
            await inject_nmi(vm.qmp)

        await self._vms.use(vm_id, VmRequest.OPERATE, inject)


def _chords(keys: Sequence[str], text: str) -> list[Chord]:
    """The keys to press; all unknown names are reported together."""
    from vmkernel.qemu.keyboard import chord_of, chords_of_text

    wrong: list[FieldError] = []
    chords: list[Chord] = []

    def add(pointer: str, find: Callable[[], list[Chord]]) -> None:
        try:
            chords.extend(find())
        except ValueError as error:
            wrong.append(FieldError(pointer=pointer, detail=f"{error}."))

    for index, key in enumerate(keys):
        add(f"/keys/{index}", lambda key=key: [chord_of(key)])  # type: ignore[misc]
    add("/text", lambda: chords_of_text(text))
    if not keys and not text:
        wrong.append(FieldError(pointer="/keys", detail="Name keys, or a text."))
    if wrong:
        raise MicaError(ErrorCode.INVALID, "There are unknown keys.", fields=tuple(wrong))
    return chords
