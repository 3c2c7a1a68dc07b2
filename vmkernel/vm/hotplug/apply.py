"""A change of a running VM's spec, whole or not at all as far as the guest allows.

  1  everything is checked; nothing is changed if a field prevents it
  2  the spec is stored with all that is added: a volume that QEMU is about to get is taken
  3  the steps, in one go inside the VM's owner task; if one fails, those before it are undone
  4  the spec is stored as it came to be
  5  devices that go: the guest is asked, and has some time to release each; each leaves the spec
     when it is released, also after that time (removals.py)

If the vmkernel is killed after 2, the spec names more than QEMU has: the restarted one removes
that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from msgspec.structs import replace

from vmkernel.devices import Family
from vmkernel.host import from_os_error
from vmkernel.model import ErrorCode, MicaError, VmSpec
from vmkernel.qemu import QemuError, QmpCommandError
from vmkernel.vm.context import VmContext
from vmkernel.vm.driver.driver import VmDriver
from vmkernel.vm.driver.removals import Removal, keys_of, settle, without
from vmkernel.vm.hotplug.plan import Changes, plan_changes
from vmkernel.vm.hotplug.steps import Step, removals_of, steps_of
from vmkernel.vm.machine.leaving import Leaving
from vmkernel.vm.machine.machine import Machine
from vmkernel.vm.machine.running_vm import RunningVm
from vmkernel.vm.states import VmRequest
from vmkernel.vm.store.definition import VmDefinition

__all__ = ["change_running"]

_log = logging.getLogger(__name__)

_CONSENT_S = 30.0
_POLL_S = 0.25


async def change_running(
    host: VmContext,
    driver: VmDriver,
    spec: VmSpec,
    renew: Callable[[VmDefinition, VmSpec], VmDefinition],
    checked: Callable[[], None] = lambda: None,
) -> None:
    """Change a running VM to `spec`; MicaError if it can't be changed, or only partly.

    `renew(known, spec)` is the definition with another spec, and raises if it was changed
    meanwhile.
    """
    old = driver.definition.spec
    family = Family.of(driver.definition.machine_type)

    async def look(machine: Machine) -> tuple[VmSpec, Leaving]:
        record = machine.running().record
        return (record.definition.spec if record is not None else old), machine.leaving

    at_start, leaving = await driver.inside(VmRequest.OPERATE, look)
    changes = plan_changes(old, spec, at_start=at_start, family=family)
    removals = removals_of(changes, old)
    for removal in removals:
        removal.check(driver.vm_id, driver.state)
    with _held(driver, changes), leaving.change([removal.key for removal in removals]):
        checked()
        stored = _with_old(spec, old, removals)
        await driver.change(VmRequest.ADJUST, lambda known: renew(known, stored))
        steps = steps_of(host, changes, old, spec, family)
        failure, true = await driver.use(
            VmRequest.OPERATE, lambda running: _do_all(running, steps, stored)
        )
        if true != stored:
            await driver.change(
                VmRequest.ADJUST,
                lambda known: replace(known, spec=_without_lost(true, stored, known.spec)),
            )
        if failure is None:
            failure = await _remove(driver, removals)
    try:  # what went meanwhile, or what QEMU did without an answer
        await driver.inside(VmRequest.OPERATE, settle)
    except MicaError as error:
        _log.info("VM %s: what it has is looked at later: %s", driver.vm_id, error)
    if failure is not None:
        raise failure


def _without_lost(true: VmSpec, stored: VmSpec, now: VmSpec) -> VmSpec:
    """The true spec without what the machine has lost since `stored` was written down."""
    return without(true, *(keys_of(stored) - keys_of(now)))


def _held(driver: VmDriver, changes: Changes) -> contextlib.AbstractContextManager[None]:
    """Disks can't be plugged or unplugged during a snapshot, a move or a backup."""
    if changes.new_disks or changes.old_disks:
        return driver.hold(
            "its disks are being changed", frozenset({VmRequest.HOLD, VmRequest.DELETE})
        )
    return contextlib.nullcontext()


def _with_old(spec: VmSpec, old: VmSpec, removals: list[Removal]) -> VmSpec:
    """The spec with the devices that stay until the guest has released them."""
    gone = {removal.key for removal in removals}
    return replace(
        spec,
        disks=(*spec.disks, *(d for d in old.disks if d.key in gone)),
        nics=(*spec.nics, *(n for n in old.nics if n.key in gone)),
    )


async def _do_all(
    running: RunningVm, steps: list[Step], stored: VmSpec
) -> tuple[MicaError | None, VmSpec]:
    """All steps, or as few as possible; why it failed, and the spec that is true."""
    done: list[Step] = []
    _note(running, unsettled=not all(step.settled for step in steps))
    for step in steps:
        try:
            await step.do(running)
        except (MicaError, QemuError, OSError) as error:
            true, known = stored, not _is_unknown(error)
            for later in steps[len(done) :]:
                if known or later is not step or not step.settled:
                    true = later.unmark(true)
            for earlier in reversed(done):
                undone = await _undo(running, earlier)
                known = known and undone is not None
                if undone:
                    true = earlier.unmark(true)
            if known:
                _note(running, unsettled=False)
            return _as_problem(running.vm_id, error), true
        done.append(step)
    _note(running, unsettled=False)
    return None, stored


def _note(running: RunningVm, *, unsettled: bool) -> None:
    """Whether the machine must be checked before its spec is known to be true."""
    if running.record is not None and running.record.unsettled is not unsettled:
        running.keep_record(replace(running.record, unsettled=unsettled))


def _is_unknown(error: Exception) -> bool:
    """True if QEMU may have executed the command all the same."""
    return isinstance(error, QemuError) and not isinstance(error, QmpCommandError)


async def _undo(running: RunningVm, step: Step) -> bool | None:
    """Whether a step was taken back; None if that isn't known."""
    try:
        return await step.undo(running)
    except (MicaError, QemuError, OSError) as error:
        _log.warning("VM %s: a change can't be taken back: %s", running.vm_id, error)
        return None


def _as_problem(vm_id: str, error: BaseException) -> MicaError:
    if isinstance(error, MicaError):
        return error
    if isinstance(error, OSError):
        return from_os_error(error, f"VM {vm_id}")
    return MicaError(ErrorCode.UNAVAILABLE, f"VM {vm_id} could not be changed: {error}.")


async def _remove(driver: VmDriver, removals: list[Removal]) -> MicaError | None:
    """Ask for the devices to go, and wait until they have; the spec follows. Why it failed."""
    loop = asyncio.get_running_loop()
    left = list(removals)
    try:
        for removal in left:
            await driver.inside(VmRequest.OPERATE, removal.ask)
        deadline = loop.time() + _CONSENT_S
        while left:
            for removal in list(left):
                if await driver.inside(VmRequest.OPERATE, removal.gone):
                    left.remove(removal)
            if left and loop.time() > deadline:
                names = ", ".join(removal.key for removal in left)
                return MicaError(
                    ErrorCode.TIMED_OUT,
                    f"The guest of VM {driver.vm_id} has not released {names} within"
                    f" {_CONSENT_S:g} s. It is removed once the guest releases it (`unplugging` in"
                    " the VM's status): stop using it in the guest.",
                )
            if left:
                await asyncio.sleep(_POLL_S)
    except MicaError as error:
        return error
    return None
