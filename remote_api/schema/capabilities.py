"""What clients can ask for before they rely on it: the `capabilities` of `GET /v1`.

A capability is never taken away within `/v1`; what it means never changes. Besides these, a host
lists the requests of its vmkernel (`vm.create`), which show what its build can do.
"""

from __future__ import annotations

__all__ = ["CAPABILITIES"]

CAPABILITIES = {
    "dry-run": "Changes take `dry_run=true`.",
    "event-filters": "Event streams take `type`, `subject` and `label`.",
    "event-objects": "Events bring their object.",
    "event-tickets": "A ticket opens event streams for browsers.",
    "field-error-codes": "Each of a problem's `errors` has a `code` and `parameters`.",
    "idempotent-actions": "An action that finds nothing to do succeeds.",
    "list-fields": "Lists take `fields` and `view`.",
    "list-filters": "Lists take filters by their columns, and `sort`.",
    "list-labels": "Lists of nouns with labels take `label`.",
    "list-watch": "Reads answer `Mica-Event-Id`, from which a client follows without a gap.",
    "prefer": "Requests that take `wait` take `Prefer` (RFC 7240).",
    "problem-pages": "A problem's `type` leads to a page that explains it.",
}
"""Names, and what each promises."""
