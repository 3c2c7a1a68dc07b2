"""The `mica host` commands."""

from __future__ import annotations

import click

from remote_api.client.cli import output
from remote_api.client.cli.list_options import given_query, list_options
from remote_api.client.cli.output import Columns
from remote_api.client.cli.parameters import choice_of
from remote_api.client.cli.rates import host_rates
from remote_api.client.cli.readings import bytes_or_none, interval_option, repeat, watch_option
from remote_api.client.cli.security_text import security_text
from remote_api.client.cli.session import (
    Session,
    bytes_text,
    confirm,
    pass_session,
    say,
    show_object,
    wait_option,
)
from remote_api.client.cli.verbs import list_command, yes_option
from vmkernel.model import (
    DEVICE_LISTING,
    CpuInfo,
    Finding,
    HostStatistics,
    LinkInfo,
    PowerAction,
    StickInfo,
    VirtualisationInfo,
)

__all__ = ["COMMANDS"]


@click.group("host", invoke_without_command=True)
@click.pass_context
def host_group(context: click.Context) -> None:
    """Show and manage the host: devices, certificate, power."""
    if context.invoked_subcommand is None:
        context.invoke(show_host)


@host_group.command("show")
@pass_session
def show_host(session: Session) -> None:
    """Show the host's hardware, security and findings."""
    with session.mica() as mica:
        host = mica.host()
    show_object(
        session,
        host,
        (
            ("hostname", lambda h: h.status.hostname),
            ("version", lambda h: f"{h.status.version} ({h.status.mode})"),
            ("cpu", lambda h: _processors(h.status.cpu)),
            (
                "memory",
                lambda h: (
                    f"{bytes_text(h.status.memory.available_bytes)} free of "
                    f"{bytes_text(h.status.memory.total_bytes)}"
                ),
            ),
            ("accelerator", lambda h: _accelerator(h.status.virtualisation)),
            ("kernel", lambda h: f"{h.status.boot.kernel} ({h.status.boot.firmware})"),
            ("booted", lambda h: h.status.boot.booted_at),
            ("boot bank", lambda h: h.status.boot.bank),
            ("security", lambda h: security_text(h.status.security)),
            ("stick", lambda h: _stick(h.status.stick)),
            ("stick writes", lambda h: bytes_text(h.status.stick.written_bytes)),
            ("links", lambda h: [_link(link) for link in h.status.links]),
            ("fingerprint", lambda h: h.status.tls_fingerprint_sha256),
            ("programs", lambda h: [f"{p.name} {p.version}" for p in h.status.programs]),
            (
                "findings",
                lambda h: [_finding(f) for f in h.status.findings] or "none",
            ),
            ("uuid", lambda h: h.status.uuid),
        ),
    )


def _processors(cpu: CpuInfo) -> str:
    return (
        f"{cpu.vendor} {cpu.model}, {cpu.sockets} sockets, {cpu.cores} cores, {cpu.threads} threads"
    )


def _accelerator(info: VirtualisationInfo) -> str:
    why = f"; {info.reason}" if info.reason else ""
    extension = info.extension or "no extension"
    return f"{info.accelerator} ({extension}{'' if info.available else ', not usable'}{why})"


def _stick(stick: StickInfo) -> str:
    if not stick.present:
        return "none"
    what = " ".join(text for text in (stick.device, stick.model, stick.serial) if text)
    return what + (f", {bytes_text(stick.size_bytes)}" if stick.size_bytes else "")


def _link(link: LinkInfo) -> str:
    state = "up" if link.up and link.carrier else "no carrier" if link.up else "down"
    of = f" of {link.master}" if link.master else ""
    return " ".join([f"{link.name}{of} {state}", link.mac or "", *link.addresses]).strip()


def _finding(finding: Finding) -> str:
    about = f" ({finding.subject})" if finding.subject else ""
    return f"{finding.severity} {finding.code}{about}: {finding.message}"


_DEVICE_COLUMNS: Columns = (
    ("BUS", lambda d: d.bus),
    ("ADDRESS", lambda d: d.address),
    ("ID", lambda d: f"{d.vendor_id}:{d.product_id}"),
    ("NAME", lambda d: d.name),
    ("DRIVER", lambda d: d.driver),
    ("BUNDLE", lambda d: d.bundle),
    ("FINDING", lambda d: d.finding and d.finding.message),
)
host_group.add_command(
    list_command(
        lambda mica, **given: mica.devices(**given_query(given)),
        _DEVICE_COLUMNS,
        name="devices",
        text="List PCI and USB devices.",
        parameters=list_options(DEVICE_LISTING),
    )
)


@host_group.command("rotate-certificate")
@yes_option
@pass_session
def rotate_certificate(session: Session, yes: bool) -> None:
    """Replace the TLS key and certificate of the host's API.

    The new fingerprint is pinned in this context and shown on the host's screen. Other clients
    must pin it as well. Open consoles and event streams are closed.
    """
    if not yes:
        confirm("Replace the certificate? Every other client must pin the new fingerprint.")
    with session.mica() as mica:
        certificate = mica.rotate_certificate()
        shown = certificate.fingerprint_sha256
        if session.from_environment:
            say(session, "set MICA_FINGERPRINT to the new fingerprint")
        else:
            name = session.store.repin(session.host_name, shown)
            say(session, f"new fingerprint pinned in context {name} ({session.store.path})")
        mica.whoami()  # proves that the host presents the new certificate
    if session.json:
        show_object(session, certificate)
    else:
        output.print_line(shown)


_POWER_TEXT = {PowerAction.SHUTDOWN: "Shut down", PowerAction.REBOOT: "Reboot"}


@host_group.command("power")
@click.argument("action", type=choice_of(PowerAction))
@yes_option
@wait_option
@pass_session
def host_power(session: Session, action: str, yes: bool, wait: bool) -> None:
    """Shut down or reboot the host, after its guests."""
    if not yes:
        confirm(f"{_POWER_TEXT[PowerAction(action)]} the host and stop all its guests?")
    with session.mica() as mica:
        operation = mica.power(PowerAction(action))
        session.finish(mica, operation, wait=wait, done=f"host {action} started")


@host_group.command("stats")
@watch_option
@interval_option
@pass_session
def host_stats(session: Session, watch: bool, interval_s: float) -> None:
    """Show the host's resource usage.

    Rates are those between two readings.
    """
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

        repeat(once, interval_s, watch=watch)


def _show_host(session: Session, before: HostStatistics, now: HostStatistics) -> None:
    rates = host_rates(before, now)
    show_object(
        session,
        now,
        (
            ("cpu", lambda h: rates and f"{rates.cpu:.2f} of {len(h.cpus)} CPUs"),
            (
                "memory",
                lambda h: (
                    f"{bytes_text(h.memory_available_bytes)} available of"
                    f" {bytes_text(h.memory_total_bytes)},"
                    f" {bytes_text(h.memory_promised_bytes)} reserved for VMs"
                ),
            ),
            (
                "disks",
                lambda _: (
                    rates
                    and f"{bytes_or_none(rates.read_bytes_s)}/s read,"
                    f" {bytes_or_none(rates.write_bytes_s)}/s written"
                ),
            ),
            (
                "network",
                lambda _: (
                    rates
                    and f"{bytes_or_none(rates.received_bytes_s)}/s received,"
                    f" {bytes_or_none(rates.sent_bytes_s)}/s sent"
                ),
            ),
            (
                "datastores",
                lambda h: [f"{d.id}: {bytes_text(d.free_bytes)} free" for d in h.datastores],
            ),
            ("vmkernel", lambda h: bytes_text(h.vmkernel_resident_bytes)),
        ),
    )


COMMANDS = (host_group,)
