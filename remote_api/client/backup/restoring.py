"""Restoring VMs and volumes from points."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from remote_api.client.backup.extents import Run
from remote_api.client.backup.folder import BackupFolder, Chain, DiskPart, read_part
from remote_api.client.errors import ClientError, ConflictError, RefusedError, UnreachableError
from remote_api.client.sdk import Mica
from vmkernel.model import Vm, VolumeFormat, VolumeSpec

__all__ = ["restore_vm", "restore_volumes"]

OnStep = Callable[[str], None]

_REQUEST_BYTES = 64 << 20
_BACK_S = 30.0
"""A vmkernel that has ended answers again within some seconds."""
_AGAIN_S = 0.5
_LATER = ("conflict", "unavailable")
"""It is starting, or a request that was cut off still has the volume."""
_UNUSED_S = 86_400
"""Each write restarts it, so this bounds the time that the other disks of a VM take."""


def restore_volumes(
    folder: BackupFolder,
    mica: Mica,
    *,
    datastore: str,
    prefix: str,
    point: int | None = None,
    on_step: OnStep = lambda _: None,
) -> list[str]:
    """Create a volume `<prefix>-<key>` for each disk, as it was at a point (by default the last).

    What was created is deleted again on failure.
    """
    _, chain = folder.chosen(point)
    on_step("verifying the backup")
    folder.verify_points(chain)
    with _rolled_back(mica) as made:
        volumes = _volumes(folder, mica, chain, datastore, prefix, made, on_step)
        if volumes:
            mica.wait(mica.keep_volume(*volumes))
        return volumes


def restore_vm(
    folder: BackupFolder,
    mica: Mica,
    vm_id: str,
    *,
    datastore: str | None = None,
    point: int | None = None,
    new_identity: bool = False,
    on_step: OnStep = lambda _: None,
) -> Vm:
    """Create a VM as it was at a point (by default the last): spec, disks `<vm_id>-<key>`, firmware
    variables, TPM state, and, unless `new_identity`, its UUID and MAC addresses.

    Everything that was created is deleted again on failure.
    """
    number, chain = folder.chosen(point)
    document = _document(folder.saved_vm(chain[number]))
    spec, machine = document["spec"], document["machine"]
    target = datastore or str(spec["datastore"])
    if target not in {found.id for found in mica.datastores()}:
        raise ConflictError(f"the host has no datastore {target}; choose one with --datastore")
    if new_identity:
        _forget_identity(spec, machine)
    _refuse_taken(mica, vm_id, spec, machine)
    images = {image.id for image in mica.images()}
    for drive in spec.get("cdroms", ()):
        if drive.get("image") is not None and drive["image"] not in images:
            on_step(f"image {drive['image']} is not on the host: the CD-ROM drive is left empty")
            drive["image"] = None
    on_step("verifying the backup")
    folder.verify_points(chain)
    with _rolled_back(mica) as made:
        _volumes(folder, mica, chain, target, vm_id, made, on_step)
        spec["datastore"] = target
        backed_up = {disk.key for disk in chain[number].disks}
        spec["disks"] = [d for d in spec.get("disks", ()) if d.get("key") in backed_up]
        for disk in spec["disks"]:
            disk["volume"] = f"{vm_id}-{disk['key']}"
        on_step(f"creating VM {vm_id}")
        return mica.create_saved_vm(vm_id, document)


def _document(data: bytes) -> dict[str, Any]:
    """The body that creates the VM, as it came from the host: fields of newer hosts stay in it."""
    try:
        document = msgspec.json.decode(data, type=dict[str, Any])
        if isinstance(document["spec"], dict) and isinstance(document["machine"], dict):
            return document
    except (msgspec.DecodeError, KeyError):
        pass
    raise ConflictError("the saved VM of this point can't be read")


def _forget_identity(spec: dict[str, Any], machine: dict[str, Any]) -> None:
    machine["uuid"] = None
    for nic in spec.get("nics", ()):
        nic["mac"] = None
    if spec.get("vsock") is not None:
        spec["vsock"]["cid"] = None


def _refuse_taken(mica: Mica, vm_id: str, spec: dict[str, Any], machine: dict[str, Any]) -> None:
    """Find out before anything is copied that another VM has the id, the UUID or a MAC address."""
    macs = {nic.get("mac") for nic in spec.get("nics", ())} - {None}
    for vm in mica.vms():
        if vm.id == vm_id:
            raise ConflictError(f"VM {vm_id} exists already; choose another name with --as")
        if vm.status.uuid == machine.get("uuid"):
            raise ConflictError(
                f"VM {vm.id} has the UUID of the backup; delete it first, or give --new-identity"
            )
        taken = macs & {nic.mac for nic in vm.spec.nics}
        if taken:
            raise ConflictError(
                f"VM {vm.id} has the MAC address {min(map(str, taken))} of the backup; delete it"
                " first, or give --new-identity"
            )


@contextlib.contextmanager
def _rolled_back(mica: Mica) -> Iterator[list[str]]:
    """Delete the volumes in the list if the work fails."""
    made: list[str] = []
    try:
        yield made
    except BaseException as error:
        end = time.monotonic() + _BACK_S
        left = [volume for volume in made if not _deleted(mica, volume, end)]
        if left and isinstance(error, ClientError):
            raise ClientError(
                f"{error}; these restored volumes could not be deleted: {', '.join(left)}."
                " The host deletes them within a day; or use `mica volume delete`"
            ) from error
        raise


def _deleted(mica: Mica, volume: str, end: float) -> bool:
    """Delete a volume; a host that is starting again is waited for."""
    while True:
        try:
            mica.delete_volume(volume)
        except RefusedError as error:
            if error.code == "not-found":
                return True
            if error.code not in _LATER:
                return False
        except UnreachableError:
            pass
        except ClientError:
            return False
        else:
            return True
        if time.monotonic() > end:
            return False
        time.sleep(_AGAIN_S)


def _volumes(
    folder: BackupFolder,
    mica: Mica,
    chain: Chain,
    datastore: str,
    prefix: str,
    made: list[str],
    on_step: OnStep,
) -> list[str]:
    for disk in chain[max(chain)].disks:
        volume = f"{prefix}-{disk.key}"
        on_step(f"restoring volume {volume}")
        spec = VolumeSpec(
            datastore=datastore,
            size_bytes=disk.size_bytes,
            format=VolumeFormat.RAW,
            delete_unless_used_s=_UNUSED_S,
        )
        operation = mica.create_volume(volume, spec)
        made.append(volume)
        mica.wait(operation)
        _fill(folder, mica, volume, chain, disk)
        if disk.format is not VolumeFormat.RAW:
            mica.wait(mica.move_volume(volume, volume_format=disk.format))
    return made


def _fill(folder: BackupFolder, mica: Mica, volume: str, chain: Chain, disk: DiskPart) -> None:
    """Write a disk into a new volume, which is all zeros."""
    runs, sources = folder.disk(chain, disk.key)
    with contextlib.ExitStack() as opened:
        files = [opened.enter_context(path.open("rb")) for path in sources]
        for run in runs:
            if run.zero:
                continue
            for piece in _pieces(run):
                parts = read_part(files[run.source], piece.offset, piece.length)
                mica.write_volume(volume, piece.offset, piece.length, parts)


def _pieces(run: Run) -> Iterator[Run]:
    for at in range(run.offset, run.end, _REQUEST_BYTES):
        yield run._replace(offset=at, length=min(_REQUEST_BYTES, run.end - at))
