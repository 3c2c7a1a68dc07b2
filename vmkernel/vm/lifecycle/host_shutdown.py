"""The guests' end when their host ends: in order, each within its own time, all within one.

groups of VMs by `stop.order`, higher ones first (the start order if none is given):
each VM of a group   suspend -> shut down -> power off
                     `stop.action` is the first of these; the next one follows if it
                     fails or takes too long
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from itertools import groupby

from vmkernel.model import MicaError, Progress, StopAction, VmState
from vmkernel.vm.driver.driver import VmDriver
from vmkernel.vm.states import VmRequest

__all__ = ["end_guests"]

_log = logging.getLogger(__name__)

_LEAST_S = 0.01
_GRACE_S = 60.0
"""For a power-off after the guests' time is over: a VM whose datastore hangs must not keep the host
from ending."""


async def end_guests(
    drivers: Iterable[VmDriver],
    *,
    timeout_s: float,
    force: bool,
    on_progress: Callable[[Progress], None] | None = None,
    grace_s: float = _GRACE_S,
) -> tuple[str, ...]:
    """End all running guests, at most `timeout_s` for all together; see VmPower.shutdown_all."""
    active = [driver for driver in drivers if driver.active]
    left = {driver.vm_id for driver in active}
    refused: set[str] = set()
    deadline_s = asyncio.get_running_loop().time() + timeout_s

    async def end(driver: VmDriver) -> None:
        try:
            async with asyncio.timeout_at(deadline_s + grace_s):
                await driver.ready()
                await _agree(driver, deadline_s)
                if driver.active:
                    refused.add(driver.vm_id)
                    if force:
                        await driver.ask(VmRequest.POWER_OFF)
        except MicaError as error:
            _log.warning("%s", error)
        except TimeoutError:
            refused.add(driver.vm_id)
            _log.warning("VM %s does not end, and is left to the end of the host", driver.vm_id)
        if not driver.active:
            left.discard(driver.vm_id)
        if on_progress is not None:
            done = len(active) - len(left)
            on_progress(Progress(done=done, total=len(active), unit="vms", stage="guests"))

    for _, group in groupby(sorted(active, key=_rank), key=_rank):
        async with asyncio.TaskGroup() as tasks:
            for driver in group:
                tasks.create_task(end(driver))
    return tuple(sorted(refused))


async def _agree(driver: VmDriver, deadline_s: float) -> None:
    """End a VM as its spec wants it, without force; what fails is left running."""
    stop = driver.definition.spec.stop
    loop = asyncio.get_running_loop()
    until_s = min(deadline_s, loop.time() + stop.timeout_s)
    if stop.action is StopAction.SUSPEND and driver.state in (VmState.RUNNING, VmState.PAUSED):
        try:
            async with asyncio.timeout_at(until_s):
                await driver.ask(VmRequest.SUSPEND)
            return
        except TimeoutError:
            _log.warning("VM %s could not be suspended in time", driver.vm_id)
        except MicaError as error:
            _log.warning("%s", error)
    if stop.action is StopAction.POWER_OFF:
        await driver.ask(VmRequest.POWER_OFF)
        return
    if driver.state in (VmState.RUNNING, VmState.STOPPING):
        try:
            timeout_s = max(until_s - loop.time(), _LEAST_S)
            await driver.ask(VmRequest.SHUTDOWN, timeout_s=timeout_s)
        except MicaError as error:
            _log.warning("%s", error)


def _rank(driver: VmDriver) -> int:
    spec = driver.definition.spec
    return -(spec.autostart.order if spec.stop.order is None else spec.stop.order)
