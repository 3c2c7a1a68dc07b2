"""The audit trail."""

from __future__ import annotations

from itertools import islice

import click

from remote_api.client.cli.output import Columns
from remote_api.client.cli.parameters import NAME, choice_of
from remote_api.client.cli.session import Session, pass_session, show_rows
from remote_api.client.cli.verbs import layout_options
from vmkernel.model import AuditOutcome

__all__ = ["COMMANDS"]


_COLUMNS: Columns = (
    ("LAST", lambda r: r.last_at),
    ("OUTCOME", lambda r: r.outcome),
    ("REQUEST", lambda r: r.request),
    ("SUBJECT", lambda r: f"{r.subject.kind} {r.subject.id}"),
    ("BY", lambda r: r.actor),
    ("FROM", lambda r: r.origin),
    ("TIMES", lambda r: r.count),
    ("REASON", lambda r: r.message),
)


@click.group("audit")
def audit_group() -> None:
    """Show the audit trail: changes and refused requests."""


@audit_group.command("list")
@layout_options
@click.option(
    "--actor",
    type=NAME,
    metavar="TOKEN",
    help="Only requests made with this token; `anonymous` for those without one.",
)
@click.option(
    "--outcome",
    type=choice_of(AuditOutcome),
    help="Only requests with this outcome.",
)
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="At most N records (default: all)."
)
@pass_session
def list_audit(session: Session, actor: str | None, outcome: str | None, limit: int | None) -> None:
    """List the audit trail, newest first.

    Repeated requests within five minutes are one record; TIMES is their number.
    """
    found = AuditOutcome(outcome) if outcome else None
    with session.mica() as mica:
        show_rows(session, islice(mica.audit(actor=actor, outcome=found), limit), _COLUMNS)


COMMANDS = (audit_group,)
