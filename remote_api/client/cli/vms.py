"""Virtual machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from remote_api.client.cli.cloud_init import cloud_init_of, cloud_init_options
from remote_api.client.cli.common import (
    Session,
    bytes_text,
    confirm,
    pass_session,
    say,
    show_object,
    show_rows,
    wait_option,
)
from remote_api.client.cli.console import console, keys, nmi, screenshot, vnc
from remote_api.client.cli.parameters import NAME, NAME_AND_KIND, SIZE
from remote_api.client.cli.spec_paths import patch_of, set_path, spec_as_json, waiting_for_start
from remote_api.client.cli.statistics import vm_stats
from remote_api.client.cli.vm_devices import DEVICE_COMMANDS, made_volumes
from remote_api.client.cli.vm_life import LIFE_COMMANDS, life_lines
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
    Vm,
    VmSpec,
    VmState,
)

__all__ = ["vm_group"]

_MIB = 1 << 20


@click.group("vm")
def vm_group() -> None:
    """Virtual machines."""


for _command in (
    console,
    keys,
    nmi,
    screenshot,
    vm_stats,
    vnc,
    *DEVICE_COMMANDS,
    *LIFE_COMMANDS,
):
    vm_group.add_command(_command)


@vm_group.command("list")
@pass_session
def list_vms(session: Session) -> None:
    """List virtual machines."""
    with session.mica() as mica:
        show_rows(
            session,
            mica.vms(),
            (
                ("ID", lambda v: v.id),
                ("STATE", lambda v: v.status.state),
                ("CPUS", lambda v: v.spec.cpus.count),
                ("MEMORY", lambda v: bytes_text(v.spec.memory_bytes)),
                ("DATASTORE", lambda v: v.spec.datastore),
                ("ACCELERATOR", lambda v: v.status.accelerator),
                ("REASON", lambda v: v.status.reason),
            ),
        )


@vm_group.command("show")
@click.argument("vm_id", type=NAME)
@pass_session
def show_vm(session: Session, vm_id: str) -> None:
    """Show a virtual machine."""
    with session.mica() as mica:
        _show(session, mica.vm(vm_id))


@vm_group.command("create")
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


@vm_group.command("set")
@click.argument("vm_id", type=NAME)
@click.argument("settings", nargs=-1, required=True, metavar="PATH=VALUE...")
@pass_session
def set_vm(session: Session, vm_id: str, settings: tuple[str, ...]) -> None:
    """Set fields of a virtual machine's spec.

    Such as: cpus.count=4 memory_bytes=2G firmware=uefi-secure-boot tpm=true
    nics.nic0.connected=false disks.disk0.limits.iops.per_s=500 boot.order='["cdrom","disk"]'. An
    empty value is the field's default. Nothing is changed where somebody else changed the machine
    meanwhile.
    """
    with session.mica() as mica:
        vm = mica.vm(vm_id)
        patch = patch_of(spec_as_json(vm.spec), settings)
        changed = mica.patch_vm(vm_id, patch, revision=vm.revision) if patch else vm
        _show(session, changed)
        _say_what_waits(session, vm, changed)


@vm_group.command("patch")
@click.argument("vm_id", type=NAME)
@click.argument("patch")
@pass_session
def patch_vm(session: Session, vm_id: str, patch: str) -> None:
    """Merge PATCH (JSON, or @FILE) into a virtual machine's spec."""
    try:
        raw = Path(patch[1:]).read_bytes() if patch.startswith("@") else patch.encode()
        change = msgspec.json.decode(raw, type=dict[str, Any])
    except (OSError, msgspec.DecodeError) as error:
        raise click.UsageError(f"the patch can't be read: {error}") from error
    with session.mica() as mica:
        before = mica.vm(vm_id)
        changed = mica.patch_vm(vm_id, change)
        _show(session, changed)
        _say_what_waits(session, before, changed)


def _say_what_waits(session: Session, before: Vm, changed: Vm) -> None:
    if changed.status.state in (VmState.STOPPED, VmState.CRASHED):
        return
    if waiting := waiting_for_start(before.spec, changed.spec):
        takes = "takes" if len(waiting) == 1 else "take"
        say(
            session,
            f"VM {changed.id} is {changed.status.state}: {', '.join(waiting)} {takes} effect at its"
            " next start",
        )


@vm_group.command("clone")
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


@vm_group.command("stop")
@click.argument("vm_id", type=NAME)
@click.option("--force", is_flag=True, help="At once, as by pulling its plug.")
@click.option(
    "--within",
    "timeout_s",
    type=click.FloatRange(1, 3600),
    default=120.0,
    show_default=True,
    help="Seconds that the guest has to shut down.",
)
@wait_option
@pass_session
def stop_vm(session: Session, vm_id: str, force: bool, timeout_s: float, wait: bool) -> None:
    """Ask the guest to shut down, or stop it by --force.

    A guest that is still booting does not notice its power button: it is pressed again every 10
    seconds until the guest ends or the time is over.
    """
    with session.mica() as mica:
        if force:
            operation = mica.power_off_vm(vm_id)
        else:
            operation = mica.shut_down_vm(vm_id, timeout_s=timeout_s)
        session.finish(mica, operation, wait=wait, done=f"VM {vm_id} is stopped")


@vm_group.command("delete")
@click.argument("vm_id", type=NAME)
@click.option("--with-volumes", is_flag=True, help="And the volumes that it names.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@pass_session
def delete_vm(session: Session, vm_id: str, with_volumes: bool, yes: bool) -> None:
    """Delete a stopped virtual machine."""
    if with_volumes and not yes:
        confirm(f"delete VM {vm_id} and the data of its volumes?")
    with session.mica() as mica:
        mica.delete_vm(vm_id, with_volumes=with_volumes)
    say(session, f"VM {vm_id} is deleted")


def _show(session: Session, vm: Vm) -> None:
    show_object(
        session,
        vm,
        (
            ("id", lambda v: v.id),
            ("state", lambda v: v.status.state),
            ("reason", lambda v: v.status.reason),
            ("guest", _guest),
            ("addresses", _addresses),
            ("cpus", lambda v: f"{v.spec.cpus.count} ({v.spec.cpus.model})"),
            ("memory", lambda v: bytes_text(v.spec.memory_bytes)),
            ("firmware", lambda v: v.spec.firmware),
            ("accelerator", lambda v: v.status.accelerator),
            ("started", lambda v: v.status.started_at),
            ("machine", lambda v: v.status.machine_type),
            ("uuid", lambda v: v.status.uuid),
            ("disks", lambda v: [f"{d.key} {d.volume} ({d.bus})" for d in v.spec.disks]),
            ("cdroms", lambda v: [f"{c.key} {c.image or 'empty'}" for c in v.spec.cdroms]),
            ("nics", lambda v: [f"{n.key} {n.port_group} {n.mac}" for n in v.spec.nics]),
            ("unplugging", lambda v: v.status.unplugging),
            ("boot", lambda v: v.spec.boot.kernel and f"kernel {v.spec.boot.kernel.kernel}"),
            ("datastore", lambda v: v.spec.datastore),
            *((name, lambda _, text=text: text) for name, text in life_lines(vm)),
            ("revision", lambda v: v.revision),
        ),
    )


def _guest(vm: Vm) -> str | None:
    agent = vm.status.agent
    if agent is None:
        return None
    if not agent.connected or agent.system is None:
        return agent.reason or "its agent tells nothing"
    kernel = f", kernel {agent.system.kernel}" if agent.system.kernel else ""
    held = ", its file systems are frozen" if agent.frozen else ""
    system = f"{agent.system.name} {agent.system.version}".strip()
    return f"{agent.hostname or '?'}: {system}{kernel}; agent {agent.version or '?'}{held}"


def _addresses(vm: Vm) -> list[str]:
    agent = vm.status.agent
    cards = agent.interfaces if agent else ()
    return [address for card in cards if card.name != "lo" for address in card.addresses]


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
