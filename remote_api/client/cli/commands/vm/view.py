"""`mica vm list` and `mica vm show`."""

from __future__ import annotations

from datetime import UTC, datetime

from remote_api.client.cli.list_options import given_query, list_options
from remote_api.client.cli.output import Columns, listed
from remote_api.client.cli.session import (
    Session,
    bytes_text,
    show_object,
)
from remote_api.client.cli.verbs import list_command, show_command, vm_argument
from vmkernel.model import (
    VM_LISTING,
    CloudInitSpec,
    RestartStatus,
    SecureBootStatus,
    Vm,
    VmState,
    WaitFor,
)

__all__ = ["COMMANDS", "life_lines", "show_one"]


def show_one(session: Session, vm: Vm) -> None:
    """Show a VM."""
    show_object(session, vm, _all_lines(vm))


def _all_lines(vm: Vm) -> Columns:
    life = ((name, lambda _, text=text: text) for name, text in life_lines(vm))
    return (*_LINES, *life, _REVISION)


def _uptime(vm: Vm) -> str | None:
    if vm.status.started_at is None or vm.status.state is VmState.STOPPED:
        return None
    since = datetime.fromisoformat(vm.status.started_at)
    minutes = max(int((datetime.now(UTC) - since).total_seconds()), 0) // 60
    days, hours = minutes // 1440, minutes // 60 % 24
    return f"{days} d {hours} h" if days else f"{hours} h {minutes % 60} min"


def _guest(vm: Vm) -> str | None:
    agent = vm.status.agent
    if agent is None:
        return None
    if not agent.connected or agent.system is None:
        return agent.reason or "no guest agent"
    kernel = f", kernel {agent.system.kernel}" if agent.system.kernel else ""
    held = ", file systems frozen" if agent.frozen else ""
    system = f"{agent.system.name} {agent.system.version}".strip()
    return f"{agent.hostname or '?'}: {system}{kernel}; agent {agent.version or '?'}{held}"


def _addresses(vm: Vm) -> list[str]:
    agent = vm.status.agent
    nics = agent.interfaces if agent else ()
    return [address for nic in nics if nic.name != "lo" for address in nic.addresses]


def _cloud_init(spec: CloudInitSpec) -> str:
    """What it gives, without secrets."""
    given = [f"user {spec.user}"] if spec.user else []
    given += ["user data"] if spec.user_data else []
    return ", ".join([*given, f"{len(spec.ssh_keys)} SSH keys"])


def life_lines(vm: Vm) -> tuple[tuple[str, str], ...]:
    """The lines of `mica vm show` about start, stop and restart."""
    spec, status = vm.spec, vm.status
    lines = []
    if status.memory_image is not None:
        image = status.memory_image
        lines.append(("memory image", f"{image.size_bytes >> 20} MiB, {image.taken_at}"))
    if status.secure_boot is not None:
        lines.append(("secure boot", _secure_boot(status.secure_boot)))
    if spec.autostart.enabled:
        text = f"order {spec.autostart.order}"
        if spec.autostart.delay_s:
            text += f", the next VM {spec.autostart.delay_s:g} s later"
        if spec.autostart.wait_for is not WaitFor.NONE:
            text += f" or when the {spec.autostart.wait_for} answers"
        lines.append(("autostart", text))
    lines.append(("host shutdown", f"{spec.stop.action} within {spec.stop.timeout_s:g} s"))
    lines.append(("restart", spec.restart.policy.value + _attempts(status.restart)))
    return tuple(lines)


def _secure_boot(status: SecureBootStatus) -> str:
    if status.error is not None:
        return f"keys unknown: {status.error}"
    text = "all certificates"
    if status.missing:
        text = f"missing {', '.join(status.missing)}; run `mica vm update-secure-boot`"
    return f"{text}; {status.revoked or 0} revoked"


def _attempts(status: RestartStatus | None) -> str:
    if status is None:
        return ""
    due = f", next at {status.next_at}" if status.next_at else ""
    return f" ({status.attempts} in a row{due})"


_LINES: Columns = (
    ("id", lambda v: v.id),
    ("name", lambda v: v.spec.name),
    ("description", lambda v: v.spec.description),
    ("labels", lambda v: [f"{key}={value}" for key, value in v.spec.labels.items()]),
    ("template", lambda v: v.spec.template or None),
    ("state", lambda v: v.status.state),
    ("reason", lambda v: v.status.reason),
    ("guest", _guest),
    ("addresses", _addresses),
    ("cpus", lambda v: f"{v.spec.cpus.count} ({v.spec.cpus.model})"),
    ("memory", lambda v: bytes_text(v.spec.memory_bytes)),
    ("firmware", lambda v: v.spec.firmware),
    ("guest os", lambda v: v.spec.guest_os),
    ("tpm", lambda v: v.spec.tpm or None),
    ("watchdog", lambda v: v.spec.watchdog and f"{v.spec.watchdog.model} {v.spec.watchdog.action}"),
    ("display", lambda v: v.spec.display),
    ("cloud-init", lambda v: _cloud_init(v.spec.cloud_init) if v.spec.cloud_init else None),
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
    ("created", lambda v: v.created_at),
)
_REVISION = ("revision", lambda v: v.revision)


COMMANDS = (
    list_command(
        lambda mica, **given: mica.vms(**given_query(given)),
        listed(
            _LINES,
            *("id", "state", "addresses", ("uptime", _uptime)),
            *(("cpus", lambda v: v.spec.cpus.count), "memory", "datastore", "reason"),
        ),
        text="List VMs.",
        parameters=list_options(VM_LISTING),
        lines=_LINES,
    ),
    show_command(
        lambda mica, vm_id: mica.vm(vm_id),
        _all_lines,
        text="Show a VM: its state, hardware and policies.",
        parameters=(vm_argument,),
    ),
)
