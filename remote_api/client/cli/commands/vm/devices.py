"""Disks, CD-ROMs and NICs of a VM, one at a time.

Each command reads the VM, changes one list of its spec and sends it back for the revision that was
read; if another client was quicker it begins again, so that no change is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import click
import msgspec

from remote_api.client.cli.parameters import NAME, SIZE, choice_of
from remote_api.client.cli.session import (
    Session,
    bytes_text,
    pass_session,
    say,
    show_object,
)
from remote_api.client.cli.verbs import vm_argument
from remote_api.client.errors import ClientError, ConflictError, RefusedError
from remote_api.client.sdk import Mica
from vmkernel.model import (
    CdromSpec,
    DiskBus,
    DiskCache,
    DiskSpec,
    NicModel,
    NicSpec,
    Vm,
    VmSpec,
    VolumeSpec,
)

__all__ = ["COMMANDS", "change_vm", "made_volumes", "with_image"]

_ATTEMPTS = 5
_UNUSED_S = 600
"""Blank volumes are made within a moment each; their VM follows at once."""


@click.command("attach")
@vm_argument
@click.argument("volume", type=NAME, metavar="VOLUME")
@click.option(
    "--new", "size", type=SIZE, metavar="SIZE", help="Create the volume first, with this size."
)
@click.option(
    "--datastore",
    type=NAME,
    metavar="DATASTORE",
    help="Datastore of the new volume (default: the VM's).",
)
@click.option(
    "--bus",
    type=choice_of(DiskBus),
    help="Bus of the disk (default: chosen for the guest).",
)
@click.option(
    "--key", metavar="KEY", help="Key of the disk, such as disk3 (default: the first free one)."
)
@click.option(
    "--cache",
    type=choice_of(DiskCache),
    help="Cache mode of the disk (default: none).",
)
@click.option("--read-only", is_flag=True, help="Attach the disk read-only.")
@pass_session
def attach(
    session: Session,
    vm_id: str,
    volume: str,
    size: int | None,
    datastore: str | None,
    bus: str | None,
    key: str | None,
    cache: str | None,
    read_only: bool,
) -> None:
    """Attach VOLUME to a VM as a disk. The VM may be running."""
    if datastore and size is None:
        raise click.UsageError("--datastore is only possible with --new")
    disk = DiskSpec(
        volume=volume,
        key=key,
        bus=DiskBus(bus) if bus else None,
        cache=DiskCache(cache) if cache else DiskCache.NONE,
        read_only=read_only,
    )

    def change(spec: VmSpec) -> dict[str, Any]:
        there = next((d.key for d in spec.disks if d.volume == volume), None)
        if there is not None:
            raise ConflictError(f"volume {volume} is already attached to VM {vm_id}: it is {there}")
        return {"disks": (*spec.disks, disk)}

    with session.mica() as mica:
        new = {} if size is None else {volume: size}
        where = datastore or (mica.vm(vm_id).spec.datastore if new else "")
        with made_volumes(session, mica, where, new):
            vm = change_vm(mica, vm_id, change)
    place = next((d.key for d in vm.spec.disks if d.volume == volume), None) or "a disk"
    _say(session, vm, f"volume {volume} attached to VM {vm_id} as {place}")


@click.command("detach")
@vm_argument
@click.argument("disk")
@pass_session
def detach(session: Session, vm_id: str, disk: str) -> None:
    """Detach a disk from a VM; its volume is kept.

    DISK is a volume, or a key such as disk1. The VM may be running.
    """

    def change(spec: VmSpec) -> dict[str, Any]:
        named = {d.key: d for d in spec.disks} | {d.volume: d for d in spec.disks}
        if disk not in named:
            raise _none(vm_id, "disk", disk, [f"{d.key} {d.volume}" for d in spec.disks])
        return {"disks": tuple(d for d in spec.disks if d is not named[disk])}

    with session.mica() as mica:
        vm = change_vm(mica, vm_id, change)
    _say(session, vm, f"disk {disk} detached from VM {vm_id}; the volume is kept")


@click.command("insert")
@vm_argument
@click.argument("image", type=NAME, metavar="IMAGE")
@click.option(
    "--drive",
    metavar="KEY",
    help="The drive to use, such as cdrom0 (default: an empty one, or the only one).",
)
@pass_session
def insert(session: Session, vm_id: str, image: str, drive: str | None) -> None:
    """Insert an ISO image into a CD-ROM drive of a VM.

    It replaces the image in the drive. A stopped VM without a drive gets one.
    """

    def change(spec: VmSpec) -> dict[str, Any]:
        if not spec.cdroms and drive is None:
            return {"cdroms": (CdromSpec(image=image),)}
        empty = [c for c in spec.cdroms if c.image is None]
        return {"cdroms": with_image(vm_id, spec.cdroms, drive, empty or spec.cdroms, image)}

    with session.mica() as mica:
        vm = change_vm(mica, vm_id, change)
    _say(session, vm, f"image {image} inserted into VM {vm_id}")


@click.command("eject")
@vm_argument
@click.option(
    "--drive",
    metavar="KEY",
    help="The drive to empty, such as cdrom0 (default: the only one with an image).",
)
@pass_session
def eject(session: Session, vm_id: str, drive: str | None) -> None:
    """Eject the image from a CD-ROM drive of a VM. The drive is kept."""

    def change(spec: VmSpec) -> dict[str, Any]:
        full = [c for c in spec.cdroms if c.image is not None]
        if not full:
            raise ConflictError(f"VM {vm_id} has no image in a CD-ROM drive")
        return {"cdroms": with_image(vm_id, spec.cdroms, drive, full, None)}

    with session.mica() as mica:
        vm = change_vm(mica, vm_id, change)
    _say(session, vm, f"CD-ROM drive of VM {vm_id} emptied")


@click.command("add-nic")
@vm_argument
@click.argument("port_group", type=NAME, default="vm-network", metavar="[PORT_GROUP]")
@click.option(
    "--model",
    type=choice_of(NicModel),
    help="Model of the NIC (default: chosen for the guest).",
)
@click.option("--mac", metavar="ADDRESS", help="MAC address (default: generated).")
@click.option(
    "--key", metavar="KEY", help="Key of the NIC, such as nic1 (default: the first free one)."
)
@pass_session
def add_nic(
    session: Session,
    vm_id: str,
    port_group: str,
    model: str | None,
    mac: str | None,
    key: str | None,
) -> None:
    """Add a NIC to a VM.

    PORT_GROUP is vm-network by default. The VM may be running.
    """
    nic = NicSpec(
        port_group=port_group,
        key=key,
        model=NicModel(model) if model else None,
        mac=mac.lower() if mac else None,
    )
    with session.mica() as mica:
        before = {n.key for n in mica.vm(vm_id).spec.nics}
        vm = change_vm(mica, vm_id, lambda spec: {"nics": (*spec.nics, nic)})
    made = next((n for n in reversed(vm.spec.nics) if n.key not in before), nic)
    _say(session, vm, f"{made.key} on {port_group} added to VM {vm_id} ({made.mac})")


@click.command("remove-nic")
@vm_argument
@click.argument("nic")
@pass_session
def remove_nic(session: Session, vm_id: str, nic: str) -> None:
    """Remove a NIC from a VM.

    NIC is a key such as nic1, or a MAC address. The VM may be running.
    """

    def change(spec: VmSpec) -> dict[str, Any]:
        left = tuple(n for n in spec.nics if nic.lower() not in (n.key, n.mac))
        if len(left) == len(spec.nics):
            raise _none(vm_id, "NIC", nic, [f"{n.key} {n.mac}" for n in spec.nics])
        return {"nics": left}

    with session.mica() as mica:
        vm = change_vm(mica, vm_id, change)
    _say(session, vm, f"NIC {nic} removed from VM {vm_id}")


COMMANDS = (attach, detach, insert, eject, add_nic, remove_nic)


def change_vm(mica: Mica, vm_id: str, change: Callable[[VmSpec], dict[str, Any]]) -> Vm:
    """Patch a VM by what `change` makes of its spec, for exactly the spec that it was given."""
    for attempt in range(1, _ATTEMPTS + 1):
        vm = mica.vm(vm_id)
        patch = msgspec.to_builtins(change(vm.spec))
        try:
            return mica.patch_vm(vm_id, patch, revision=vm.revision)
        except RefusedError as error:
            if error.code != "revision-mismatch" or attempt == _ATTEMPTS:
                raise
    raise AssertionError("unreachable")


def with_image(
    vm_id: str,
    drives: Sequence[CdromSpec],
    asked: str | None,
    candidates: Sequence[CdromSpec],
    image: str | None,
) -> tuple[CdromSpec, ...]:
    """The drives, with the image in the one that was asked for, or in the only possible one."""
    shown = [f"{c.key} {c.image or 'empty'}" for c in drives]
    if asked is not None:
        chosen = next((c for c in drives if c.key == asked), None)
        if chosen is None:
            raise _none(vm_id, "drive", asked, shown)
    elif len(candidates) == 1 or candidates[0].image is None:
        chosen = candidates[0]
    else:
        raise ConflictError(f"VM {vm_id} has {', '.join(shown)}; choose one with --drive")
    return tuple(msgspec.structs.replace(c, image=image) if c is chosen else c for c in drives)


def _none(vm_id: str, what: str, name: str, there: Sequence[str]) -> ConflictError:
    return ConflictError(f"VM {vm_id} has no {what} {name} (it has: {', '.join(there) or 'none'})")


def _say(session: Session, vm: Vm, text: str) -> None:
    if session.json:
        show_object(session, vm)
    say(session, text)


@contextmanager
def made_volumes(
    session: Session, mica: Mica, datastore: str, sizes: dict[str, int]
) -> Iterator[None]:
    """Create volumes for a VM that is changed inside. If anything fails, all are deleted:
    by the host if this process ends."""
    made = []
    try:
        for volume, size in sizes.items():
            spec = VolumeSpec(datastore=datastore, size_bytes=size, delete_unless_used_s=_UNUSED_S)
            mica.wait(mica.create_volume(volume, spec))
            made.append(volume)
        yield
    except BaseException:
        for volume in reversed(made):
            with suppress(ClientError):
                mica.delete_volume(volume)
                say(session, f"volume {volume} deleted, because the command failed")
        raise
    for volume, size in sizes.items():
        say(session, f"volume {volume} created ({bytes_text(size)})")
