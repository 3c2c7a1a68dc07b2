"""Removal of devices from a running machine: the stored spec follows QEMU's events, whenever they
come.

asked   device_del; the record of this run notes it      `unplugging` in the VM's status
gone the host's side is removed, and it leaves the spec a waiting request is answered; without one,
the event `vm.device-removed`
kept    the guest refused: the note goes                 likewise, `vm.device-kept`

A device on PCI goes when its guest agrees, which may be minutes after the request timed out; a
guest may also eject one by itself. Either way QEMU reports it, and reports during a restart of the
vmkernel are found by its first check. All of it runs inside the owner task.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from vmkernel.devices import DISK_BUSES
from vmkernel.devices.defaults import disk_bus_of
from vmkernel.devices.nic import netdev_of
from vmkernel.model import DiskSpec, ErrorCode, MicaError, NicSpec, VmSpec, VmState
from vmkernel.qemu import QemuError, QmpCommandError, hotplug
from vmkernel.vm.driver.settling import settle_fields
from vmkernel.vm.machine.machine import Machine
from vmkernel.vm.machine.messages import Timer, TimerFired
from vmkernel.vm.machine.running_vm import RunningVm

__all__ = ["Removal", "drop", "guest_refused", "keys_of", "poll_later", "settle", "without"]


@dataclass(frozen=True)
class Removal:
    """A device that is to go."""

    key: str
    disk: bool
    consent: bool
    """True if it goes only once the guest agrees."""

    @classmethod
    def of_disk(cls, spec: VmSpec, disk: DiskSpec) -> Removal:
        """A disk: those on PCI need the guest's consent, those on a controller don't."""
        return cls(disk.key or "", disk=True, consent=DISK_BUSES[disk_bus_of(spec, disk)].pci)

    @classmethod
    def of_nic(cls, nic: NicSpec) -> Removal:
        """A NIC."""
        return cls(nic.key or "", disk=False, consent=True)

    def check(self, vm_id: str, state: VmState) -> None:
        """Raise `conflict` if the guest can't agree now."""
        if self.consent and state is VmState.PAUSED:
            raise MicaError(
                ErrorCode.CONFLICT,
                f"VM {vm_id} is paused, and {self.key} can only be removed once the guest"
                " releases it: resume the VM first, or power it off.",
            )

    async def ask(self, machine: Machine) -> None:
        """Ask the guest. This is recorded first: QEMU may do it while no vmkernel runs."""
        self.check(machine.vm_id, machine.state)
        qmp = machine.qmp()
        machine.leaving.ask(self.key)
        if self.key not in await hotplug.devices(qmp):
            return
        noted = machine.record.unplugging if machine.record is not None else ()
        machine.note_record(unplugging=tuple(sorted({*noted, self.key})))
        try:
            await hotplug.unplug(qmp, self.key)
        except QmpCommandError:
            _forget(machine, self.key)
            raise

    async def gone(self, machine: Machine) -> bool:
        """True once the device is gone; `conflict` if the guest refused to release it."""
        await settle(machine, [self.key])
        if self.key not in keys_of(machine.definition.spec):
            return True
        if self.key in machine.leaving.refused:
            raise MicaError(
                ErrorCode.CONFLICT,
                f"The guest of VM {machine.vm_id} refused to release {self.key}: stop using it in"
                " the guest first.",
            )
        return False


async def settle(machine: Machine, keys: Collection[str] | None = None) -> None:
    """Let the spec lose the devices that QEMU doesn't have, of those named or of all. Without
    effect while there is no session, or for a QEMU that only reads."""
    record = machine.record
    if not machine.connected or record is None or record.reading:
        return
    if keys is None and machine.leaving.changing:
        return  # what is being added isn't there yet
    spec = machine.definition.spec
    looked_at = keys_of(spec) if keys is None else keys_of(spec) & set(keys)
    if keys is not None and not looked_at:
        return
    try:
        await _settle(machine, looked_at)
        if keys is None:
            await settle_fields(machine)
    except (QemuError, MicaError):
        poll_later(machine)
        raise


async def _settle(machine: Machine, looked_at: Collection[str]) -> None:
    spec = machine.definition.spec
    present = await hotplug.devices(machine.qmp())
    disks = {disk.key for disk in spec.disks}
    for key in sorted(set(looked_at) - present):
        await _lost(machine, key, disk=key in disks)
    if machine.record is not None and set(machine.record.unplugging) - present:
        left = tuple(key for key in machine.record.unplugging if key in present)
        machine.note_record(unplugging=left)


def poll_later(machine: Machine) -> None:
    """Check QEMU's state again soon: something about the VM could not be found out, or done."""
    if machine.connected and machine.leaving.plan_poll(machine.session):
        machine.later(machine.host.timing.retry_s, TimerFired(Timer.POLL, machine.session))


def guest_refused(machine: Machine, key: str) -> None:
    """The guest reported that it keeps a device."""
    if machine.record is None or key not in machine.record.unplugging:
        return
    _forget(machine, key)
    machine.leaving.refuse(key)
    if key not in machine.leaving.awaited:
        machine.publish_of_guest(
            "vm.device-kept", {"device": key}, f"The guest refused to release {key} and keeps it."
        )


async def _lost(machine: Machine, key: str, *, disk: bool) -> None:
    """QEMU has a device no more: take the host's side away, and write the spec down. While QEMU
    still uses the host's side, the spec keeps the device, whose key is not free yet."""
    if not await drop(machine.running(), key, disk=disk):
        poll_later(machine)
        return
    late = key not in machine.leaving.awaited
    known = machine.definition
    # Whoever knows the VM with the device must look again before a change of it.
    revision = known.revision + 1 if late else known.revision
    new = replace(known, spec=without(known.spec, key), revision=revision)
    await machine.define(new)
    _forget(machine, key)
    if late:
        kind = "disk" if disk else "nic"
        machine.publish_of_guest(
            "vm.device-removed",
            {"device": key, "kind": kind},
            f"The guest released {key}; it is no longer part of the VM.",
        )


def _forget(machine: Machine, key: str) -> None:
    if machine.record is not None:
        left = tuple(noted for noted in machine.record.unplugging if noted != key)
        machine.note_record(unplugging=left)


async def drop(running: RunningVm, key: str, *, disk: bool) -> bool:
    """Take the host's side of a device away that is gone; False if QEMU still uses it."""
    if disk:
        return await hotplug.drop_disk(running.qmp, key)
    await hotplug.drop_netdev(running.qmp, netdev_of(key))
    if running.record is not None:
        nics = tuple(nic for nic in running.record.nics if nic.key != key)
        running.keep_record(replace(running.record, nics=nics))
    return True


def keys_of(spec: VmSpec) -> set[str]:
    """The keys of the devices that can be plugged: disks and NICs."""
    keys = (*(disk.key for disk in spec.disks), *(nic.key for nic in spec.nics))
    return {key for key in keys if key is not None}


def without(spec: VmSpec, *keys: str) -> VmSpec:
    """The spec without devices of these keys."""
    return replace(spec, disks=_rest(spec.disks, keys), nics=_rest(spec.nics, keys))


def _rest(items: Sequence[DiskSpec] | Sequence[NicSpec], keys: Sequence[str]) -> tuple[object, ...]:
    return tuple(item for item in items if item.key not in keys)
