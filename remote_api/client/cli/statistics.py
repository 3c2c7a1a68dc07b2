"""What virtual machines and the host use."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import click

from remote_api.client.cli import output
from remote_api.client.cli.common import Session, bytes_text, pass_session, show_object, show_rows
from remote_api.client.cli.parameters import NAME
from remote_api.client.rates import VmRates, host_rates, vm_rates
from remote_api.client.sdk import Mica
from vmkernel.model import HostStatistics, VmState, VmStatistics

__all__ = ["host_stats", "top", "vm_stats"]

_RUNNING = frozenset({VmState.RUNNING, VmState.PAUSED, VmState.STOPPING})
_interval = click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(0.5, 3600),
    default=2.0,
    show_default=True,
    help="Seconds between two readings.",
)
_watch = click.option("--watch", is_flag=True, help="Go on until Ctrl-C.")

Row = tuple[VmStatistics, VmRates | None]


@click.command("stats")
@click.argument("vm_id", type=NAME)
@_watch
@_interval
@pass_session
def vm_stats(session: Session, vm_id: str, watch: bool, interval_s: float) -> None:
    """Show what a virtual machine uses; rates are of the time between two readings."""
    with session.mica() as mica:
        if session.json and not watch:
            show_object(session, mica.vm_statistics(vm_id))
            return
        before = mica.vm_statistics(vm_id)

        def once() -> None:
            nonlocal before
            now = mica.vm_statistics(vm_id)
            _show_vm(session, now, vm_rates(before, now))
            before = now

        _repeat(once, interval_s, watch=watch)


@click.command("stats")
@_watch
@_interval
@pass_session
def host_stats(session: Session, watch: bool, interval_s: float) -> None:
    """Show what the host uses; rates are of the time between two readings."""
    with session.mica() as mica:
        if session.json and not watch:
            show_object(session, mica.host_statistics())
            return
        before = mica.host_statistics()

        def once() -> None:
            nonlocal before
            now = mica.host_statistics()
            _show_host(session, before, now)
            before = now

        _repeat(once, interval_s, watch=watch)


@click.command("top")
@_watch
@_interval
@pass_session
def top(session: Session, watch: bool, interval_s: float) -> None:
    """Show the virtual machines that run, those that use most of the processors first."""
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

        _repeat(once, interval_s, watch=watch)


def _readings(mica: Mica) -> dict[str, VmStatistics]:
    running = [vm.id for vm in mica.vms() if vm.status.state in _RUNNING]
    return {vm_id: mica.vm_statistics(vm_id) for vm_id in running}


def _repeat(once: Callable[[], None], interval_s: float, *, watch: bool) -> None:
    try:
        while True:
            time.sleep(interval_s)
            if watch:
                output.clear_screen()
            once()
            if not watch:
                return
    except KeyboardInterrupt:
        return


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
            ("RECEIVED/S", rate(lambda r: _bytes(r.received_bytes_s))),
            ("SENT/S", rate(lambda r: _bytes(r.sent_bytes_s))),
        ),
    )


def _show_vm(session: Session, now: VmStatistics, rates: VmRates | None) -> None:
    if session.json:
        show_object(session, now)
        return
    memory, guest = now.memory, now.memory.guest
    lines: list[tuple[str, object]] = [
        ("state", now.state),
        ("cpu", rates and f"{rates.cpu:.0%} of a processor, waiting {rates.waiting:.0%}"),
        ("vcpus", [f"{v.index}: {v.seconds:.1f} s" for v in now.vcpus]),
        (
            "memory",
            f"{bytes_text(memory.assigned_bytes)} assigned,"
            f" {bytes_text(memory.resident_bytes)} resident",
        ),
        ("balloon", _bytes(memory.balloon_bytes)),
        ("guest's memory", guest and f"{_bytes(guest.available_bytes)} available"),
    ]
    for name in ("read", "write"):
        flow = getattr(rates, name) if rates else None
        if flow is not None:
            latency = "" if flow.latency_s is None else f", {flow.latency_s * 1e3:.2f} ms each"
            text = f"{_bytes(flow.bytes_s)}/s, {flow.operations_s:.0f} operations/s{latency}"
            lines.append((f"disks {name}", text))
    lines += [
        (
            disk.key,
            f"{bytes_text(disk.read.bytes)} read, {bytes_text(disk.write.bytes)} written"
            + (f", {disk.read.failed + disk.write.failed} failed" if _failed(disk) else ""),
        )
        for disk in now.disks
    ]
    lines += [
        (nic.key, f"{_bytes(nic.received_bytes)} received, {_bytes(nic.sent_bytes)} sent")
        for nic in now.nics
        if nic.received_bytes is not None
    ]
    if not now.complete:
        lines.append(("incomplete", "its QEMU did not answer in time"))
    show_object(session, now, [(name, lambda _, value=value: value) for name, value in lines])  # type: ignore[misc]


def _show_host(session: Session, before: HostStatistics, now: HostStatistics) -> None:
    rates = host_rates(before, now)
    show_object(
        session,
        now,
        (
            ("cpu", lambda h: rates and f"{rates.cpu:.2f} of {len(h.cpus)} processors"),
            (
                "memory",
                lambda h: (
                    f"{bytes_text(h.memory_available_bytes)} available of"
                    f" {bytes_text(h.memory_total_bytes)},"
                    f" {bytes_text(h.memory_promised_bytes)} promised to VMs"
                ),
            ),
            (
                "disks",
                lambda _: (
                    rates
                    and f"{_bytes(rates.read_bytes_s)}/s read,"
                    f" {_bytes(rates.write_bytes_s)}/s written"
                ),
            ),
            (
                "network",
                lambda _: (
                    rates
                    and f"{_bytes(rates.received_bytes_s)}/s received,"
                    f" {_bytes(rates.sent_bytes_s)}/s sent"
                ),
            ),
            (
                "datastores",
                lambda h: [f"{d.id}: {bytes_text(d.free_bytes)} free" for d in h.datastores],
            ),
            ("vmkernel", lambda h: bytes_text(h.vmkernel_resident_bytes)),
        ),
    )


def _failed(disk: Any) -> bool:
    return bool(disk.read.failed or disk.write.failed)


def _bytes(count: float | None) -> str | None:
    return None if count is None else bytes_text(round(count))
