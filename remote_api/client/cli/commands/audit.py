"""The audit trail."""

from __future__ import annotations

from itertools import islice

import click

from remote_api.client.cli.parameters import NAME
from remote_api.client.cli.session import Session, pass_session, show_rows
from vmkernel.model import AuditOutcome

__all__ = ["COMMANDS"]


@click.group("audit")
def audit_group() -> None:
    """Who changed, read or was refused what."""


@audit_group.command("list")
@click.option(
    "--actor", type=NAME, metavar="TOKEN", help="Only what this token did, or `anonymous`."
)
@click.option(
    "--outcome",
    type=click.Choice([outcome.value for outcome in AuditOutcome]),
    help="Only what ended so.",
)
@click.option(
    "--limit", type=click.IntRange(min=1), help="At most so many records; all without it."
)
@pass_session
def list_audit(session: Session, actor: str | None, outcome: str | None, limit: int | None) -> None:
    """List the audit trail, newest first.

    Requests that repeat within five minutes are one line, with their number.
    """
    with session.mica() as mica:
        show_rows(
            session,
            islice(
                mica.audit(actor=actor, outcome=AuditOutcome(outcome) if outcome else None), limit
            ),
            (
                ("LAST", lambda r: r.last_at),
                ("OUTCOME", lambda r: r.outcome),
                ("REQUEST", lambda r: r.request),
                ("SUBJECT", lambda r: f"{r.subject.kind} {r.subject.id}"),
                ("BY", lambda r: r.actor),
                ("FROM", lambda r: r.origin),
                ("TIMES", lambda r: r.count),
                ("REASON", lambda r: r.message),
            ),
        )


COMMANDS = (audit_group,)
