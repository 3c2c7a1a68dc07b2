"""Creating and cloning virtual machines."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from remote_api.client.cli.cloud_init import cloud_init_of, cloud_init_options
from remote_api.client.cli.commands.vm.devices import made_volumes
from remote_api.client.cli.parameters import NAME, NAME_AND_KIND, SIZE, choice_of
from remote_api.client.cli.session import (
    Session,
    pass_session,
    say,
    show_object,
    wait_option,
)
from remote_api.client.cli.spec_paths import set_path, spec_as_json
from remote_api.client.cli.verbs import new_name_argument, vm_argument
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
@vm_argument
@click.option(
    "--datastore",
    type=NAME,
    metavar="DATASTORE",
    required=True,
    help="Datastore of the VM and its new disks.",
)
@click.option("--name", default="", help="Display name (free text).")
@click.option(
    "--cpus",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    metavar="N",
    help="Number of vCPUs.",
)
@click.option(
    "--cpu-model",
    default="host",
    show_default=True,
    metavar="MODEL",
    help="CPU model that the guest sees.",
)
@click.option(
    "--memory", type=SIZE, default="512M", show_default=True, help="Memory, in whole MiB."
)
@click.option(
    "--firmware",
    type=choice_of(Firmware),
    default=Firmware.UEFI.value,
    show_default=True,
    help="Firmware of the VM.",
)
@click.option(
    "--disk",
    "disks",
    type=NAME_AND_KIND,
    multiple=True,
    metavar="VOLUME[:BUS]",
    help="Attach this volume as a disk. Repeatable.",
)
@click.option(
    "--new-disk",
    "new_disks",
    type=SIZE,
    multiple=True,
    metavar="SIZE",
    help="Create a volume VM-disk-N of this size on the same datastore and attach it. Repeatable.",
)
@click.option(
    "--cdrom",
    "cdroms",
    type=NAME_AND_KIND,
    multiple=True,
    metavar="IMAGE[:BUS]",
    help="Insert this ISO image into a CD-ROM drive. Repeatable.",
)
@click.option(
    "--nic",
    "nics",
    type=NAME_AND_KIND,
    multiple=True,
    metavar="PORT_GROUP[:MODEL]",
    help="Add a NIC on this port group (default: one on vm-network). Repeatable.",
)
@click.option("--no-nic", is_flag=True, help="Create the VM without a NIC.")
@click.option(
    "--kernel",
    type=NAME,
    metavar="IMAGE",
    help="Boot this kernel image directly, without a bootloader.",
)
@click.option("--initrd", type=NAME, metavar="IMAGE", help="Initrd image for --kernel.")
@click.option("--cmdline", default="", help="Kernel command line for --kernel.")
@click.option(
    "--boot",
    "order",
    multiple=True,
    type=choice_of(BootDevice),
    help="Boot order: first device first. Repeatable.",
)
@click.option(
    "--display",
    type=choice_of(DisplayModel),
    default=DisplayModel.STD.value,
    show_default=True,
    help="Display adapter.",
)
@click.option(
    "--guest-os",
    type=choice_of(GuestOs),
    default=GuestOs.LINUX.value,
    show_default=True,
    help="Guest OS, which sets defaults. `windows`: devices with inbox drivers, clock"
    " in local time,"
    " Hyper-V enlightenments.",
)
@click.option("--tpm", is_flag=True, help="Add a TPM 2.0.")
@click.option(
    "--label", "labels", multiple=True, metavar="KEY=VALUE", help="Label of the VM. Repeatable."
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="PATH=VALUE",
    help="Set any other field of the spec, such as watchdog.action=reset. Repeatable.",
)
@cloud_init_options
@click.option("--start", is_flag=True, help="Start the VM when it is created.")
@pass_session
def create_vm(session: Session, /, vm_id: str, start: bool, **given: Any) -> None:
    """Create a VM."""
    new = {f"{vm_id}-disk-{number}": size for number, size in enumerate(given["new_disks"])}
    spec = _with_settings(_spec(given, tuple(new)), given["settings"])
    with session.mica() as mica:
        with made_volumes(session, mica, spec.datastore, new):
            vm = mica.create_vm(vm_id, spec)
        if start:
            operation = mica.start_vm(vm_id)
            session.finish(mica, operation, wait=True, done=f"VM {vm_id} created and started")
        elif session.json:
            show_object(session, vm)
        else:
            say(session, f"VM {vm_id} created")


@click.command("clone")
@vm_argument
@new_name_argument
@click.option("--name", default="", help="Display name (free text).")
@click.option(
    "--datastore",
    type=NAME,
    metavar="DATASTORE",
    help="Datastore of the clone and its disks (default: the source's).",
)
@click.option(
    "--linked",
    is_flag=True,
    help="Create a linked clone of a template: only differences take space. The template can't be"
    " changed or deleted as long as it has linked clones.",
)
@click.option(
    "--snapshot", type=NAME, metavar="SNAPSHOT", help="Clone this snapshot. The VM may be running."
)
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
    """Clone a stopped VM, a template or a snapshot.

    The clone gets a new UUID, MAC addresses and cloud-init instance ID. To make a linked clone
    independent of its template, run `mica volume flatten` on its disks.
    """
    spec = CloneSpec(name=name, datastore=datastore, linked=linked, snapshot=snapshot)
    with session.mica() as mica:
        operation = mica.clone_vm(vm_id, new_id, spec)
        session.finish(mica, operation, wait=wait, done=f"VM {new_id} created")


def _spec(given: dict[str, Any], new_disks: tuple[str, ...]) -> VmSpec:
    if given["no_nic"] and given["nics"]:
        raise click.UsageError("--no-nic and --nic are mutually exclusive")
    if given["memory"] % _MIB:
        raise click.UsageError("--memory must be a whole number of MiB")
    nics = () if given["no_nic"] else given["nics"] or ("vm-network",)
    kernel = None
    if given["kernel"]:
        kernel = KernelBoot(
            kernel=given["kernel"], initrd=given["initrd"], cmdline=given["cmdline"]
        )
    elif given["initrd"] or given["cmdline"]:
        raise click.UsageError("--initrd and --cmdline are only possible with --kernel")
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
        raise click.UsageError(
            f"--disk {text}: unknown bus; use one of {', '.join(DiskBus)}"
        ) from error


def _cdrom(text: str) -> CdromSpec:
    image, _, bus = text.partition(":")
    try:
        return CdromSpec(image=image, bus=DiskBus(bus) if bus else DiskBus.SATA)
    except ValueError as error:
        raise click.UsageError(
            f"--cdrom {text}: unknown bus; use one of {', '.join(DiskBus)}"
        ) from error


def _nic(text: str) -> NicSpec:
    port_group, _, model = text.partition(":")
    try:
        return NicSpec(port_group=port_group, model=NicModel(model) if model else None)
    except ValueError as error:
        raise click.UsageError(
            f"--nic {text}: unknown model; use one of {', '.join(NicModel)}"
        ) from error


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise click.UsageError(f"--label {text}: write KEY=VALUE")
    return key, value


COMMANDS = (create_vm, clone_vm)
