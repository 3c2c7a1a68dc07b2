"""Making a running machine and its stored spec agree after a change with an unknown outcome: an
answer of QEMU's was lost, or the vmkernel was killed.

  memory, vCPUs can't be taken back: the spec says what QEMU has
  settings, media      QEMU gets the spec's values again

Disks and NICs are always checked (removals.py).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from msgspec.structs import replace

from vmkernel.devices import SETTINGS
from vmkernel.model import VmSpec
from vmkernel.qemu import QmpCommandError, hotplug
from vmkernel.resources import expected_bytes
from vmkernel.vm.driver import media
from vmkernel.vm.machine.machine import Machine

__all__ = ["settle_fields"]

_log = logging.getLogger(__name__)


async def settle_fields(machine: Machine) -> None:
    """Without effect if nothing is unsettled. QemuError, MicaError: to be tried again."""
    record = machine.record
    if record is None or not record.unsettled:
        return
    await _follow(machine, record.definition.spec)
    qmp, spec, at_start = machine.qmp(), machine.definition.spec, record.definition.spec
    for path, key in _settings(spec):
        setting = SETTINGS[path]
        if setting.barred(at_start, spec) is None:
            try:
                await hotplug.apply(qmp, setting.commands(spec, key))
            except QmpCommandError as error:
                _log.warning("VM %s: %s is not set: %s", machine.vm_id, path, error)
    began = {cdrom.key: cdrom.image for cdrom in at_start.cdroms}
    for cdrom in spec.cdroms:
        if not await media.holds(machine.host, qmp, cdrom, began.get(cdrom.key)):
            try:
                await media.change(machine.host, qmp, cdrom)
            except (QmpCommandError, OSError) as error:
                _log.warning("VM %s: %s holds no disc now: %s", machine.vm_id, cdrom.key, error)
    machine.note_record(unsettled=False)


async def _follow(machine: Machine, at_start: VmSpec) -> None:
    """Set the spec's memory and vCPUs to what the machine has."""
    qmp, known = machine.qmp(), machine.definition
    spec = known.spec
    added = sum(size_bytes for _, size_bytes in await hotplug.dimms(qmp))
    count = await hotplug.processors(qmp) or spec.cpus.count
    true = replace(
        spec,
        memory_bytes=at_start.memory_bytes + added,
        cpus=replace(spec.cpus, count=count),
    )
    if true != spec:
        # Whoever knows the VM as it was must look again before a change of it.
        new = replace(known, spec=true, revision=known.revision + 1)
        await machine.define(new)
    record = machine.record
    if record is not None:
        promised = expected_bytes(true.memory_bytes, record.accelerator) - record.pool_bytes
        machine.note_record(memory_bytes=promised)
        machine.host.admission.note(machine.vm_id, promised)


def _settings(spec: VmSpec) -> Iterator[tuple[str, str | None]]:
    """The path of each live setting with the keys of the devices that have it; those that depend on
    others come last.
    """
    keys = {
        "disks": [disk.key for disk in spec.disks],
        "nics": [nic.key for nic in spec.nics],
    }
    for path in sorted(SETTINGS, key=lambda path: SETTINGS[path].last):
        holder, is_list, _ = path.partition("[]")
        yield from ((path, key) for key in (keys[holder] if is_list else [None]))
