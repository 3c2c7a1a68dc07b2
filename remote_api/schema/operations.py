"""Long-running work and what happened: operations and events."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from vmkernel.model import Record

__all__ = ["MAX_WAIT_S", "WaitQuery"]

MAX_WAIT_S = 300


class WaitQuery(Record, frozen=True, kw_only=True):
    """How long the answer may be held back for the work to finish."""

    wait: Annotated[float, Meta(ge=0, le=MAX_WAIT_S)] = 0.0
    """Seconds to wait for the work to finish before the answer is sent."""
