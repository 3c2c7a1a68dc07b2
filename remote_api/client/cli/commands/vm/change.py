"""Changing and deleting virtual machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from remote_api.client.cli.commands.vm.view import show_one
from remote_api.client.cli.parameters import NAME
from remote_api.client.cli.selection import (
    Selected,
    for_each,
    named_or_chosen,
    named_vms,
    selecting_options,
)
from remote_api.client.cli.session import (
    Session,
    confirm,
    pass_session,
    say,
)
from remote_api.client.cli.spec_paths import patch_of, spec_as_json, waiting_for_start
from remote_api.client.cli.verbs import vm_argument, yes_option
from remote_api.client.sdk import Mica
from vmkernel.model import (
    Vm,
    VmState,
)

__all__ = ["COMMANDS"]


@click.command("set")
@vm_argument
@click.argument("settings", nargs=-1, required=True, metavar="PATH=VALUE...")
@pass_session
def set_vm(session: Session, vm_id: str, settings: tuple[str, ...]) -> None:
    """Set fields of a VM's spec.

    Examples: cpus.count=4 memory_bytes=2G firmware=uefi-secure-boot tpm=true
    nics.nic0.connected=false disks.disk0.limits.iops.per_s=500 boot.order='["cdrom","disk"]'. An
    empty value resets the field to its default. If another client changes the VM at the same time,
    nothing is set.
    """
    with session.mica() as mica:
        vm = mica.vm(vm_id)
        patch = patch_of(spec_as_json(vm.spec), settings)
        changed = mica.patch_vm(vm_id, patch, revision=vm.revision) if patch else vm
        show_one(session, changed)
        _say_what_waits(session, vm, changed)


@click.command("patch")
@vm_argument
@click.argument("patch")
@pass_session
def patch_vm(session: Session, vm_id: str, patch: str) -> None:
    """Merge PATCH (JSON, or @FILE) into a VM's spec."""
    try:
        raw = Path(patch[1:]).read_bytes() if patch.startswith("@") else patch.encode()
        change = msgspec.json.decode(raw, type=dict[str, Any])
    except (OSError, msgspec.DecodeError) as error:
        raise click.UsageError(f"the patch can't be read: {error}") from error
    with session.mica() as mica:
        before = mica.vm(vm_id)
        changed = mica.patch_vm(vm_id, change)
        show_one(session, changed)
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


@click.command("delete")
@click.argument("names", type=NAME, nargs=-1, metavar="VM...")
@selecting_options
@click.option("--with-volumes", is_flag=True, help="Also delete the VM's volumes and their data.")
@yes_option
@pass_session
def delete_vm(
    session: Session,
    names: tuple[str, ...],
    every: bool,
    labels: tuple[str, ...],
    with_volumes: bool,
    yes: bool,
) -> int:
    """Delete stopped VMs. Their volumes are kept unless --with-volumes is given."""
    selected = Selected(names=names, every=every, labels=labels)
    with session.mica() as mica:
        found = named_vms(mica, selected, _is_off)
        if not found:
            say(session, named_or_chosen(selected))
            return 0
        if not yes:
            confirm(_question(mica, found, with_volumes))

        def delete(vm_id: str) -> None:
            mica.delete_vm(vm_id, with_volumes=with_volumes)
            say(session, f"VM {vm_id} deleted")

        return for_each("vm", found, delete)


def _is_off(vm: Vm) -> bool:
    return vm.status.state in (VmState.STOPPED, VmState.CRASHED)


def _question(mica: Mica, names: tuple[str, ...], with_volumes: bool) -> str:
    """What is lost, and what stays."""
    volumes = [disk.volume for name in names for disk in mica.vm(name).spec.disks]
    shown = f"Delete VM{'s' * (len(names) > 1)} {', '.join(names)}"
    if not volumes:
        return f"{shown}?"
    named = f"{'volume' if len(volumes) == 1 else 'volumes'} {', '.join(volumes)}"
    if with_volumes:
        return f"{shown} and all data of {named}?"
    return f"{shown}? The data of {named} is kept."


COMMANDS = (set_vm, patch_vm, delete_vm)
