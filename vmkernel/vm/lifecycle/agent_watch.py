"""Asks the guests' agents for their facts, now and then and a few at a time, so that a list of
VMs answers from memory."""

from __future__ import annotations

import asyncio
import logging
import time

from vmkernel.model import VmState
from vmkernel.vm.inventory import VmInventory

__all__ = ["watch_agents"]

_log = logging.getLogger(__name__)

_LOOK_S = 2.0
_FRESH_S = 60.0
_AT_ONCE = 8


async def watch_agents(
    inventory: VmInventory, *, look_s: float = _LOOK_S, fresh_s: float = _FRESH_S
) -> None:
    """Ask each agent soon after it connects, and then once a minute; never returns."""
    gate = asyncio.Semaphore(_AT_ONCE)
    busy: set[str] = set()

    async with asyncio.TaskGroup() as group:

        async def ask(vm_id: str) -> None:
            try:
                async with gate:
                    driver = next((d for d in inventory.drivers() if d.vm_id == vm_id), None)
                    if driver is not None and driver.agent.connected:
                        await driver.agent.refresh()
            except Exception:
                _log.exception("the agent of VM %s can't be asked", vm_id)
            finally:
                busy.discard(vm_id)

        while True:
            await asyncio.sleep(look_s)
            now = time.monotonic()
            for driver in inventory.drivers():
                agent = driver.agent
                if (
                    not agent.connected
                    or driver.vm_id in busy
                    or driver.state is not VmState.RUNNING
                ):
                    continue
                if not agent.checked_at_s or now - agent.checked_at_s >= fresh_s:
                    busy.add(driver.vm_id)
                    group.create_task(ask(driver.vm_id), name=f"agent-of-{driver.vm_id}")
