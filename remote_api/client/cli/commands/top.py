"""`mica top`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from remote_api.client.cli.rates import VmRates, vm_rates
from remote_api.client.cli.readings import bytes_or_none, interval_option, repeat, watch_option
from remote_api.client.cli.session import Session, bytes_text, pass_session, show_rows
from remote_api.client.sdk import Mica
from vmkernel.model import VmState, VmStatistics

__all__ = ["COMMANDS"]

_RUNNING = frozenset({VmState.RUNNING, VmState.PAUSED, VmState.STOPPING})


Row = tuple[VmStatistics, VmRates | None]


@click.command("top")
@watch_option
@interval_option
@pass_session
def top(session: Session, watch: bool, interval_s: float) -> None:
    """Show the resource usage of running VMs, busiest first."""
    with session.mica() as mica:
        before = _readings(mica)

        def once() -> None:
            nonlocal before
            now = _readings(mica)
            rows: list[Row] = [
                (figures, vm_rates(before.get(vm_id, figures), figures))
                for vm_id, figures in now.items()
            ]
            if session.json:
                show_rows(session, now.values(), ())
            else:
                _show_top(session, rows)
            before = now

        repeat(once, interval_s, watch=watch)


def _readings(mica: Mica) -> dict[str, VmStatistics]:
    running = [vm.id for vm in mica.vms() if vm.status.state in _RUNNING]
    return {vm_id: mica.vm_statistics(vm_id) for vm_id in running}


def _show_top(session: Session, rows: list[Row]) -> None:
    rows.sort(key=lambda row: row[1].cpu if row[1] else 0.0, reverse=True)

    def rate(value: Callable[[VmRates], Any]) -> Callable[[Row], Any]:
        return lambda row: None if row[1] is None else value(row[1])

    show_rows(
        session,
        rows,
        (
            ("ID", lambda row: row[0].id),
            ("STATE", lambda row: row[0].state),
            ("CPU", rate(lambda r: f"{r.cpu:.0%}")),
            ("WAIT", rate(lambda r: f"{r.waiting:.0%}")),
            ("RESIDENT", lambda row: bytes_text(row[0].memory.resident_bytes)),
            ("READ/S", rate(lambda r: bytes_text(round(r.read.bytes_s)))),
            ("WRITE/S", rate(lambda r: bytes_text(round(r.write.bytes_s)))),
            ("RECEIVED/S", rate(lambda r: bytes_or_none(r.received_bytes_s))),
            ("SENT/S", rate(lambda r: bytes_or_none(r.sent_bytes_s))),
        ),
    )


COMMANDS = (top,)
