"""`mica vm list` and `mica vm show`."""

from __future__ import annotations

import click

from remote_api.client.cli.parameters import NAME
from remote_api.client.cli.session import (
    Session,
    bytes_text,
    pass_session,
    show_object,
    show_rows,
)
from vmkernel.model import (
    RestartStatus,
    SecureBootStatus,
    Vm,
    WaitFor,
)

__all__ = ["COMMANDS", "life_lines", "show_one"]


@click.command("list")
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


@click.command("show")
@click.argument("vm_id", type=NAME)
@pass_session
def show_vm(session: Session, vm_id: str) -> None:
    """Show a virtual machine."""
    with session.mica() as mica:
        show_one(session, mica.vm(vm_id))


def show_one(session: Session, vm: Vm) -> None:
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


def life_lines(vm: Vm) -> tuple[tuple[str, str], ...]:
    """What `mica vm show` says of these things."""
    spec, status = vm.spec, vm.status
    lines = []
    if status.memory_image is not None:
        image = status.memory_image
        lines.append(("memory image", f"{image.size_bytes >> 20} MiB of {image.taken_at}"))
    if status.secure_boot is not None:
        lines.append(("secure boot", _secure_boot(status.secure_boot)))
    if spec.autostart.enabled:
        text = f"order {spec.autostart.order}"
        if spec.autostart.delay_s:
            text += f", the next {spec.autostart.delay_s:g} s later"
        if spec.autostart.wait_for is not WaitFor.NONE:
            text += f" or once its {spec.autostart.wait_for} answers"
        lines.append(("autostart", text))
    lines.append(("ends by", f"{spec.stop.action} within {spec.stop.timeout_s:g} s"))
    lines.append(("restart", spec.restart.policy.value + _attempts(status.restart)))
    return tuple(lines)


def _secure_boot(status: SecureBootStatus) -> str:
    if status.error is not None:
        return f"keys unknown: {status.error}"
    text = "all certificates"
    if status.missing:
        text = f"lacks {', '.join(status.missing)} (mica vm update-secure-boot)"
    return f"{text}; {status.revoked or 0} revoked"


def _attempts(status: RestartStatus | None) -> str:
    if status is None:
        return ""
    due = f", the next at {status.next_at}" if status.next_at else ""
    return f" ({status.attempts} in a row{due})"


COMMANDS = (list_vms, show_vm)
