"""Snapshots of virtual machines."""

from __future__ import annotations

import click

from remote_api.client.cli.output import Columns
from remote_api.client.cli.parameters import NAME
from remote_api.client.cli.selection import started_for_each
from remote_api.client.cli.session import (
    Session,
    bytes_text,
    confirm,
    pass_session,
    show_rows,
    wait_option,
)
from remote_api.client.cli.verbs import layout_options, show_command, vm_argument, yes_option
from vmkernel.model import Snapshot, SnapshotSpec

__all__ = ["COMMANDS"]


_snapshot = click.argument("snapshot", type=NAME, metavar="SNAPSHOT")


@click.group("snapshot")
def snapshot_group() -> None:
    """Manage snapshots of VMs."""


@snapshot_group.command("list")
@layout_options
@vm_argument
@pass_session
def list_snapshots(session: Session, vm_id: str) -> None:
    """List a VM's snapshots as a tree; `*` is the current one."""
    with session.mica() as mica:
        rows = _tree(list(mica.snapshots(vm_id)))
        show_rows(
            session,
            [snapshot for _, snapshot in rows] if session.json or session.names else rows,
            (
                ("SNAPSHOT", lambda r: f"{'  ' * r[0]}{r[1].id}{' *' * r[1].status.current}"),
                ("CREATED", lambda r: r[1].created_at),
                ("STATE", lambda r: r[1].status.state),
                (
                    "MEMORY",
                    lambda r: bytes_text(r[1].status.memory_bytes) if r[1].spec.memory else "",
                ),
                ("DISKS", lambda r: len(r[1].status.disks)),
                ("DESCRIPTION", lambda r: r[1].spec.description),
            ),
        )


@snapshot_group.command("create")
@vm_argument
@_snapshot
@click.option("--memory", is_flag=True, help="Include the memory of the running guest.")
@click.option(
    "--quiesce",
    is_flag=True,
    help="Freeze the guest's file systems through the guest agent; fail without an agent.",
)
@click.option(
    "--quiesce-if-possible",
    is_flag=True,
    help="Like --quiesce, but take the snapshot also without an agent.",
)
@click.option("--description", default="", help="Free text to keep with the snapshot.")
@wait_option
@pass_session
def create_snapshot(
    session: Session,
    vm_id: str,
    snapshot: str,
    memory: bool,
    quiesce: bool,
    quiesce_if_possible: bool,
    description: str,
    wait: bool,
) -> None:
    """Take a snapshot of a VM. It may be running."""
    if quiesce and quiesce_if_possible:
        raise click.UsageError("--quiesce and --quiesce-if-possible are mutually exclusive")
    spec = SnapshotSpec(
        description=description,
        memory=memory,
        quiesce=quiesce or quiesce_if_possible,
        best_effort=quiesce_if_possible,
    )
    with session.mica() as mica:
        operation = mica.create_snapshot(vm_id, snapshot, spec)
        session.finish(
            mica, operation, wait=wait, done=f"snapshot {snapshot} of VM {vm_id} created"
        )


@snapshot_group.command("revert")
@vm_argument
@_snapshot
@click.option(
    "--start/--no-start",
    "start",
    default=None,
    help="Whether the VM runs afterwards (default: as before, or if its memory is restored).",
)
@yes_option
@wait_option
@pass_session
def revert(
    session: Session, vm_id: str, snapshot: str, start: bool | None, yes: bool, wait: bool
) -> None:
    """Revert a VM to a snapshot. Changes that are in no other snapshot are lost."""
    if not yes:
        confirm(f"Revert VM {vm_id} to snapshot {snapshot}? Later changes are lost.")
    with session.mica() as mica:
        operation = mica.revert_to_snapshot(vm_id, snapshot, start=start)
        session.finish(
            mica, operation, wait=wait, done=f"VM {vm_id} reverted to snapshot {snapshot}"
        )


@snapshot_group.command("delete")
@vm_argument
@click.argument("names", type=NAME, nargs=-1, required=True, metavar="SNAPSHOT...")
@yes_option
@wait_option
@pass_session
def delete_snapshot(
    session: Session, vm_id: str, names: tuple[str, ...], yes: bool, wait: bool
) -> int:
    """Delete snapshots. Later snapshots and the VM keep their data."""
    if not yes:
        shown = ", ".join(names)
        confirm(f"Delete snapshot {shown} of VM {vm_id}? Later ones and the VM keep their data.")
    with session.mica() as mica:
        return started_for_each(
            session,
            mica,
            "snapshot",
            names,
            lambda of, snapshot: of.delete_snapshot(vm_id, snapshot),
            wait=wait,
            done=f"snapshot {{id}} of VM {vm_id} deleted",
        )


def _asked(spec: SnapshotSpec) -> str | None:
    if not spec.quiesce:
        return None
    return "if possible" if spec.best_effort else "required"


def _tree(snapshots: list[Snapshot]) -> list[tuple[int, Snapshot]]:
    """Parents before their children, each with its depth."""
    known = {snapshot.id for snapshot in snapshots}
    children: dict[str | None, list[Snapshot]] = {}
    for snapshot in sorted(snapshots, key=lambda s: (s.created_at, s.id)):
        parent = snapshot.status.parent
        children.setdefault(parent if parent in known else None, []).append(snapshot)
    rows: list[tuple[int, Snapshot]] = []

    def walk(parent: str | None, depth: int) -> None:
        for snapshot in children.get(parent, ()):
            rows.append((depth, snapshot))
            walk(snapshot.id, depth + 1)

    walk(None, 0)
    return rows


_LINES: Columns = (
    ("id", lambda s: s.id),
    ("created", lambda s: s.created_at),
    ("description", lambda s: s.spec.description),
    ("state", lambda s: s.status.state),
    ("parent", lambda s: s.status.parent),
    ("current", lambda s: s.status.current),
    ("machine", lambda s: s.status.machine_type),
    ("memory", lambda s: bytes_text(s.status.memory_bytes) if s.spec.memory else None),
    ("quiesce", lambda s: _asked(s.spec)),
    ("quiesced", lambda s: s.status.quiesced or s.status.reason),
    ("disks", lambda s: list(s.status.disks)),
)
snapshot_group.add_command(
    show_command(
        lambda mica, vm_id, snapshot: mica.snapshot(vm_id, snapshot),
        _LINES,
        text="Show a snapshot.",
        parameters=(vm_argument, _snapshot),
    )
)

COMMANDS = (snapshot_group,)
