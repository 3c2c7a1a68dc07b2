"""When a VM's Secure Boot keys are looked at, and the request that adds missing ones.

They are looked at while the VM is at rest, after each end of its guest; what they said then stays
until the next look.
"""

from __future__ import annotations

from vmkernel.model import ErrorCode, Firmware, MicaError
from vmkernel.vm.machine.machine import Machine
from vmkernel.vm.machine.messages import PendingRequest
from vmkernel.vm.nonvolatile.secure_boot import add_missing_keys, status_of_keys
from vmkernel.vm.states import AT_REST

__all__ = ["keys_unseen", "refresh_keys", "update_secure_boot"]


def keys_unseen(machine: Machine) -> bool:
    """True if the VM is at rest and its guest may have changed its variables."""
    if machine.definition.spec.firmware is not Firmware.UEFI_SECURE_BOOT:
        machine.keys.forget()
        return False
    unseen = machine.keys.unseen(machine.session)
    return unseen and machine.state in AT_REST and not machine.at_disks


async def refresh_keys(machine: Machine) -> None:
    """Find out what its variables hold; a failure is part of the status."""
    machine.keys.begin_poll(machine.session)
    machine.keys.note(await status_of_keys(machine.host, machine.folder))


async def update_secure_boot(machine: Machine, _: PendingRequest) -> None:
    """Add the keys that it lacks to the variables of a VM at rest; durable on return."""
    firmware = machine.definition.spec.firmware
    if firmware is not Firmware.UEFI_SECURE_BOOT:
        raise MicaError(
            ErrorCode.CONFLICT,
            f"VM {machine.vm_id} has no Secure Boot: its firmware is {firmware.value}.",
        )
    await add_missing_keys(machine.host, machine.folder, machine.vm_id)
    await refresh_keys(machine)
    machine.publish("vm.secure-boot-updated", {})
