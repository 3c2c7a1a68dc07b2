"""Creating and cloning virtual machines."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from remote_api.client.cli.cloud_init import cloud_init_of, cloud_init_options
from remote_api.client.cli.commands.vm.devices import made_volumes
from remote_api.client.cli.parameters import NAME, NAME_AND_KIND, SIZE
from remote_api.client.cli.session import (
    Session,
    pass_session,
    say,
    show_object,
    wait_option,
)
from remote_api.client.cli.spec_paths import set_path, spec_as_json
from remote_api.schema.violations import examined
from vmkernel.model import (
    BootDevice,
    BootSpec,
    CdromSpec,
    CloneSpec,
    CpuSpec,
    DiskBus,
    DiskSpec,
    DisplayModel,
    Firmware,
    GuestOs,
    KernelBoot,
    NicModel,
    NicSpec,
    VmSpec,
)

__all__ = ["COMMANDS"]

_MIB = 1 << 20


@click.command("create")
@click.argument("vm_id", type=NAME)
@click.option("--datastore", type=NAME, required=True, help="Where its folder lies.")
@click.option("--name", default="", help="A free display name.")
@click.option("--cpus", type=click.IntRange(1, 256), default=1, show_default=True)
@click.option("--cpu-model", default="host", show_default=True)
@click.option("--memory", type=SIZE, default="512M", show_default=True)
@click.option(
    "--firmware",
    type=click.Choice([f.value for f in Firmware]),
    default=Firmware.UEFI.value,
    show_default=True,
)
@click.option(
    "--disk",
    "disks",
    type=NAME_AND_KIND,
    multiple=True,
    metavar="VOLUME[:BUS]",
    help="Attach a volume; repeatable.",
)
@click.option(
    "--new-disk",
    "new_disks",
    type=SIZE,
    multiple=True,
    metavar="SIZE",
    help="Make a volume ID-disk-N on the same datastore and attach it; repeatable.",
)
@click.option(
    "--cdrom",
    "cdroms",
    type=NAME_AND_KIND,
    multiple=True,
    metavar="IMAGE[:BUS]",
    help="Insert an ISO image.",
)
@click.option(
    "--nic",
    "nics",
    type=NAME_AND_KIND,
    multiple=True,
    metavar="PORT-GROUP[:MODEL]",
    help="A network card; one on vm-network where none is given.",
)
@click.option("--no-nic", is_flag=True, help="No network card.")
@click.option("--kernel", type=NAME, help="Boot this kernel image directly.")
@click.option("--initrd", type=NAME, help="With this initrd image.")
@click.option("--cmdline", default="", help="And this command line.")
@click.option(
    "--boot",
    "order",
    multiple=True,
    type=click.Choice([d.value for d in BootDevice]),
    help="Boot order; repeatable.",
)
@click.option(
    "--display",
    type=click.Choice([d.value for d in DisplayModel]),
    default=DisplayModel.STD.value,
    show_default=True,
)
@click.option(
    "--guest-os",
    type=click.Choice([g.value for g in GuestOs]),
    default=GuestOs.LINUX.value,
    show_default=True,
    help="Chooses defaults; windows: devices that it has drivers for, local time, Hyper-V.",
)
@click.option("--tpm", is_flag=True, help="A TPM 2.0.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="PATH=VALUE",
    help="Any other field of the spec, such as watchdog.action=reset; repeatable.",
)
@cloud_init_options
@click.option("--start", is_flag=True, help="Start it at once.")
@pass_session
def create_vm(session: Session, /, vm_id: str, start: bool, **given: Any) -> None:
    """Make a virtual machine."""
    new = {f"{vm_id}-disk-{number}": size for number, size in enumerate(given["new_disks"])}
    spec = _with_settings(_spec(given, tuple(new)), given["settings"])
    with session.mica() as mica:
        with made_volumes(session, mica, spec.datastore, new):
            vm = mica.create_vm(vm_id, spec)
        if start:
            operation = mica.start_vm(vm_id)
            session.finish(mica, operation, wait=True, done=f"VM {vm_id} is started")
        elif session.json:
            show_object(session, vm)
        else:
            say(session, f"VM {vm_id} is made")


@click.command("clone")
@click.argument("vm_id", type=NAME)
@click.argument("new_id", type=NAME)
@click.option("--name", default="", help="A free display name.")
@click.option(
    "--datastore", type=NAME, help="Datastore of the clone and its disks (default: the source's)."
)
@click.option(
    "--linked",
    is_flag=True,
    help="Of a template: only what differs from its disks takes space, and it must stay as it is.",
)
@click.option("--snapshot", type=NAME, help="As it was at this snapshot; it may run meanwhile.")
@wait_option
@pass_session
def clone_vm(
    session: Session,
    vm_id: str,
    new_id: str,
    name: str,
    datastore: str | None,
    linked: bool,
    snapshot: str | None,
    wait: bool,
) -> None:
    """Make NEW_ID of a virtual machine that is off, of a template, or of a snapshot.

    It gets a UUID, MAC addresses and a cloud-init instance id of its own. `mica volume flatten`
    makes the disk of a linked one whole later.
    """
    spec = CloneSpec(name=name, datastore=datastore, linked=linked, snapshot=snapshot)
    with session.mica() as mica:
        operation = mica.clone_vm(vm_id, new_id, spec)
        session.finish(mica, operation, wait=wait, done=f"VM {new_id} is made")


def _spec(given: dict[str, Any], new_disks: tuple[str, ...]) -> VmSpec:
    if given["no_nic"] and given["nics"]:
        raise click.UsageError("--no-nic and --nic exclude each other; leave one of them out")
    if given["memory"] % _MIB:
        raise click.UsageError("--memory must be whole MiB")
    nics = () if given["no_nic"] else given["nics"] or ("vm-network",)
    kernel = None
    if given["kernel"]:
        kernel = KernelBoot(
            kernel=given["kernel"], initrd=given["initrd"], cmdline=given["cmdline"]
        )
    elif given["initrd"] or given["cmdline"]:
        raise click.UsageError("--initrd and --cmdline go with --kernel")
    order = tuple(BootDevice(name) for name in given["order"]) or BootSpec().order
    return VmSpec(
        datastore=given["datastore"],
        name=given["name"],
        labels=dict(_label(text) for text in given["labels"]),
        cpus=CpuSpec(count=given["cpus"], model=given["cpu_model"]),
        memory_bytes=given["memory"],
        firmware=Firmware(given["firmware"]),
        disks=(
            *(_disk(text) for text in given["disks"]),
            *(DiskSpec(volume=volume) for volume in new_disks),
        ),
        cdroms=tuple(_cdrom(text) for text in given["cdroms"]),
        nics=tuple(_nic(text) for text in nics),
        boot=BootSpec(order=order, kernel=kernel),
        display=DisplayModel(given["display"]),
        guest_os=GuestOs(given["guest_os"]),
        tpm=given["tpm"],
        cloud_init=cloud_init_of(given),
    )


def _with_settings(spec: VmSpec, settings: tuple[str, ...]) -> VmSpec:
    raw = spec_as_json(spec)
    for setting in settings:
        set_path(raw, setting)
    taken, wrong = examined(_without_nulls(raw), VmSpec)
    if wrong:
        paths = ((each.pointer[1:].replace("/", "."), each.detail) for each in wrong)
        raise click.UsageError(" ".join(f"{path}: {detail}" for path, detail in paths))
    return msgspec.convert(taken, VmSpec)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _disk(text: str) -> DiskSpec:
    volume, _, bus = text.partition(":")
    try:
        return DiskSpec(volume=volume, bus=DiskBus(bus) if bus else None)
    except ValueError as error:
        raise click.UsageError(f"--disk {text}: buses are {', '.join(DiskBus)}") from error


def _cdrom(text: str) -> CdromSpec:
    image, _, bus = text.partition(":")
    try:
        return CdromSpec(image=image, bus=DiskBus(bus) if bus else DiskBus.SATA)
    except ValueError as error:
        raise click.UsageError(f"--cdrom {text}: buses are {', '.join(DiskBus)}") from error


def _nic(text: str) -> NicSpec:
    port_group, _, model = text.partition(":")
    try:
        return NicSpec(port_group=port_group, model=NicModel(model) if model else None)
    except ValueError as error:
        raise click.UsageError(f"--nic {text}: models are {', '.join(NicModel)}") from error


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise click.UsageError(f"--label {text}: write KEY=VALUE")
    return key, value


COMMANDS = (create_vm, clone_vm)
