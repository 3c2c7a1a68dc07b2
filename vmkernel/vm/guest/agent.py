"""One VM's guest agent: whether it runs, its last answers, and requests to it.

Absence is normal. Code that needs an agent (a quiesced snapshot, the guest's clock) tries, and
reports a failure. A frozen guest must never stay so: `frozen` thaws it whatever happens inside the
block, and a guest that was left frozen is thawed at the first contact after a restart of the
vmkernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from vmkernel import clock
from vmkernel.host.unix_socket import connect_stream
from vmkernel.model import AgentStatus
from vmkernel.qemu.guest_agent import (
    AgentError,
    AgentRefusedError,
    AgentSession,
    Patience,
    agent_session,
)

__all__ = ["FreezeReport", "GuestAgent"]

_log = logging.getLogger(__name__)

_THAW_ATTEMPTS = 4


@dataclass(frozen=True)
class FreezeReport:
    """Whether the guest's file systems are frozen."""

    filesystems: int | None
    """How many are frozen; None if the agent wasn't available."""
    reason: str | None = None
    """Why they are not."""

    @property
    def quiet(self) -> bool:
        """True if the guest was frozen."""
        return self.filesystems is not None


class GuestAgent:
    """`socket_path` is the channel that QEMU serves."""

    def __init__(
        self, socket_path: Callable[[], Path], name: str, patience: Patience | None = None
    ) -> None:
        self._socket_path = socket_path
        self._name = name
        self._patience = patience or Patience()
        self._lock = asyncio.Lock()
        self._open = False
        self._said: AgentStatus | None = None
        self._frozen = False
        self._contacted = False
        self._late = False

    @property
    def connected(self) -> bool:
        """True while a program in the guest has the channel open."""
        return self._open

    @property
    def checked_at_s(self) -> float:
        """When facts were asked last, on the monotonic clock; 0 for never."""
        return self._checked_s

    _checked_s = 0.0

    def status(self) -> AgentStatus:
        """The last known state."""
        if not self._open or self._said is None:
            return AgentStatus(connected=self._open, frozen=self._frozen)
        return replace(self._said, frozen=self._frozen)

    def note_channel(self, is_open: bool) -> None:
        """QEMU reports whether the guest has the channel open."""
        if is_open and not self._open:
            self._checked_s = 0.0
        self._open = is_open
        if not is_open:
            self._said = None

    def note_resumed(self) -> None:
        """The guest continues from an old memory, or after a pause: set its clock at the next
        contact.
        """
        self._late = True
        self._checked_s = 0.0

    def note_end(self) -> None:
        """QEMU has ended."""
        self._open, self._said, self._frozen, self._contacted = False, None, False, False
        self._late = False
        self._checked_s = 0.0

    # --- what can be asked --------------------------------------------------------------------

    async def refresh(self) -> AgentStatus:
        """Ask for the guest's facts; failures are in the status, nothing is raised."""
        status = AgentStatus(connected=True, checked_at=clock.now())
        try:
            async with self._session() as agent:
                if self._late:
                    self._late = False
                    with contextlib.suppress(AgentRefusedError):
                        await agent.set_time(time.time_ns())
                status = replace(status, version=await agent.version())
                with contextlib.suppress(AgentRefusedError):
                    status = replace(status, hostname=await agent.hostname())
                with contextlib.suppress(AgentRefusedError):
                    status = replace(status, system=await agent.system())
                with contextlib.suppress(AgentRefusedError):
                    status = replace(status, interfaces=await agent.interfaces())
        except AgentError as error:
            status = replace(status, reason=f"The guest agent: {error}.")
        self._checked_s = time.monotonic()
        if self._open:
            self._said = status
        return self.status()

    async def shut_down(self) -> None:
        """Ask the guest to power itself off; AgentError if the agent isn't available."""
        async with self._session() as agent:
            await agent.shut_down()

    @contextlib.asynccontextmanager
    async def frozen(self) -> AsyncIterator[FreezeReport]:
        """Freeze the guest's file systems inside the block, if the agent can; the agent gets no
        other requests meanwhile. The report says if they are frozen.
        """
        if not self._open:
            yield FreezeReport(None, "No agent is running in the guest.")
            return
        async with self._lock:
            report = await self._freeze()
            try:
                yield report
            finally:
                if self._frozen:
                    await self._let_go()

    async def _freeze(self) -> FreezeReport:
        asked = False
        try:
            async with self._unlocked_session() as agent:
                asked = self._frozen = True  # nobody knows better until it was let go
                count = await agent.freeze()
        except AgentError as error:
            if asked:
                await self._let_go()
            return FreezeReport(None, f"The guest agent: {error}.")
        except BaseException:
            if asked:
                await self._let_go()
            raise
        return FreezeReport(count)

    async def _let_go(self) -> None:
        """Thaw completely, even if the caller is cancelled meanwhile."""
        thaw = asyncio.create_task(self._thaw(), name=f"thaw of {self._name}")
        cancelled = False
        while not thaw.done():
            try:
                await asyncio.shield(thaw)
            except asyncio.CancelledError:
                cancelled = True
        if cancelled:
            raise asyncio.CancelledError
        thaw.result()

    async def _thaw(self) -> None:
        """Thaw the file systems; repeated until the agent confirms it."""
        for attempt in range(_THAW_ATTEMPTS):
            if attempt:
                await asyncio.sleep(self._patience.thaw_again_s * attempt)
            try:
                async with self._unlocked_session() as agent:
                    await agent.thaw()
                    break
            except AgentRefusedError as error:
                _log.warning("%s: %s", self._name, error)
                break
            except AgentError as error:
                _log.warning("%s: its file systems are to be thawed: %s", self._name, error)
                if not self._open:
                    break
        else:
            # Asked again at the next contact.
            self._contacted = False
            return
        self._frozen = False

    # --- sessions -----------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _session(self) -> AsyncIterator[AgentSession]:
        if not self._open:
            raise AgentError("the guest has none running")
        async with self._lock, self._unlocked_session() as agent:
            if not self._contacted:
                with contextlib.suppress(AgentRefusedError):
                    if await agent.is_frozen():
                        _log.warning("%s: the guest was left frozen and is thawed", self._name)
                        await agent.thaw()
                self._contacted, self._frozen = True, False
            yield agent

    @contextlib.asynccontextmanager
    async def _unlocked_session(self) -> AsyncIterator[AgentSession]:
        try:
            link = connect_stream(self._socket_path())
        except OSError as error:
            raise AgentError(f"its channel can't be opened ({error.strerror or error})") from error
        async with agent_session(link, self._patience) as agent:
            yield agent
