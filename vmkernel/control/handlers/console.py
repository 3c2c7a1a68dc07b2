"""Consoles, the screen and the keyboard of a virtual machine."""

from __future__ import annotations

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
from vmkernel.vm.consoles import VmConsoles

__all__ = ["register"]


def register(dispatcher: Dispatcher, consoles: VmConsoles) -> None:
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
