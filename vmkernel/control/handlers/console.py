"""Consoles, the screen and the keyboard of a virtual machine."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Protocol

from vmkernel.auth import Caller
from vmkernel.control.dispatch import Dispatcher, Streamed
from vmkernel.control.requests import (
    Done,
    InjectNmi,
    OpenConsole,
    Screenshot,
    SendKeys,
    TakeScreenshot,
)
from vmkernel.model import ConsoleKind

__all__ = ["ConsoleService", "register"]


class ConsoleService(Protocol):
    """Implemented by `VmConsoles`."""

    async def open(
        self, vm_id: str, kind: ConsoleKind, *, actor: str, origin: str
    ) -> socket.socket:
        """A connected socket for the client, which other clients see by name; the caller closes it
        after sending it on.
        """
        ...

    async def screenshot(self, vm_id: str) -> bytes:
        """The first display as PNG; `conflict` if there is none."""
        ...

    async def press(self, vm_id: str, keys: Sequence[str], text: str) -> None:
        """Press keys, then type the text; `invalid` with every unknown key name."""
        ...

    async def inject_nmi(self, vm_id: str) -> None: ...


def register(dispatcher: Dispatcher, consoles: ConsoleService) -> None:
    @dispatcher.handler
    async def open_console(request: OpenConsole, caller: Caller) -> Streamed:
        stream = await consoles.open(
            request.id, request.kind, actor=caller.actor, origin=caller.origin
        )
        return Streamed(Done(), stream)

    @dispatcher.handler
    async def take_screenshot(request: TakeScreenshot, _: Caller) -> Screenshot:
        return Screenshot(png=await consoles.screenshot(request.id))

    @dispatcher.handler
    async def send_keys(request: SendKeys, _: Caller) -> Done:
        await consoles.press(request.id, request.keys, request.text)
        return Done()

    @dispatcher.handler
    async def inject_nmi(request: InjectNmi, _: Caller) -> Done:
        await consoles.inject_nmi(request.id)
        return Done()
