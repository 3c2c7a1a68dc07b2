"""Which datastores VMs have files on, as far as that can be known."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from vmkernel.host.files import names
from vmkernel.model import VmSpec
from vmkernel.storage.ports import Storage
from vmkernel.vm.context import VmContext
from vmkernel.vm.reservations import images_of
from vmkernel.vm.store.launch_record import read_record

__all__ = ["datastores_of", "left_running", "perhaps_on"]


def datastores_of(storage: Storage, spec: VmSpec) -> set[str]:
    """Those that hold the folder, a volume or an image of a VM, as far as they are there."""
    places = _places(storage, spec)
    return {spec.datastore} | {place for place in places if place is not None}


def perhaps_on(storage: Storage, spec: VmSpec, datastore: str) -> bool:
    """True unless it is certain that a VM has no file on a datastore: a volume or an image that
    no present datastore has may be on any of the others."""
    if datastore in datastores_of(storage, spec):
        return True
    return datastore not in storage.datastores() and None in _places(storage, spec)


def left_running(host: VmContext, known: Collection[str], datastore: str) -> Iterator[str]:
    """The VMs that run, perhaps with files on a datastore, and are not among those known: an
    earlier vmkernel started them, and their datastore has not been read since."""
    try:
        started = names(host.run_dir)
    except OSError:
        return
    for vm_id in started:
        if vm_id in known or not host.launcher.is_active(vm_id):
            continue
        record = read_record(host.folder(vm_id).record)
        if record is None or perhaps_on(host.storage, record.definition.spec, datastore):
            yield vm_id


def _places(storage: Storage, spec: VmSpec) -> list[str | None]:
    return [
        *(storage.datastore_of_volume(disk.volume) for disk in spec.disks),
        *(storage.datastore_of_image(image) for image in images_of(spec)),
    ]
