"""Hosts: claiming, known hosts, the host itself, tokens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import click

from remote_api.client.cli import output
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
from remote_api.client.cli.parameters import NAME
from remote_api.client.cli.security_text import security_text
from remote_api.client.contexts import KnownHost
from remote_api.client.errors import DeclinedError, UntrustedError
from remote_api.client.pinning import (
    fetch_fingerprint,
    normal_address,
    normal_fingerprint,
    shown_fingerprint,
)
from remote_api.client.sdk import Mica
from vmkernel.model import (
    CpuInfo,
    Finding,
    LinkInfo,
    PowerAction,
    Role,
    StickInfo,
    TokenSpec,
    VirtualisationInfo,
)

__all__ = ["claim", "context_group", "host_group", "token_group"]


@click.command()
@click.argument("host")
@click.option("--code", required=True, help="The claim code on the host's screen.")
@click.option("--fingerprint", help="The TLS fingerprint on the host's screen.")
@click.option("--name", help="The name to know the host by; its address where none is given.")
@click.option(
    "--token-id", type=NAME, default="admin", show_default=True, help="The id of the new token."
)
@pass_session
def claim(
    session: Session, host: str, code: str, fingerprint: str | None, name: str | None, token_id: str
) -> None:
    """Take possession of the new HOST, and remember it.

    Without --fingerprint, the one that the host shows is printed for comparison with its screen,
    and nothing secret is sent before it is confirmed.
    """
    address = normal_address(host)
    if fingerprint is None:
        seen = fetch_fingerprint(address)
        output.print_paragraph(
            f"The TLS fingerprint of {address} is\n  {shown_fingerprint(seen)}", err=True
        )
        try:
            confirm("Is it the one on the host's screen?", option="--fingerprint")
        except DeclinedError as error:
            raise UntrustedError("the fingerprint was not confirmed; nothing was sent") from error
        fingerprint = seen
    pinned = normal_fingerprint(fingerprint)
    with Mica(address, fingerprint=pinned, timeout_s=session.timeout_s) as mica:
        issued = mica.claim(code, token_id=token_id)
    known_as = name or urlsplit(address).netloc
    session.store.put(
        known_as, KnownHost(address=address, token=issued.secret, fingerprint_sha256=pinned)
    )
    if session.json:
        show_object(session, issued.token)
    say(session, f"{address} is yours; it is known as {known_as} ({session.store.path})")


@click.group("context")
def context_group() -> None:
    """The hosts that this user knows."""


@context_group.command("list")
@pass_session
def list_contexts(session: Session) -> None:
    """List known hosts."""
    current, hosts = session.store.load()
    rows = [
        {"name": name, "current": name == current, "address": known.address}
        for name, known in sorted(hosts.items())
    ]
    show_rows(
        session,
        rows,
        (
            ("NAME", lambda row: row["name"]),
            ("CURRENT", lambda row: row["current"]),
            ("ADDRESS", lambda row: row["address"]),
        ),
    )


@context_group.command("use")
@click.argument("name")
@pass_session
def use_context(session: Session, name: str) -> None:
    """Make NAME the current host."""
    session.store.use(name)


@context_group.command("forget")
@click.argument("name")
@pass_session
def forget_context(session: Session, name: str) -> None:
    """Forget NAME and its token."""
    session.store.forget(name)


@context_group.command("add")
@click.argument("name")
@click.argument("host")
@click.option("--fingerprint", required=True, help="The host's TLS fingerprint.")
@click.option("--token", envvar="MICA_TOKEN", prompt=True, hide_input=True, help="A token.")
@pass_session
def add_context(session: Session, name: str, host: str, fingerprint: str, token: str) -> None:
    """Remember HOST as NAME, with a token that somebody else made."""
    session.store.put(
        name,
        KnownHost(
            address=normal_address(host),
            token=token,
            fingerprint_sha256=normal_fingerprint(fingerprint),
        ),
    )


@click.group("host", invoke_without_command=True)
@click.pass_context
def host_group(context: click.Context) -> None:
    """The host: identity, hardware, findings; its devices and power."""
    if context.invoked_subcommand is None:
        context.invoke(show_host)


@host_group.command("show")
@pass_session
def show_host(session: Session) -> None:
    """Show the host."""
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


@host_group.command("devices")
@pass_session
def host_devices(session: Session) -> None:
    """List PCI and USB devices."""
    with session.mica() as mica:
        show_rows(
            session,
            mica.devices(),
            (
                ("BUS", lambda d: d.bus),
                ("ADDRESS", lambda d: d.address),
                ("ID", lambda d: f"{d.vendor_id}:{d.product_id}"),
                ("NAME", lambda d: d.name),
                ("DRIVER", lambda d: d.driver),
                ("BUNDLE", lambda d: d.bundle),
                ("FINDING", lambda d: d.finding and d.finding.message),
            ),
        )


@host_group.command("rotate-certificate")
@click.option("--yes", is_flag=True, help="Don't ask.")
@pass_session
def rotate_certificate(session: Session, yes: bool) -> None:
    """Replace the TLS key and certificate of the host's API.

    The new fingerprint is pinned for this host here, and the host's screen shows it. Every other
    client has to learn it; consoles and event streams end.
    """
    if not yes:
        confirm(
            "Replace the certificate? Every other client that pins it has to be told the new one."
        )
    with session.mica() as mica:
        certificate = mica.rotate_certificate()
        shown = certificate.fingerprint_sha256
        if session.from_environment:
            say(session, "set MICA_FINGERPRINT to the new fingerprint")
        else:
            name = session.store.repin(session.host_name, shown)
            say(session, f"the new certificate is pinned for {name} ({session.store.path})")
        mica.whoami()  # the host answers with it
    if session.json:
        show_object(session, certificate)
    else:
        output.print_line(shown)


@host_group.command("power")
@click.argument("action", type=click.Choice([action.value for action in PowerAction]))
@click.option("--yes", is_flag=True, help="Don't ask.")
@wait_option
@pass_session
def host_power(session: Session, action: str, yes: bool, wait: bool) -> None:
    """End the guests in order, then shut down or reboot the host."""
    if not yes:
        confirm(f"{action} the host and every guest on it?")
    with session.mica() as mica:
        operation = mica.power(PowerAction(action))
        session.finish(mica, operation, wait=wait, done=f"the host's {action} is under way")


@click.group("token")
def token_group() -> None:
    """Tokens."""


@token_group.command("list")
@pass_session
def list_tokens(session: Session) -> None:
    """List tokens, without their secrets."""
    with session.mica() as mica:
        show_rows(
            session,
            mica.tokens(),
            (
                ("ID", lambda t: t.id),
                ("ROLE", lambda t: t.spec.role),
                ("EXPIRES", lambda t: t.spec.expires_at),
                ("DESCRIPTION", lambda t: t.spec.description),
            ),
        )


@token_group.command("create")
@click.argument("token_id", type=NAME)
@click.option("--role", type=click.Choice([role.value for role in Role]), required=True)
@click.option("--description", default="")
@click.option("--expires-at", metavar="TIME", help="RFC 3339, UTC, such as 2027-01-01T00:00:00Z.")
@click.option(
    "--expires-in", "days", metavar="DAYS", type=click.FloatRange(min=0, min_open=True, max=36500)
)
@pass_session
def create_token(
    session: Session,
    token_id: str,
    role: str,
    description: str,
    expires_at: str | None,
    days: float | None,
) -> None:
    """Make a token and print its secret, which can't be shown again."""
    if days is not None:
        if expires_at is not None:
            raise click.UsageError("--expires-at and --expires-in exclude each other")
        when = datetime.now(UTC) + timedelta(days=days)
        expires_at = when.strftime("%Y-%m-%dT%H:%M:%SZ")
    spec = TokenSpec(role=Role(role), description=description, expires_at=expires_at)
    with session.mica() as mica:
        issued = mica.create_token(token_id, spec)
    if session.json:
        show_object(session, issued)
    else:
        output.print_line(issued.secret)


@token_group.command("delete")
@click.argument("token_id", type=NAME)
@pass_session
def delete_token(session: Session, token_id: str) -> None:
    """Revoke a token."""
    with session.mica() as mica:
        mica.delete_token(token_id)
    say(session, f"token {token_id} is revoked")


@token_group.command("whoami")
@pass_session
def whoami(session: Session) -> None:
    """Show the token that is in use."""
    with session.mica() as mica:
        show_object(
            session,
            mica.whoami(),
            (
                ("id", lambda t: t.id),
                ("role", lambda t: t.spec.role),
                ("expires", lambda t: t.spec.expires_at),
                ("description", lambda t: t.spec.description),
                ("created", lambda t: t.created_at),
            ),
        )
