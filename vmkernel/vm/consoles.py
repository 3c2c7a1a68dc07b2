"""A VM's serial console, screen, keyboard and NMI button."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Protocol, TypeVar

from vmkernel.model import (
    ConsoleKind,
    ErrorCode,
    FieldError,
    MicaError,
)
from vmkernel.qemu import QmpCommandError, RunState
from vmkernel.vm.machine.running_vm import Running
from vmkernel.vm.states import VmRequest

__all__ = ["SCREENSHOT_MAX_BYTES", "UsedVms", "VmConsoles"]

Outcome = TypeVar("Outcome")

SCREENSHOT_MAX_BYTES = 15 << 20
"""A frame on the control socket holds 16 MiB."""
_CHORDS_AT_ONCE = 8
"""How many are pressed before others get their turn at the VM."""


if TYPE_CHECKING:
    from vmkernel.qemu.keyboard import Chord


class UsedVms(Protocol):
    """The part of the VM side that is needed; implemented by VmService."""

    async def open_console(
        self, vm_id: str, kind: ConsoleKind, *, actor: str, origin: str
    ) -> socket.socket: ...

    async def use(
        self, vm_id: str, request: VmRequest, work: Callable[[Running], Awaitable[Outcome]]
    ) -> Outcome: ...


class VmConsoles:
    """The consoles, screens and keyboards of VMs."""

    def __init__(self, vms: UsedVms) -> None:
        self._vms = vms

    async def open(
        self, vm_id: str, kind: ConsoleKind, *, actor: str, origin: str
    ) -> socket.socket:
        """A connected socket for the peer of the request, who is named to the others; the caller
        closes it after handing it on."""
        return await self._vms.open_console(vm_id, kind, actor=actor, origin=origin)

    async def screenshot(self, vm_id: str) -> bytes:
        """What its first display shows, as PNG; `conflict` if it has none."""
        from vmkernel.qemu.screen import screenshot

        async def look(vm: Running) -> bytes:
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

            async def touch(vm: Running, some: tuple[Chord, ...] = some) -> None:
                if await vm.qmp.query_status() is not RunState.RUNNING:
                    raise MicaError(
                        ErrorCode.CONFLICT, f"VM {vm_id} is paused and can't receive keys."
                    )
                await press(vm.qmp, some)

            await self._vms.use(vm_id, VmRequest.OPERATE, touch)

    async def inject_nmi(self, vm_id: str) -> None:
        """Press its NMI button."""
        from vmkernel.qemu.keyboard import inject_nmi

        async def inject(vm: Running) -> None:
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
