"""Snapshots of virtual machines."""

from __future__ import annotations

import click

from remote_api.client.cli.parameters import NAME
from remote_api.client.cli.session import (
    Session,
    bytes_text,
    confirm,
    pass_session,
    show_object,
    show_rows,
    wait_option,
)
from vmkernel.model import Snapshot, SnapshotSpec

__all__ = ["COMMANDS"]


@click.group("snapshot")
def snapshot_group() -> None:
    """Snapshots of virtual machines."""


@snapshot_group.command("list")
@click.argument("vm_id", type=NAME)
@pass_session
def list_snapshots(session: Session, vm_id: str) -> None:
    """List the snapshots of a virtual machine, as a tree; `*` is where it stands."""
    with session.mica() as mica:
        rows = _tree(list(mica.snapshots(vm_id)))
        show_rows(
            session,
            [snapshot for _, snapshot in rows] if session.json else rows,
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


@snapshot_group.command("show")
@click.argument("vm_id", type=NAME)
@click.argument("snapshot", type=NAME)
@pass_session
def show_snapshot(session: Session, vm_id: str, snapshot: str) -> None:
    """Show a snapshot."""
    with session.mica() as mica:
        show_object(
            session,
            mica.snapshot(vm_id, snapshot),
            (
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
            ),
        )


@snapshot_group.command("create")
@click.argument("vm_id", type=NAME)
@click.argument("snapshot", type=NAME)
@click.option("--memory", is_flag=True, help="With the memory of the running guest.")
@click.option(
    "--quiesce",
    is_flag=True,
    help="Let the guest agent hold the file systems still; fails without an agent.",
)
@click.option(
    "--quiesce-if-possible",
    is_flag=True,
    help="As --quiesce, but without an agent it is taken all the same.",
)
@click.option("--description", default="")
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
    """Take a snapshot of a virtual machine as it stands now."""
    if quiesce and quiesce_if_possible:
        raise click.UsageError("--quiesce and --quiesce-if-possible exclude each other")
    spec = SnapshotSpec(
        description=description,
        memory=memory,
        quiesce=quiesce or quiesce_if_possible,
        best_effort=quiesce_if_possible,
    )
    with session.mica() as mica:
        operation = mica.create_snapshot(vm_id, snapshot, spec)
        session.finish(mica, operation, wait=wait, done=f"snapshot {snapshot} is taken")


@snapshot_group.command("revert")
@click.argument("vm_id", type=NAME)
@click.argument("snapshot", type=NAME)
@click.option("--start/--no-start", "start", default=None, help="Whether it runs afterwards.")
@click.option("--yes", is_flag=True, help="Don't ask.")
@wait_option
@pass_session
def revert(
    session: Session, vm_id: str, snapshot: str, start: bool | None, yes: bool, wait: bool
) -> None:
    """Go back to a snapshot; what came after it and is in no other is lost."""
    if not yes:
        confirm(f"let VM {vm_id} go back to {snapshot}?")
    with session.mica() as mica:
        operation = mica.revert_to_snapshot(vm_id, snapshot, start=start)
        session.finish(mica, operation, wait=wait, done=f"VM {vm_id} went back to {snapshot}")


@snapshot_group.command("delete")
@click.argument("vm_id", type=NAME)
@click.argument("snapshot", type=NAME)
@wait_option
@pass_session
def delete_snapshot(session: Session, vm_id: str, snapshot: str, wait: bool) -> None:
    """Delete a snapshot; those taken after it stay."""
    with session.mica() as mica:
        operation = mica.delete_snapshot(vm_id, snapshot)
        session.finish(mica, operation, wait=wait, done=f"snapshot {snapshot} is deleted")


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


COMMANDS = (snapshot_group,)
