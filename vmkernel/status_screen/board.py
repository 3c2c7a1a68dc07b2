"""The task that owns the console once the event loop runs: it gathers, compares and draws.

While the host starts, it shows after a while what it is still waiting for; as soon as the API
answers (and the host has an address, or did not get one in time), it shows the status.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from vmkernel.model import Finding
from vmkernel.status_screen.terminals import Terminals
from vmkernel.status_screen.view import StatusView

__all__ = ["BoardSources", "StatusBoard"]

_LOOK_EVERY_S = 10.0
_LOOK_EVERY_AT_START_S = 0.25
_ADDRESS_GRACE_S = 10.0
_SAY_EVERY_S = 15.0
_GIVE_UP_STORY_S = 90.0
_STORY_STAYS_S = 30.0
"""A later message (a shutdown begins) stays readable, and nothing is drawn over it."""
_SETTLE_S = 0.3
"""Changes come in groups (an address, its route, a second address), which are drawn once."""


@dataclass(frozen=True)
class BoardSources:
    """The board's sources; those that aren't async answer at once, from memory or small files."""

    version: str
    hostname: Callable[[], str]
    addresses: Callable[[], tuple[str, ...]]
    """Of the host's own interfaces."""
    fingerprint: Callable[[], str | None]
    claim_code: Callable[[], str | None]
    findings: Callable[[], Iterable[Finding]]
    api_answers: Callable[[], Awaitable[bool]]
    waiting_for: Callable[[], Awaitable[str | None]]
    """What the start is still waiting for, in words, if known."""
    overwritten: Callable[[], bool] = lambda: False
    """True if something else may have written on the screen since the last call."""


class StatusBoard:
    """Draws the status; `poke` it when something may have changed."""

    def __init__(self, console: Terminals, sources: BoardSources) -> None:
        self._console = console
        self._sources = sources
        self._changed = asyncio.Event()
        self._notice: str | None = None
        self._answered = asyncio.Event()

    @property
    def ready(self) -> bool:
        """True once the API has answered."""
        return self._answered.is_set()

    async def wait_ready(self) -> None:
        """Return once the API has answered."""
        await self._answered.wait()

    def poke(self) -> None:
        """Something that is shown may have changed."""
        self._changed.set()

    def notice(self, text: str | None) -> None:
        """Show (or no longer show) what happens to the host as a whole."""
        self._notice = text
        self.poke()

    async def run(self) -> None:
        """Draw until cancelled."""
        await self._until_ready()
        first = True
        while True:
            if not self.ready and await self._sources.api_answers():
                self._answered.set()
            if self._sources.overwritten():
                self._console.refresh()
            if first or not self._console.told_within(_STORY_STAYS_S):
                self._console.show(self._view())
                first = False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._changed.wait()
                    await asyncio.sleep(_SETTLE_S)
            self._changed.clear()

    async def _until_ready(self) -> None:
        clock = asyncio.get_running_loop().time
        started = said = clock()
        answered: float | None = None
        while True:
            now = clock()
            if answered is None and await self._sources.api_answers():
                self._answered.set()
                answered = now
                if not self._sources.addresses():
                    self._console.stage("API up, waiting for an address")
            if answered is not None and (
                self._sources.addresses() or now - answered > _ADDRESS_GRACE_S
            ):
                return
            if answered is None and now - started > _GIVE_UP_STORY_S:
                return
            if now - said > _SAY_EVERY_S:
                said = now
                what = await self._sources.waiting_for() if answered is None else "an address"
                self._console.stage(f"still waiting for {what or 'the API'}")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY_AT_START_S):
                    await self._changed.wait()
            self._changed.clear()

    def _view(self) -> StatusView:
        sources = self._sources
        return StatusView(
            version=sources.version,
            hostname=sources.hostname(),
            addresses=sources.addresses(),
            fingerprint_sha256=sources.fingerprint(),
            claim_code=sources.claim_code(),
            findings=tuple(sources.findings()),
            api_answers=self.ready,
            notice=self._notice,
        )
