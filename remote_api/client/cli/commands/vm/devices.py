"""Disks, CD-ROMs and network cards of a virtual machine, one at a time.

Each command reads the machine, changes one list of its spec and sends it back for the revision
that was read; where somebody else was quicker it begins again, so that no change is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import click
import msgspec

from remote_api.client.cli.parameters import NAME, SIZE
from remote_api.client.cli.session import (
    Session,
    bytes_text,
    pass_session,
    say,
    show_object,
)
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
@click.argument("vm_id", type=NAME)
@click.argument("volume", type=NAME)
@click.option("--new", "size", type=SIZE, metavar="SIZE", help="Make the volume first.")
@click.option(
    "--datastore",
    type=NAME,
    help="Datastore of the new volume (default: the VM's).",
)
@click.option("--bus", type=click.Choice([b.value for b in DiskBus]))
@click.option("--key", help="Its place in the guest, such as disk3; a free one otherwise.")
@click.option("--cache", type=click.Choice([c.value for c in DiskCache]))
@click.option("--read-only", is_flag=True)
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
    """Give a virtual machine the disk VOLUME, also while it runs."""
    if datastore and size is None:
        raise click.UsageError("--datastore goes with --new")
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
            raise ConflictError(f"VM {vm_id} has volume {volume} already: it is {there}")
        return {"disks": (*spec.disks, disk)}

    with session.mica() as mica:
        new = {} if size is None else {volume: size}
        where = datastore or (mica.vm(vm_id).spec.datastore if new else "")
        with made_volumes(session, mica, where, new):
            vm = change_vm(mica, vm_id, change)
    place = next((d.key for d in vm.spec.disks if d.volume == volume), None) or "a disk"
    _told(session, vm, f"volume {volume} is {place} of VM {vm_id}")


@click.command("detach")
@click.argument("vm_id", type=NAME)
@click.argument("disk")
@pass_session
def detach(session: Session, vm_id: str, disk: str) -> None:
    """Take DISK (its volume, or its key) from a virtual machine; the volume stays."""

    def change(spec: VmSpec) -> dict[str, Any]:
        named = {d.key: d for d in spec.disks} | {d.volume: d for d in spec.disks}
        if disk not in named:
            raise _none(vm_id, "disk", disk, [f"{d.key} {d.volume}" for d in spec.disks])
        return {"disks": tuple(d for d in spec.disks if d is not named[disk])}

    with session.mica() as mica:
        vm = change_vm(mica, vm_id, change)
    _told(session, vm, f"VM {vm_id} has no disk {disk} any more")


@click.command("insert")
@click.argument("vm_id", type=NAME)
@click.argument("image", type=NAME)
@click.option("--drive", metavar="KEY", help="Which one, where there are several.")
@pass_session
def insert(session: Session, vm_id: str, image: str, drive: str | None) -> None:
    """Put the ISO IMAGE into a virtual machine's CD-ROM drive, in the place of what is in it.

    An empty drive is taken first. A machine without a drive gets one, once it is off.
    """

    def change(spec: VmSpec) -> dict[str, Any]:
        if not spec.cdroms and drive is None:
            return {"cdroms": (CdromSpec(image=image),)}
        empty = [c for c in spec.cdroms if c.image is None]
        return {"cdroms": with_image(vm_id, spec.cdroms, drive, empty or spec.cdroms, image)}

    with session.mica() as mica:
        vm = change_vm(mica, vm_id, change)
    _told(session, vm, f"image {image} is in VM {vm_id}")


@click.command("eject")
@click.argument("vm_id", type=NAME)
@click.option("--drive", metavar="KEY", help="Which one, where several are full.")
@pass_session
def eject(session: Session, vm_id: str, drive: str | None) -> None:
    """Empty a virtual machine's CD-ROM drive; the drive stays."""

    def change(spec: VmSpec) -> dict[str, Any]:
        full = [c for c in spec.cdroms if c.image is not None]
        if not full:
            raise ConflictError(f"VM {vm_id} has nothing in a CD-ROM drive")
        return {"cdroms": with_image(vm_id, spec.cdroms, drive, full, None)}

    with session.mica() as mica:
        vm = change_vm(mica, vm_id, change)
    _told(session, vm, f"VM {vm_id} has given it out")


@click.command("add-nic")
@click.argument("vm_id", type=NAME)
@click.argument("port_group", type=NAME, default="vm-network")
@click.option("--model", type=click.Choice([m.value for m in NicModel]))
@click.option("--mac", help="A made one otherwise.")
@click.option("--key", help="Its place in the guest, such as nic1; a free one otherwise.")
@pass_session
def add_nic(
    session: Session,
    vm_id: str,
    port_group: str,
    model: str | None,
    mac: str | None,
    key: str | None,
) -> None:
    """Give a virtual machine a network card on PORT_GROUP, also while it runs."""
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
    _told(session, vm, f"VM {vm_id} has {made.key} on {port_group} ({made.mac})")


@click.command("remove-nic")
@click.argument("vm_id", type=NAME)
@click.argument("nic")
@pass_session
def remove_nic(session: Session, vm_id: str, nic: str) -> None:
    """Take the network card NIC (its key, or its MAC address) from a virtual machine."""

    def change(spec: VmSpec) -> dict[str, Any]:
        left = tuple(n for n in spec.nics if nic.lower() not in (n.key, n.mac))
        if len(left) == len(spec.nics):
            raise _none(vm_id, "network card", nic, [f"{n.key} {n.mac}" for n in spec.nics])
        return {"nics": left}

    with session.mica() as mica:
        vm = change_vm(mica, vm_id, change)
    _told(session, vm, f"VM {vm_id} has no {nic} any more")


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
    """The drives, with the image in the one that was asked for, or the only one that can be."""
    shown = [f"{c.key} {c.image or 'empty'}" for c in drives]
    if asked is not None:
        chosen = next((c for c in drives if c.key == asked), None)
        if chosen is None:
            raise _none(vm_id, "drive", asked, shown)
    elif len(candidates) == 1 or candidates[0].image is None:
        chosen = candidates[0]
    else:
        raise ConflictError(f"VM {vm_id} has {', '.join(shown)}; say which by --drive")
    return tuple(msgspec.structs.replace(c, image=image) if c is chosen else c for c in drives)


def _none(vm_id: str, what: str, name: str, there: Sequence[str]) -> ConflictError:
    return ConflictError(f"VM {vm_id} has no {what} {name} (it has: {', '.join(there) or 'none'})")


def _told(session: Session, vm: Vm, text: str) -> None:
    if session.json:
        show_object(session, vm)
    say(session, text)


@contextmanager
def made_volumes(
    session: Session, mica: Mica, datastore: str, sizes: dict[str, int]
) -> Iterator[None]:
    """New volumes for a VM that names them inside; all are deleted again if one of them, or what
    comes after, fails: by the server if this process ends."""
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
                say(session, f"volume {volume} is deleted again")
        raise
    for volume, size in sizes.items():
        say(session, f"volume {volume} is ready ({bytes_text(size)})")
