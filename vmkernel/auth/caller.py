"""The caller of a request, as every handler sees it."""

from __future__ import annotations

from dataclasses import dataclass

from vmkernel.model import Role
from vmkernel.model.operations import SYSTEM

__all__ = ["ANONYMOUS", "Caller", "SYSTEM"]


@dataclass(frozen=True)
class Caller:
    """An authenticated (or anonymous) asker."""

    actor: str
    """The id of the token, for operations and events."""
    role: Role | None
    """None for a request without a token."""
    origin: str = ""
    """The client's address."""


ANONYMOUS = "anonymous"
