"""`mica vm stats`."""

from __future__ import annotations

from typing import Any

import click

from remote_api.client.cli.rates import VmRates, vm_rates
from remote_api.client.cli.readings import bytes_or_none, interval_option, repeat, watch_option
from remote_api.client.cli.session import Session, bytes_text, pass_session, show_object
from remote_api.client.cli.verbs import vm_argument
from vmkernel.model import VmStatistics

__all__ = ["COMMANDS"]


@click.command("stats")
@vm_argument
@watch_option
@interval_option
@pass_session
def vm_stats(session: Session, vm_id: str, watch: bool, interval_s: float) -> None:
    """Show a VM's resource usage.

    Rates are those between two readings.
    """
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

        repeat(once, interval_s, watch=watch)


def _show_vm(session: Session, now: VmStatistics, rates: VmRates | None) -> None:
    if session.json:
        show_object(session, now)
        return
    memory, guest = now.memory, now.memory.guest
    lines: list[tuple[str, object]] = [
        ("state", now.state),
        ("cpu", rates and f"{rates.cpu:.0%} of one CPU, waiting {rates.waiting:.0%}"),
        ("vcpus", [f"{v.index}: {v.seconds:.1f} s" for v in now.vcpus]),
        (
            "memory",
            f"{bytes_text(memory.assigned_bytes)} assigned,"
            f" {bytes_text(memory.resident_bytes)} resident",
        ),
        ("balloon", bytes_or_none(memory.balloon_bytes)),
        ("guest's memory", guest and f"{bytes_or_none(guest.available_bytes)} available"),
    ]
    for name in ("read", "write"):
        flow = getattr(rates, name) if rates else None
        if flow is not None:
            latency = "" if flow.latency_s is None else f", {flow.latency_s * 1e3:.2f} ms each"
            text = f"{bytes_or_none(flow.bytes_s)}/s, {flow.operations_s:.0f} operations/s{latency}"
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
        (
            nic.key,
            f"{bytes_or_none(nic.received_bytes)} received, {bytes_or_none(nic.sent_bytes)} sent",
        )
        for nic in now.nics
        if nic.received_bytes is not None
    ]
    if not now.complete:
        lines.append(("incomplete", "QEMU did not answer in time"))
    show_object(session, now, [(name, lambda _, value=value: value) for name, value in lines])  # type: ignore[misc]


def _failed(disk: Any) -> bool:
    return bool(disk.read.failed or disk.write.failed)


COMMANDS = (vm_stats,)
