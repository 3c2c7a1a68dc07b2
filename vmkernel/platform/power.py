"""The host's end: guests first, in order, then the machine.

running --power()--> ending guests --all off, or time over and forced off--> machine going down
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from vmkernel.model import ErrorCode, MicaError, Operation, PowerAction, Progress, Subject
from vmkernel.operations import OperationContext, OperationRegistry

__all__ = ["Guests", "HostPower", "PowerSwitch"]

_log = logging.getLogger(__name__)

_GUESTS_TIMEOUT_S = 900.0
"""For all guests together, whatever their specs say."""
_HOST = Subject(kind="host", id="host")
_WORDS = {PowerAction.SHUTDOWN: "shutting down", PowerAction.REBOOT: "restarting"}


class Guests(Protocol):
    """The virtual machines, as far as the host's end concerns them."""

    async def shutdown_all(
        self,
        *,
        timeout_s: float,
        force: bool,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> tuple[str, ...]:
        """End all guests; the ids of those that had to be forced."""
        ...

    def shutdown_cancelled(self) -> None:
        """The shutdown was cancelled: the host keeps running."""
        ...


class PowerSwitch(Protocol):
    """Switches the machine's power."""

    async def power_off(self) -> None: ...

    async def reboot(self) -> None: ...


class HostPower:
    """Shuts the host down, once."""

    def __init__(
        self,
        switch: PowerSwitch,
        operations: OperationRegistry,
        guests: Guests | None,
        story: Callable[[str], None],
    ) -> None:
        self._switch = switch
        self._operations = operations
        self._guests = guests
        self._story = story
        self._ending: PowerAction | None = None

    @property
    def ending(self) -> bool:
        """True once the host's end has begun."""
        return self._ending is not None

    def begin(self, action: PowerAction, *, actor: str) -> Operation:
        """Begin the shutdown; `conflict` if it has begun already."""
        if self._ending is not None:
            raise MicaError(
                ErrorCode.CONFLICT, f"The host is {_WORDS[self._ending]} already; nothing to do."
            )

        async def work(context: OperationContext) -> None:
            try:
                await self._end(action, context)
            except BaseException:
                self._ending = None
                if self._guests is not None:
                    self._guests.shutdown_cancelled()
                raise

        operation = self._operations.begin(f"host.{action}", _HOST, work, actor=actor)
        self._ending = action
        return operation

    async def _end(self, action: PowerAction, context: OperationContext) -> None:
        self._story(f"{_WORDS[action]}: ending the guests")
        if self._guests is not None:
            shown = -1

            def on_progress(progress: Progress) -> None:
                nonlocal shown
                context.progress(progress)
                if progress.done != shown:
                    shown = progress.done
                    self._story(f"guests ended: {progress.done} of {progress.total}")

            forced = await self._guests.shutdown_all(
                timeout_s=_GUESTS_TIMEOUT_S, force=True, on_progress=on_progress
            )
            if forced:
                self._story(f"powered off by force: {', '.join(forced)}")
        self._story(f"{_WORDS[action]}: all guests have ended")
        if action is PowerAction.REBOOT:
            await self._switch.reboot()
        else:
            await self._switch.power_off()
